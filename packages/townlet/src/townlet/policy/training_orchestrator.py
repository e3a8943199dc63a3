"""`PolicyTrainingOrchestrator`: the old orchestrator, which returns dictionaries and prints summaries."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from townlet.policy.training.orchestrator import TrainingOrchestrator
from townlet.policy.training.services import DEFAULT_REPLAY_MANIFEST
from townlet.policy.training.strategies.bc import BCStrategy
from townlet_training_core.dto.results import PPO_TELEMETRY_VERSION
from townlet_training_core.promotion.manager import PromotionManager
from townlet_training_core.promotion.verdict import evaluate_anneal_results
from townlet_training_core.replay.dataset import InMemoryReplayDataset, ReplayDataset, ReplayDatasetConfig
from townlet_training_core.rollout.frames import FrameRolloutBuffer

__all__ = [
    "ANNEAL_BC_MIN_DEFAULT",
    "ANNEAL_LOSS_TOLERANCE_DEFAULT",
    "ANNEAL_QUEUE_TOLERANCE_DEFAULT",
    "DEFAULT_REPLAY_MANIFEST",
    "PPO_TELEMETRY_VERSION",
    "PolicyTrainingOrchestrator",
]

ANNEAL_BC_MIN_DEFAULT = 0.9
ANNEAL_LOSS_TOLERANCE_DEFAULT = 0.10
ANNEAL_QUEUE_TOLERANCE_DEFAULT = 0.15


class PolicyTrainingOrchestrator:
    """A thin adapter on :class:`~townlet.policy.training.TrainingOrchestrator`."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.transitions: dict[str, dict[str, Any]] = {}
        self.trajectory: list[dict[str, Any]] = []
        self.last_anneal_status: str | None = None
        self._front = TrainingOrchestrator(config)
        self._anneal_ratio: float | None = None

    @property
    def promotion(self) -> PromotionManager:
        """The promotion record."""
        return self._front.context.services.promotion.manager

    def run(self) -> None:
        """Run the configured mode, ``bc`` or ``anneal``; ``NotImplementedError`` for any other."""
        source = self.config.training.source
        if source == "anneal":
            self.run_anneal()
        elif source == "bc":
            self.run_bc_training()
        else:
            self._front.run()

    def current_anneal_ratio(self) -> float | None:
        """Share of decisions that the scripted policy takes."""
        return self._anneal_ratio

    def set_anneal_ratio(self, ratio: float | None) -> None:
        """Set that share, clamped to [0, 1]; ``None`` switches it off."""
        self._anneal_ratio = None if ratio is None else min(1.0, max(0.0, float(ratio)))

    def run_replay(self, sample_path: Path, meta_path: Path | None = None) -> dict[str, Any]:
        """Summarise a sample."""
        summary = self._front.context.services.replay.summarize_sample(sample_path, meta_path)
        return _printed("Replay sample loaded:", summary)

    def run_replay_batch(self, pairs: Iterable[tuple[Path, Path | None]]) -> dict[str, Any]:
        """Summarise samples as one batch."""
        return _printed("Replay batch 1:", self._front.context.services.replay.summarize_batch_pairs(pairs))

    def run_replay_dataset(self, dataset_config: ReplayDatasetConfig | ReplayDataset) -> dict[str, Any]:
        """Summarise every batch and return the last summary."""
        replay = self._front.context.services.replay
        dataset = (
            replay.build_dataset(dataset_config) if isinstance(dataset_config, ReplayDatasetConfig) else dataset_config
        )
        summary: dict[str, Any] = {}
        for number, batch in enumerate(dataset, start=1):
            summary = _printed(f"Replay batch {number}:", replay.summarize_batch(batch, number))
        return summary

    def build_replay_dataset(self, config: ReplayDatasetConfig | Path | str | None = None) -> ReplayDataset:
        """Open a dataset; ``None`` means the configured or the default manifest."""
        return self._front.context.services.replay.build_dataset(config)

    def capture_rollout(
        self,
        ticks: int,
        auto_seed_agents: bool = False,
        output_dir: Path | None = None,
        prefix: str = "rollout_sample",
        compress: bool = True,
    ) -> FrameRolloutBuffer:
        """Capture frames; see :class:`~townlet.policy.training.services.RolloutCaptureService`."""
        context = self._front.context
        return context.services.rollout.capture(
            ticks,
            auto_seed_agents,
            output_dir,
            prefix,
            compress,
            cycle=context.state.ppo.cycle_id + 1,
            anneal_ratio=self._anneal_ratio,
        )

    def run_rollout_ppo(
        self,
        ticks: int,
        batch_size: int = 1,
        auto_seed_agents: bool = False,
        output_dir: Path | None = None,
        prefix: str = "rollout_sample",
        compress: bool = True,
        epochs: int = 1,
        log_path: Path | None = None,
        log_frequency: int = 1,
        max_log_entries: int | None = None,
    ) -> dict[str, Any]:
        """Capture, then train on the capture."""
        where: dict[str, Any] = {"output_dir": output_dir, "prefix": prefix, "compress": compress}
        buffer = self.capture_rollout(ticks=ticks, auto_seed_agents=auto_seed_agents, **where)
        return self.run_ppo(
            epochs=epochs,
            log_path=log_path,
            log_frequency=log_frequency,
            max_log_entries=max_log_entries,
            in_memory_dataset=buffer.build_dataset(batch_size=batch_size),
        )

    def run_bc_training(self, *, manifest: Path | None = None, config: Any = None) -> dict[str, Any]:
        """Clone a manifest; ``config`` is a ``BCTrainingConfig``."""
        result = BCStrategy().run(self._front.context, manifest=manifest, params=config)
        return {"loss": result.loss, "accuracy": result.accuracy, "mode": "bc", "manifest": result.manifest}

    def run_ppo(
        self,
        dataset_config: Any = None,
        epochs: int = 1,
        log_path: Path | None = None,
        log_frequency: int = 1,
        max_log_entries: int | None = None,
        in_memory_dataset: InMemoryReplayDataset | None = None,
        device_str: str | None = None,
    ) -> dict[str, Any]:
        """Train by PPO and return the summary of the last epoch."""
        result = self._front.run_ppo(
            dataset_config=dataset_config,
            in_memory_dataset=in_memory_dataset,
            epochs=epochs,
            log_path=log_path,
            log_frequency=log_frequency,
            max_log_entries=max_log_entries,
            device_str=device_str,
        )
        from townlet_training_torch.legacy_anneal import plain_summary

        return plain_summary(result)

    def run_anneal(
        self,
        *,
        dataset_config: Any = None,
        in_memory_dataset: InMemoryReplayDataset | None = None,
        log_dir: Path | None = None,
        bc_manifest: Path | None = None,
    ) -> list[dict[str, Any]]:
        """Run the anneal schedule and return the result of each stage."""
        summary = self._front.run_anneal(
            dataset_config=dataset_config, in_memory_dataset=in_memory_dataset, log_dir=log_dir, bc_manifest=bc_manifest
        )
        self.last_anneal_status = summary.status
        if self._front.context.metadata.get("anneal_ratio") is not None:
            self.set_anneal_ratio(self._front.context.metadata["anneal_ratio"])
        results: list[dict[str, Any]] = self._front.context.metadata["anneal_results"]
        return results

    def evaluate_anneal_results(self, results: Sequence[Mapping[str, Any]]) -> str:
        """Return PASS, HOLD or FAIL."""
        return evaluate_anneal_results(results)

    def build_policy_network(
        self, feature_dim: int, map_shape: tuple[int, int, int], action_dim: int, hidden_dim: int | None = None
    ) -> Any:
        """Make a policy network; needs torch."""
        from townlet.policy.models import ConflictAwarePolicyConfig, ConflictAwarePolicyNetwork

        config = ConflictAwarePolicyConfig(feature_dim, map_shape, action_dim)
        config.hidden_dim = hidden_dim or config.hidden_dim
        return ConflictAwarePolicyNetwork(config)


def _printed(title: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Print a summary as scripts expect it on standard output, and return it."""
    sys.stdout.write(f"{title} " + ", ".join(f"{key}={value}" for key, value in summary.items()) + "\n")
    return summary
