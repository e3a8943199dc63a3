"""Behaviour cloning on torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from townlet._torch import lazy_names as _lazy_names
from townlet_training_core.replay.manifest import load_bc_samples

if TYPE_CHECKING:
    from townlet_training_torch.legacy import BCTrainer, BCTrainingConfig, BCTrajectoryDataset, evaluate_bc_policy

__all__ = ["BCTrainer", "BCTrainingConfig", "BCTrajectoryDataset", "evaluate_bc_policy", "load_bc_samples"]

__getattr__ = _lazy_names(__name__, "townlet_training_torch.legacy", __all__, fallback="townlet._plain")
