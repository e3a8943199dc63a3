"""`TrainingOrchestrator`: strategies behind one front, results as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from townlet.policy.training.contexts import TrainingContext
from townlet.policy.training.strategies import AnnealStrategy, BCStrategy, PPOStrategy
from townlet_training_core.dto.results import AnnealSummaryDTO, BCTrainingResultDTO, PPOTrainingResultDTO

__all__ = ["TrainingOrchestrator"]


class TrainingOrchestrator:
    """Trains by the configuration; weights, optimiser and counters go on from call to call."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._context: TrainingContext | None = None

    @property
    def context(self) -> TrainingContext:
        """Services and state; composed when first asked for."""
        if self._context is None:
            self._context = TrainingContext.from_config(self.config)
        return self._context

    def run(self) -> BCTrainingResultDTO | AnnealSummaryDTO:
        """Run the configured mode, ``bc`` or ``anneal``.

        Raises
        ------
        NotImplementedError
            For any other mode, which needs data that only a call can name.
        """
        source = self.config.training.source
        if source == "bc":
            return self.run_bc()
        if source == "anneal":
            return self.run_anneal()
        msg = f"Training mode {source!r} is not supported via run(); call the mode's own method"
        raise NotImplementedError(msg)

    def run_bc(self, *, manifest: Path | None = None) -> BCTrainingResultDTO:
        """Clone the behaviour of a manifest."""
        return BCStrategy().run(self.context, manifest=manifest)

    def run_ppo(
        self,
        *,
        dataset_config: Any = None,
        in_memory_dataset: Any = None,
        epochs: int = 1,
        log_path: Path | None = None,
        log_frequency: int = 1,
        max_log_entries: int | None = None,
        device_str: str | None = None,
    ) -> PPOTrainingResultDTO:
        """Train by PPO; see :class:`PPOStrategy`."""
        return PPOStrategy().run(
            self.context,
            dataset_config=dataset_config,
            in_memory_dataset=in_memory_dataset,
            epochs=epochs,
            log_path=log_path,
            log_frequency=log_frequency,
            max_log_entries=max_log_entries,
            device_str=device_str,
        )

    def run_anneal(
        self,
        *,
        dataset_config: Any = None,
        in_memory_dataset: Any = None,
        log_dir: Path | None = None,
        bc_manifest: Path | None = None,
    ) -> AnnealSummaryDTO:
        """Run the anneal schedule; see :class:`AnnealStrategy`."""
        data = {"dataset_config": dataset_config, "in_memory_dataset": in_memory_dataset}
        return AnnealStrategy().run(self.context, **data, log_dir=log_dir, bc_manifest=bc_manifest)

    def run_rollout_ppo(
        self,
        *,
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
    ) -> PPOTrainingResultDTO:
        """Capture ``ticks`` ticks, then train on them."""
        rollout = self.context.services.rollout
        buffer = rollout.capture(
            ticks,
            auto_seed_agents=auto_seed_agents,
            output_dir=output_dir,
            prefix=prefix,
            compress=compress,
            cycle=self.context.state.ppo.cycle_id + 1,
        )
        return self.run_ppo(
            in_memory_dataset=rollout.build_dataset_from_buffer(buffer, batch_size),
            epochs=epochs,
            log_path=log_path,
            log_frequency=log_frequency,
            max_log_entries=max_log_entries,
        )
