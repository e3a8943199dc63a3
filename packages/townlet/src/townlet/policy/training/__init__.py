"""Training with records as results; `training_orchestrator` beside it returns dictionaries."""

from pkgutil import extend_path

from townlet.policy.training.contexts import AnnealContext, PPOState, TrainingContext
from townlet.policy.training.orchestrator import TrainingOrchestrator
from townlet.policy.training.services import (
    PromotionServiceAdapter,
    ReplayDatasetService,
    RolloutCaptureService,
    TrainingServices,
)

__path__ = extend_path(__path__, __name__)

PolicyTrainingOrchestrator = TrainingOrchestrator

__all__ = [
    "AnnealContext",
    "PPOState",
    "PolicyTrainingOrchestrator",
    "PromotionServiceAdapter",
    "ReplayDatasetService",
    "RolloutCaptureService",
    "TrainingContext",
    "TrainingOrchestrator",
    "TrainingServices",
]
