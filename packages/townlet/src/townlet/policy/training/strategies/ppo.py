"""PPO over replay data, over a capture in memory, or over both."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from townlet._torch import require_torch
from townlet.policy.training.contexts import TrainingContext
from townlet_training_core.dto.results import PPOTrainingResultDTO

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
        """Train; see :func:`townlet_training_torch.legacy_training.train_on_batches`."""
        models = importlib.import_module("townlet.policy.models")
        require_torch(models.torch_available(), "PyTorch is required for PPO: training")
        from townlet_training_torch.legacy_training import train_on_batches

        if context.config.ppo is None:
            context.config.ppo = importlib.import_module("townlet.config.training").PPOConfig()
        return train_on_batches(
            context,
            dataset_config=dataset_config,
            in_memory_dataset=in_memory_dataset,
            epochs=epochs,
            log_path=log_path,
            log_frequency=log_frequency,
            max_log_entries=max_log_entries,
            device_str=device_str,
            bc_weight=bc_weight,
        )
