"""Protocols, data, rollouts, evaluation, promotion and the command line of Townlet training; no PyTorch.

Names are brought when they are asked for, so that importing one module of the package does not bring them all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from townlet_training_core._version import __version__

if TYPE_CHECKING:
    from townlet_training_core.config.loader import default_config, load_config
    from townlet_training_core.config.models import TrainingConfig
    from townlet_training_core.dto import (
        AnnealStageResultDTO,
        AnnealSummaryDTO,
        BCTrainingResultDTO,
        PPOTrainingResultDTO,
    )
    from townlet_training_core.errors import TorchNotAvailableError, TownletError
    from townlet_training_core.orchestrator import TrainingOrchestrator

__all__ = [
    "AnnealStageResultDTO",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "PPOTrainingResultDTO",
    "TorchNotAvailableError",
    "TownletError",
    "TrainingConfig",
    "TrainingOrchestrator",
    "__version__",
    "default_config",
    "load_config",
]

_HOMES = {
    "AnnealStageResultDTO": "dto",
    "AnnealSummaryDTO": "dto",
    "BCTrainingResultDTO": "dto",
    "PPOTrainingResultDTO": "dto",
    "TorchNotAvailableError": "errors",
    "TownletError": "errors",
    "TrainingConfig": "config.models",
    "TrainingOrchestrator": "orchestrator",
    "default_config": "config.loader",
    "load_config": "config.loader",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
