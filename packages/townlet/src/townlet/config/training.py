"""The ``training:`` and ``ppo:`` blocks of a Townlet configuration file.

Mutable models, because scripts overwrite single settings before a run. Core's own configuration
(:mod:`townlet_training_core.config.models`) is frozen and refuses unknown keys; this one admits them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AnnealStage",
    "BCTrainingSettings",
    "OpenModel",
    "PPOConfig",
    "SocialRewardScheduleEntry",
    "SocialStage",
    "TrainingConfig",
    "TrainingSource",
    "Unit",
]

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
SocialStage = Literal["OFF", "C1", "C2", "C3"]
TrainingSource = Literal["replay", "rollout", "mixed", "bc", "anneal"]


class OpenModel(BaseModel):
    """A mutable model that keeps keys that it does not know."""

    model_config = ConfigDict(extra="allow")


class PPOConfig(OpenModel):
    """Hyper-parameters of PPO; ``num_epochs`` is for the owners' information, an old run passes ``epochs``."""

    learning_rate: float = Field(3e-4, gt=0.0)
    clip_param: Unit = 0.2
    value_loss_coef: NonNegative = 0.5
    entropy_coef: NonNegative = 0.01
    num_epochs: int = Field(4, ge=1, le=64)
    mini_batch_size: int = Field(32, ge=1)
    gae_lambda: Unit = 0.95
    gamma: Unit = 0.99
    max_grad_norm: NonNegative = 0.5
    value_clip: Unit = 0.2
    advantage_normalization: bool = True
    num_mini_batches: int = Field(4, ge=1, le=1024)


class BCTrainingSettings(OpenModel):
    """Behaviour cloning."""

    manifest: Path | None = None
    learning_rate: float = Field(1e-3, gt=0.0)
    batch_size: int = Field(64, ge=1)
    epochs: int = Field(10, ge=1)
    weight_decay: NonNegative = 0.0
    device: str = "cpu"


class AnnealStage(OpenModel):
    """One stage of the hand-over from cloning to PPO."""

    cycle: int = Field(0, ge=0)
    mode: Literal["bc", "ppo"] = "ppo"
    epochs: int = Field(1, ge=1)
    bc_weight: Unit = 1.0


class SocialRewardScheduleEntry(OpenModel):
    """From which cycle on a stage of the social rewards holds."""

    cycle: int = Field(ge=0)
    stage: SocialStage


class TrainingConfig(OpenModel):
    """Where training data comes from, and the anneal schedule."""

    source: TrainingSource = "replay"
    rollout_ticks: int = Field(100, ge=0)
    rollout_auto_seed_agents: bool = False
    replay_manifest: Path | None = None
    social_reward_stage_override: SocialStage | None = None
    social_reward_schedule: list[SocialRewardScheduleEntry] = Field(default_factory=list)
    bc: BCTrainingSettings = Field(default_factory=BCTrainingSettings)
    anneal_schedule: list[AnnealStage] = Field(default_factory=list)
    anneal_accuracy_threshold: Unit = 0.9
    anneal_enable_policy_blend: bool = False
