"""The anneal: stages of cloning and PPO with the old guardrails."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from townlet._torch import require_torch
from townlet.policy.training.contexts import TrainingContext
from townlet.policy.training.strategies.bc import BCStrategy
from townlet.policy.training.strategies.ppo import PPOStrategy
from townlet_training_core.dto.results import AnnealSummaryDTO, BCTrainingResultDTO

__all__ = ["AnnealStrategy"]


class AnnealStrategy:
    """Runs ``config.training.anneal_schedule``; the results as they are logged lie in ``context.metadata``."""

    def run(
        self,
        context: TrainingContext,
        *,
        dataset_config: Any = None,
        in_memory_dataset: Any = None,
        log_dir: Path | None = None,
        bc_manifest: Path | None = None,
    ) -> AnnealSummaryDTO:
        """Run the stages; see :func:`townlet_training_torch.legacy_anneal.anneal`."""
        models = importlib.import_module("townlet.policy.models")
        require_torch(models.torch_available(), "PyTorch is required for an anneal: training")
        from townlet_training_torch.legacy_anneal import anneal

        def clone(stage: Any) -> BCTrainingResultDTO:
            epochs = max(stage.epochs, context.config.training.bc.epochs)
            return BCStrategy().run(context, manifest=bc_manifest, epochs=epochs, hold_out=True)

        return anneal(
            context,
            dataset_config=dataset_config,
            in_memory_dataset=in_memory_dataset,
            log_dir=log_dir,
            bc_manifest=bc_manifest,
            clone=clone,
            improve=PPOStrategy().run,
        )
