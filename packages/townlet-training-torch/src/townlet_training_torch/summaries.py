"""Numbers about an update, from arrays: the predecessor's flat epoch summary, and reports on classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import RolloutArrays
from townlet_training_core.dto.results import PPO_TELEMETRY_VERSION
from townlet_training_core.strategy import AnnealContext
from townlet_training_torch.minibatches import require_finite

__all__ = [
    "UPDATE_METRICS",
    "advantage_summary",
    "anneal_summary",
    "baseline_summary",
    "classification_report",
    "conflict_summary",
    "event_summary",
    "update_summary",
]

UPDATE_METRICS = (
    "loss_policy",
    "loss_value",
    "loss_entropy",
    "loss_total",
    "clip_fraction",
    "grad_norm",
    "kl",
    "adv_std",
    "loss_bc",
)
"""Columns of the ``(U, 9)`` table that an update leaves, one row per mini-batch."""

_EVENT_KEYS = {
    "queue_conflict": ("queue_conflict_events", "queue_conflict_intensity_sum"),
    "shared_meal": ("shared_meal_events", None),
    "employment_helped_when_late": ("late_help_events", None),
    "employment_took_my_shift": ("shift_takeover_events", None),
    "chat_success": ("chat_success_events", "chat_quality_mean"),
    "chat_failure": ("chat_failure_events", None),
}


def update_summary(table: NDArray[np.float32], *, dataset: str, batch: int) -> dict[str, float]:
    """Summarise the mini-batches of one update: ``(U, 9)``, columns as :data:`UPDATE_METRICS`.

    Raises
    ------
    NonFiniteError
        When training diverged: a loss or a gradient is no number.
    """
    columns = dict(zip(UPDATE_METRICS, table.T, strict=True))
    require_finite(columns, np.ones(len(table), np.bool_), what="PPO", dataset=dataset, batch=batch)
    columns = dict(zip(UPDATE_METRICS, table.astype(np.float64).T, strict=True))
    entropy, clip, deviation = columns["loss_entropy"], columns["clip_fraction"], columns["adv_std"]
    return {
        "updates": float(len(table)),
        "loss_policy": float(columns["loss_policy"].mean()),
        "loss_value": float(columns["loss_value"].mean()),
        "loss_entropy": float(entropy.mean()),
        "loss_total": float(columns["loss_total"].mean()),
        "clip_fraction": float(np.clip(clip.mean(), 0.0, 1.0)),
        "clip_fraction_max": float(clip.max()),
        "clip_triggered_minibatches": float((clip > 0.0).sum()),
        "grad_norm": float(columns["grad_norm"].mean()),
        "grad_norm_max": float(columns["grad_norm"].max()),
        "kl_divergence": float(columns["kl"].mean()),
        "kl_divergence_max": float(columns["kl"].max()),
        "batch_entropy_mean": float(entropy.mean()),
        "batch_entropy_std": float(entropy.std()),
        "adv_zero_std_batches": float((deviation < 1e-8).sum()),
        "adv_min_std": float(deviation.min()),
        "telemetry_version": PPO_TELEMETRY_VERSION,
    }


def advantage_summary(advantages: NDArray[Any], rewards: NDArray[Any]) -> dict[str, float]:
    """Mean, deviation and correlation with the rewards of ``(V,)`` valid rows, before any normalisation."""
    spread = float(advantages.std(dtype=np.float64)) * float(rewards.std(dtype=np.float64))
    correlation = 0.0
    if spread > 1e-12:
        shifted = (advantages - advantages.mean(dtype=np.float64)) * (rewards - rewards.mean(dtype=np.float64))
        correlation = float(np.clip(shifted.mean() / spread, -1.0, 1.0))
    return {
        "adv_mean": float(advantages.mean(dtype=np.float64)),
        "adv_std": float(advantages.std(dtype=np.float64)),
        "reward_advantage_corr": correlation,
    }


def event_summary(totals: Mapping[str, tuple[int, float]]) -> dict[str, float]:
    """Turn ``{kind: (count, summed value)}`` into the summary's social event keys."""
    summary: dict[str, float] = {}
    for kind, (count_key, value_key) in _EVENT_KEYS.items():
        count, total = totals.get(kind, (0, 0.0))
        summary[count_key] = float(count)
        if value_key == "chat_quality_mean":
            summary[value_key] = float(np.clip(total / count, 0.0, 1.0)) if count else 0.0
        elif value_key is not None:
            summary[value_key] = float(total)
    return summary


def conflict_summary(arrays: RolloutArrays, feature_names: Sequence[str]) -> dict[str, float]:
    """Mean and largest rivalry features over valid rows, where the features have those names."""
    summary: dict[str, float] = {}
    wanted = [name for name in ("rivalry_max", "rivalry_avoid_count") if name in feature_names]
    if not wanted or "features" not in arrays.observations:
        return summary
    features = np.asarray(arrays.observations["features"])  # read here, where it is mapped from disk
    for name in wanted:
        column = features[..., list(feature_names).index(name)][arrays.valid]
        summary[f"conflict.{name}_mean_avg"] = float(column.mean(dtype=np.float64))
        summary[f"conflict.{name}_max_avg"] = float(column.max())
    return summary


def classification_report(confusion: NDArray[np.int64], *, top_k_hits: int, names: Sequence[str]) -> dict[str, Any]:
    """Report on a classifier.

    Parameters
    ----------
    confusion:
        ``(A, A)``: rows are what was right, columns what was chosen.
    top_k_hits:
        Rows whose right action was among the k most probable.

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1`` over actions that occur, ``top_k_accuracy``, ``samples``, ``vacuous`` (a single
        action occurs, so that accuracy says nothing) and ``actions``: precision, recall, f1, support by name.
    """
    total = int(confusion.sum())
    hits = np.diag(confusion).astype(np.float64)
    support, chosen = confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(chosen, 1)
    f1 = 2.0 * precision * recall / np.maximum(precision + recall, 1e-12)
    occurs = support > 0
    return {
        "samples": total,
        "accuracy": float(hits.sum() / max(1, total)),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "top_k_accuracy": top_k_hits / max(1, total),
        "vacuous": int(occurs.sum()) < 2,
        "actions": {
            name: {
                "precision": float(precision[action]),
                "recall": float(recall[action]),
                "f1": float(f1[action]),
                "support": int(support[action]),
            }
            for action, name in enumerate(names)
            if occurs[action] or chosen[action]
        },
        "confusion": confusion.tolist(),
    }


def baseline_summary(arrays: RolloutArrays) -> dict[str, float]:
    """Baseline metrics of stored data: each slot is one sample (trajectory)."""
    valid = arrays.valid
    rewards = np.where(valid, arrays.rewards, 0.0).astype(np.float64)
    samples = float(valid.any(axis=0).sum())
    summary = {
        "baseline_sample_count": samples,
        "baseline_reward_mean": float(rewards.sum() / max(1, valid.sum())),
        "baseline_reward_sum": float(rewards.sum()),
        "baseline_reward_sum_mean": float(rewards.sum() / max(1.0, samples)),
    }
    if arrays.log_probs is not None:
        summary["baseline_log_prob_mean"] = float(arrays.log_probs[valid].mean(dtype=np.float64))
    return summary


def anneal_summary(anneal: AnnealContext, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that say which anneal stage a summary belongs to, and the legacy flags."""
    loss, queue, intensity = anneal.evaluate_ppo_flags(
        float(summary["loss_total"]),
        float(summary["queue_conflict_events"]),
        float(summary["queue_conflict_intensity_sum"]),
    )
    return {
        "anneal_cycle": float(anneal.cycle),
        "anneal_stage": anneal.stage,
        "anneal_dataset": anneal.dataset_label,
        "anneal_bc_accuracy": anneal.bc_accuracy,
        "anneal_bc_threshold": anneal.bc_threshold,
        "anneal_bc_passed": anneal.bc_passed,
        "anneal_loss_baseline": anneal.loss_baseline,
        "anneal_queue_baseline": anneal.queue_events_baseline,
        "anneal_intensity_baseline": anneal.queue_intensity_baseline,
        "anneal_loss_flag": loss,
        "anneal_queue_flag": queue,
        "anneal_intensity_flag": intensity,
    }
