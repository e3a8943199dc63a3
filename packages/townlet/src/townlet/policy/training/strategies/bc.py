"""Behaviour cloning from a manifest."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from townlet._torch import require_torch
from townlet.policy.training.contexts import TrainingContext
from townlet_training_core.dto.results import BCTrainingResultDTO
from townlet_training_core.errors import ConfigurationError

__all__ = ["BCStrategy"]

_log = logging.getLogger(__name__)
_HELD_OUT = 5
"""Every fifth trajectory is held out where there are as many."""


class BCStrategy:
    """Clones the behaviour of a manifest; names of `townlet.policy.bc` are looked up when it runs."""

    def run(
        self,
        context: TrainingContext,
        *,
        manifest: Path | None = None,
        params: Any = None,
        epochs: int | None = None,
        hold_out: bool = False,
    ) -> BCTrainingResultDTO:
        """Train; later stages go on from the weights.

        Parameters
        ----------
        manifest, params, epochs:
            Instead of those of ``config.training.bc``.
        hold_out:
            Keep every fifth trajectory for ``val_accuracy``.
        """
        started = time.perf_counter()
        models = importlib.import_module("townlet.policy.models")
        bc = importlib.import_module("townlet.policy.bc")
        require_torch(models.torch_available(), "PyTorch is required for behaviour cloning: training")
        settings = context.config.training.bc
        manifest = manifest if manifest is not None else settings.manifest
        if manifest is None:
            msg = "BC manifest is required: pass one or set training.bc.manifest"
            raise ConfigurationError(msg)
        if params is None:
            names = ("learning_rate", "batch_size", "epochs", "weight_decay", "device")
            params = bc.BCTrainingConfig(**{name: getattr(settings, name) for name in names})
            params.epochs = epochs or params.epochs
        samples = bc.load_bc_samples(Path(manifest))
        held_out = samples[::_HELD_OUT] if hold_out and len(samples) >= _HELD_OUT else []
        if hold_out and not held_out:
            _log.info("bc_no_holdout: %d trajectories are too few; accuracy is that of training", len(samples))
        dataset = bc.BCTrajectoryDataset([one for one in samples if not any(one is other for other in held_out)])
        validation = bc.BCTrajectoryDataset(held_out) if held_out else None
        actions = dataset.action_dim if validation is None else max(dataset.action_dim, validation.action_dim)
        policy = models.ConflictAwarePolicyConfig(
            feature_dim=dataset.feature_dim, map_shape=dataset.map_shape, action_dim=actions
        )
        trainer = bc.BCTrainer(params, policy)
        metrics: dict[str, Any] = dict(trainer.fit(dataset))
        if validation is not None:
            metrics["val_accuracy"] = trainer.evaluate(validation)["accuracy"]
        model, torch = getattr(trainer, "model", None), sys.modules.get("torch")
        if torch is not None and isinstance(model, torch.nn.Module):
            context.state.require_learner(context.config).adopt(
                model, feature_dim=dataset.feature_dim, map_shape=dataset.map_shape, action_dim=actions
            )
            context.state.cloning = dataset
            checkpoint = context.state.learner.save(context.state.run_directory(), samples[0].metadata)
            metrics["checkpoint"] = str(checkpoint)
        optional = {key: float(metrics[key]) for key in ("val_accuracy", "val_loss") if metrics.get(key) is not None}
        return BCTrainingResultDTO(
            manifest=str(manifest),
            accuracy=float(metrics["accuracy"]),
            loss=float(metrics["loss"]),
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            epochs=params.epochs,
            weight_decay=params.weight_decay,
            device=params.device,
            checkpoint=metrics.get("checkpoint"),
            duration_sec=time.perf_counter() - started,
            **optional,
        )
