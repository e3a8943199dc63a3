"""Parts of a PPO epoch's summary; its keys are fixed by telemetry version 1.2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from townlet_training_core.strategy import AnnealContext

__all__ = ["ConflictStats", "anneal_numbers", "dataset_numbers"]

_EVENTS = {
    "queue_conflict_events": "queue_conflict_count",
    "queue_conflict_intensity_sum": "queue_conflict_intensity_sum",
    "shared_meal_events": "shared_meal_count",
    "late_help_events": "late_help_count",
    "shift_takeover_events": "shift_takeover_count",
    "chat_success_events": "chat_success_count",
    "chat_failure_events": "chat_failure_count",
    "chat_quality_mean": "chat_quality_mean",
}
_BASELINES = ("sample_count", "reward_mean", "reward_sum", "reward_sum_mean", "log_prob_mean")


def dataset_numbers(dataset: Any) -> dict[str, float]:
    """Return events, ticks and baselines that a dataset carries; 0 where it counts no events."""
    numbers = {key: float(getattr(dataset, attribute, 0.0) or 0.0) for key, attribute in _EVENTS.items()}
    numbers["rollout_ticks"] = float(getattr(dataset, "rollout_ticks", 0) or 0)
    baseline = getattr(dataset, "baseline_metrics", None) or {}
    return numbers | {f"baseline_{name}": float(baseline[name]) for name in _BASELINES if name in baseline}


def anneal_numbers(context: AnnealContext, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a summary says of the anneal stage that it belongs to; what is not known is left out."""
    queue, intensity = float(summary["queue_conflict_events"]), float(summary["queue_conflict_intensity_sum"])
    flags = context.evaluate_ppo_flags(float(summary["loss_total"]), queue, intensity)
    numbers = {
        "anneal_cycle": float(context.cycle),
        "anneal_stage": context.stage,
        "anneal_dataset": context.dataset_label,
        "anneal_bc_accuracy": context.bc_accuracy,
        "anneal_bc_threshold": context.bc_threshold,
        "anneal_bc_passed": context.bc_passed,
        "anneal_loss_baseline": context.loss_baseline,
        "anneal_queue_baseline": context.queue_events_baseline,
        "anneal_intensity_baseline": context.queue_intensity_baseline,
        "anneal_loss_flag": flags[0],
        "anneal_queue_flag": flags[1],
        "anneal_intensity_flag": flags[2],
    }
    return {key: value for key, value in numbers.items() if value is not None}


class ConflictStats:
    """Averages the conflict numbers of the batches that pass by."""

    def __init__(self) -> None:
        self._seen: list[Mapping[str, float]] = []

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass the batches on."""
        for batch in batches:
            self._seen.append(batch.conflict_stats())
            yield batch

    def averages(self) -> dict[str, float]:
        """Return ``conflict.<name>_avg`` over the batches."""
        names = sorted({name for row in self._seen for name in row})
        rows = {name: [row[name] for row in self._seen if name in row] for name in names}
        return {f"conflict.{name}_avg": sum(values) / len(values) for name, values in rows.items()}
