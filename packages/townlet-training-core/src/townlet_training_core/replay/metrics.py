"""Numbers that describe a sample, and their aggregation over a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from townlet_training_core.replay.sample import REQUIRED_CONFLICT_FEATURES, ReplaySample

__all__ = ["aggregate_metrics", "compute_sample_metrics"]


def compute_sample_metrics(sample: ReplaySample) -> dict[str, float]:
    """Describe a sample in numbers.

    Returns
    -------
    dict
        ``timesteps``, ``reward_sum``, ``reward_mean``, ``log_prob_mean``, ``value_pred_last``; mean and maximum
        of the conflict features; ``reward_feature_mean`` and ``lateness_mean`` when these features exist;
        ``action_total`` (decisions), ``action_nonzero`` (with an id other than 0), ``action_entropy`` (nats, of
        the empirical distribution), ``action_{kind}_count`` and ``action_blocked_ratio`` where the metadata's
        ``action_lookup`` or ``action_names`` tell what the ids mean. All floats.
    """
    steps = sample.timesteps
    metrics: dict[str, float] = {
        "timesteps": float(steps),
        "reward_sum": float(sample.rewards.sum(dtype=np.float64)),
        "reward_mean": float(sample.rewards.mean(dtype=np.float64)) if steps else 0.0,
        "log_prob_mean": float(sample.old_log_probs.mean(dtype=np.float64)) if steps else 0.0,
        "value_pred_last": float(sample.value_preds.reshape(-1)[-1]) if sample.value_preds.size else 0.0,
    }
    names = sample.feature_names

    def column(name: str) -> Any:
        return sample.features[:, names.index(name)] if name in names and steps else None

    for name in REQUIRED_CONFLICT_FEATURES:
        values = column(name)
        if values is not None:
            metrics[f"{name}_mean"] = float(values.mean())
            metrics[f"{name}_max"] = float(values.max())
    for name, key in (("reward_total", "reward_feature_mean"), ("lateness_counter", "lateness_mean")):
        values = column(name)
        if values is not None:
            metrics[key] = float(values.mean())
    return metrics | _action_metrics(sample)


def _action_metrics(sample: ReplaySample) -> dict[str, float]:
    actions = sample.actions.reshape(-1)
    counts = {int(action): int(count) for action, count in zip(*np.unique(actions, return_counts=True), strict=True)}
    total = len(actions)
    shares = np.array(list(counts.values()), np.float64) / max(total, 1)
    metrics = {
        "action_nonzero": float(np.count_nonzero(actions)),
        "action_total": float(total),
        "action_entropy": float(-(shares * np.log(shares)).sum()) if total else 0.0,
    }
    described = {
        int(action): _describe(text) for text, action in dict(sample.metadata.get("action_lookup") or {}).items()
    }
    for action, name in enumerate(sample.metadata.get("action_names") or ()):
        described.setdefault(action, (str(name), False))
    blocked = 0
    for action, count in counts.items():
        kind, is_blocked = described.get(action, ("", False))
        if kind:
            metrics[f"action_{kind}_count"] = metrics.get(f"action_{kind}_count", 0.0) + count
        blocked += count * is_blocked
    metrics["action_blocked_ratio"] = blocked / total if total else 0.0
    return metrics


def _describe(text: str) -> tuple[str, bool]:
    """Return kind and blocked flag of an action's JSON."""
    try:
        action = json.loads(text)
    except ValueError:
        return str(text), False
    if isinstance(action, Mapping):
        return str(action.get("kind", "")), bool(action.get("blocked", False))
    return (action if isinstance(action, str) else ""), False


def aggregate_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Aggregate the metrics of samples.

    Means of each metric over the samples that have it; keys that end in ``_sum`` or ``_total`` are summed and get
    a ``_mean`` beside them (total over all samples); ``sample_count``. Empty without samples.
    """
    listed = [row for row in rows if row]
    if not listed:
        return {}
    aggregated: dict[str, float] = {"sample_count": float(len(listed))}
    numeric = {
        key for row in listed for key, value in row.items() if isinstance(value, int | float) and key != "sample_count"
    }
    for key in sorted(numeric):
        values = [float(row[key]) for row in listed if isinstance(row.get(key), int | float)]
        if key.endswith(("_sum", "_total")):
            aggregated[key] = sum(values)
            aggregated[f"{key}_mean"] = sum(values) / len(listed)
        else:
            aggregated[key] = sum(values) / len(values)
    return aggregated
