"""Configuration of the old entry points: one YAML file, one mutable model."""

from pkgutil import extend_path

from townlet.config.loader import load_config
from townlet.config.simulation import (
    ConflictConfig,
    EmploymentConfig,
    FeatureFlags,
    JobSpec,
    ObservationsConfig,
    PolicyRuntimeConfig,
    PromotionGateConfig,
    QueueFairnessConfig,
    RewardsConfig,
    RivalryConfig,
    RuntimeProviderConfig,
    RuntimeProviders,
    SimulationConfig,
    StabilityConfig,
)
from townlet.config.training import (
    AnnealStage,
    BCTrainingSettings,
    PPOConfig,
    SocialRewardScheduleEntry,
    TrainingConfig,
)

__path__ = extend_path(__path__, __name__)

__all__ = [
    "AnnealStage",
    "BCTrainingSettings",
    "ConflictConfig",
    "EmploymentConfig",
    "FeatureFlags",
    "JobSpec",
    "ObservationsConfig",
    "PPOConfig",
    "PolicyRuntimeConfig",
    "PromotionGateConfig",
    "QueueFairnessConfig",
    "RewardsConfig",
    "RivalryConfig",
    "RuntimeProviderConfig",
    "RuntimeProviders",
    "SimulationConfig",
    "SocialRewardScheduleEntry",
    "StabilityConfig",
    "TrainingConfig",
    "load_config",
]
