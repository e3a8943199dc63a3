"""Requests: what a strategy is asked to do in one run, beside the configuration.

Frozen models, so that a command-line flag, a YAML key and a keyword argument are one thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_training_core.config.models import AnnealStage

__all__ = ["AnnealRequest", "BCRequest", "PPORequest", "TrainingRequest"]


class TrainingRequest(BaseModel):
    """What every strategy can be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    manifest: Path | None = Field(
        None,
        description="Manifest, capture directory or shard store of replay data; null captures from the simulation.",
    )
    init_from: Path | None = Field(None, description="Checkpoint or run directory whose policy the run starts from.")


class BCRequest(TrainingRequest):
    """Clone the behaviour in a dataset, or of the simulation's scripted expert."""

    epochs: int | None = Field(None, ge=1, description="Passes over the data; null takes training.bc.epochs.")


class PPORequest(TrainingRequest):
    """Improve a policy by PPO."""

    mode: Literal["replay", "rollout", "mixed"] = Field(
        "rollout", description="Data of an update: the manifest, fresh on-policy rollouts, or both."
    )
    iterations: int | None = Field(None, ge=1, description="Capture-and-update rounds; null takes ppo.iterations.")
    recompute_log_probs: bool = Field(
        False, description="Replay data without log-probabilities: compute them under the starting policy."
    )
    bc_weight: float = Field(0.0, ge=0.0, le=1.0, description="Weight of the BC loss beside the PPO loss.")
    bc_weight_final: float | None = Field(None, ge=0.0, le=1.0, description="Linear decay of bc_weight to this.")
    blend: float = Field(0.0, ge=0.0, le=1.0, description="Share of rollout decisions handed to the scripted expert.")


class AnnealRequest(TrainingRequest):
    """Hand a cloned policy over to PPO in stages."""

    schedule: tuple[AnnealStage, ...] | None = Field(None, description="Stages; null takes training.anneal_schedule.")
