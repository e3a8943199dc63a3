"""PPO over replay data, over a capture in memory, or over both."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from townlet._torch import require_torch
from townlet.policy.training.contexts import TrainingContext
from townlet.policy.training.summaries import ConflictStats, anneal_numbers, dataset_numbers
from townlet_training_core.dto.results import PPO_TELEMETRY_VERSION, PPOTrainingResultDTO
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.replay.npz import load_replay_sample, read_metadata, sidecar
from townlet_training_core.telemetry.jsonl import JsonlWriter

__all__ = ["PPOStrategy"]


class PPOStrategy:
    """Passes over stored batches; weights, optimiser and counters go on in ``context.state``."""

    def run(
        self,
        context: TrainingContext,
        *,
        dataset_config: Any = None,
        in_memory_dataset: Any = None,
        epochs: int = 1,
        log_path: Path | None = None,
        log_frequency: int = 1,
        max_log_entries: int | None = None,
        device_str: str | None = None,
        bc_weight: float = 0.0,
    ) -> PPOTrainingResultDTO:
        """Train for ``epochs`` passes and return the summary of the last; each is one line of the log.

        Raises
        ------
        ValueError
            Without data, or when advantages are not finite. The weights are those from before the call then.
        """
        models = importlib.import_module("townlet.policy.models")
        require_torch(models.torch_available(), "PyTorch is required for PPO: training")
        if dataset_config is None and in_memory_dataset is None:
            msg = "dataset_config is required when in_memory_dataset is not provided"
            raise ConfigurationError(msg)
        if epochs < 1:
            msg = f"epochs must be positive, not {epochs}"
            raise ConfigurationError(msg)
        config, state = context.config, context.state
        if config.ppo is None:
            config.ppo = importlib.import_module("townlet.config.training").PPOConfig()
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
            carried = dataset_numbers(in_memory_dataset if in_memory_dataset is not None else stored)
            behaviour = copy.deepcopy(learner.network)
            cloning = learner.cloning_table(state.cloning) if bc_weight > 0.0 and state.cloning is not None else None
            label = str(getattr(datasets[0], "label", None) or mode)
            summary: dict[str, Any] = {}
            for epoch in range(1, epochs + 1):
                started, conflicts = time.perf_counter(), ConflictStats()
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
                    summary |= anneal_numbers(context.anneal_context, summary)
                if log_path is not None and epoch % max(1, log_frequency) == 0:
                    with JsonlWriter(Path(log_path), max_entries=max_log_entries) as log:
                        log.write(summary)
        except Exception:
            learner.restore(before)
            state.ppo = counters
            raise
        checkpoint = learner.save(state.run_directory(), described[0][1])
        return PPOTrainingResultDTO.model_validate({**summary, "checkpoint": str(checkpoint)})


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
