"""Protocols, data, rollouts, evaluation, promotion and the command line of Townlet training; no PyTorch."""

from townlet_training_core._version import __version__
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
