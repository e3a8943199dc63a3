"""A PPO run over stored batches as the old entry points report it: the epoch summary of telemetry version 1.2.

``context`` is the façade's: ``config``, ``services.replay``, ``anneal_context``, and ``state`` with the counters, the
learner and its directory.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from townlet_training_core.dto.results import PPO_TELEMETRY_VERSION, PPOTrainingResultDTO
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.replay.npz import load_replay_sample, read_metadata, sidecar
from townlet_training_core.strategy import AnnealContext
from townlet_training_core.telemetry.jsonl import JsonlWriter

__all__ = ["train_on_batches"]

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


def train_on_batches(
    context: Any,
    *,
    dataset_config: Any,
    in_memory_dataset: Any,
    epochs: int,
    log_path: Path | None,
    log_frequency: int,
    max_log_entries: int | None,
    device_str: str | None,
    bc_weight: float,
) -> PPOTrainingResultDTO:
    """Train for ``epochs`` passes and return the summary of the last; each is one line of the log.

    Raises
    ------
    ValueError
        Without data, or when advantages are not finite. The weights are those from before the call then.
    """
    if dataset_config is None and in_memory_dataset is None:
        msg = "dataset_config is required when in_memory_dataset is not provided"
        raise ConfigurationError(msg)
    if epochs < 1:
        msg = f"epochs must be positive, not {epochs}"
        raise ConfigurationError(msg)
    config, state = context.config, context.state
    stored = None if dataset_config is None else context.services.replay.build_dataset(dataset_config)
    datasets = [dataset for dataset in (stored, in_memory_dataset) if dataset is not None]
    mode = "mixed" if len(datasets) == 2 else "replay" if in_memory_dataset is None else "rollout"
    batches: Iterator[Any] = chain.from_iterable(datasets)
    first = next(batches, None)
    if first is None:
        msg = "Replay dataset yielded no batches"
        raise DataError(msg)
    learner = state.require_learner(config)
    before, counters = learner.snapshot(), copy.copy(state.ppo)
    try:
        described = [_describe(dataset) for dataset in datasets]
        actions = max(size for size, _ in described)
        learner.prepare(first, action_dim=actions, learning_rate=config.ppo.learning_rate, device=device_str)
        state.ppo.cycle_id = max(state.ppo.cycle_id, 0) if in_memory_dataset is None else state.ppo.cycle_id + 1
        carried = _dataset_numbers(in_memory_dataset if in_memory_dataset is not None else stored)
        behaviour = copy.deepcopy(learner.network)
        cloning = learner.cloning_table(state.cloning) if bc_weight > 0.0 and state.cloning is not None else None
        label = str(getattr(datasets[0], "label", None) or mode)
        summary: dict[str, Any] = {}
        for epoch in range(1, epochs + 1):
            started, conflicts = time.perf_counter(), _ConflictStats()
            source = chain([first], batches) if epoch == 1 else chain.from_iterable(datasets)
            pools = learner.tables(conflicts.watch(source), config.ppo, label=label, behaviour=behaviour)
            numbers = learner.epoch(pools, config.ppo, cloning=cloning, bc_weight=bc_weight)
            state.ppo.step += int(numbers["transitions"])
            state.ppo.log_stream_offset += 1
            state.ppo.learning_rate = config.ppo.learning_rate
            summary = {
                "epoch": float(epoch),
                **numbers,
                "telemetry_version": PPO_TELEMETRY_VERSION,
                "lr": state.ppo.learning_rate,
                "steps": float(state.ppo.step),
                "epoch_duration_sec": time.perf_counter() - started,
                "data_mode": mode,
                "cycle_id": float(state.ppo.cycle_id),
                "log_stream_offset": float(state.ppo.log_stream_offset),
                **carried,
                **conflicts.averages(),
            }
            if context.anneal_context is not None:
                summary |= _anneal_numbers(context.anneal_context, summary)
            if log_path is not None and epoch % max(1, log_frequency) == 0:
                with JsonlWriter(Path(log_path), max_entries=max_log_entries) as log:
                    log.write(summary)
    except Exception:
        learner.restore(before)
        state.ppo = counters
        raise
    checkpoint = learner.save(state.run_directory(), described[0][1])
    return PPOTrainingResultDTO.model_validate({**summary, "checkpoint": str(checkpoint)})


def _dataset_numbers(dataset: Any) -> dict[str, float]:
    """Return events, ticks and baselines that a dataset carries; 0 where it counts no events."""
    numbers = {key: float(getattr(dataset, attribute, 0.0) or 0.0) for key, attribute in _EVENTS.items()}
    numbers["rollout_ticks"] = float(getattr(dataset, "rollout_ticks", 0) or 0)
    baseline = getattr(dataset, "baseline_metrics", None) or {}
    return numbers | {f"baseline_{name}": float(baseline[name]) for name in _BASELINES if name in baseline}


def _anneal_numbers(context: AnnealContext, summary: Mapping[str, Any]) -> dict[str, Any]:
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


class _ConflictStats:
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


def _describe(dataset: Any) -> tuple[int, Mapping[str, Any]]:
    """Return the size of the action space and the metadata of the first sample.

    The size is the metadata's, the largest over the data, else the largest action plus one.
    """
    entries = getattr(getattr(dataset, "config", None), "entries", None)
    if not entries or not isinstance(entries[0], tuple):
        sizes = [max(int(one.metadata.get("action_dim") or 0), int(one.actions.max()) + 1) for one in dataset]
        return max(sizes), (entries[0] if entries else next(iter(dataset))).metadata
    described = [read_metadata(Path(meta) if meta else sidecar(Path(sample))) for sample, meta in entries]
    sizes = [
        int(known.get("action_dim") or load_replay_sample(*entry).actions.max() + 1)
        for known, entry in zip(described, entries, strict=True)
    ]
    return max(sizes), described[0]
