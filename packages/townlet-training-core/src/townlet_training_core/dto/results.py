"""Results of training strategies: flat on the wire, in sections in code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.sections import (
    AdvantageHealth,
    AnnealSection,
    BaselineSection,
    LossSection,
    OptimiserSection,
    ProgressSection,
    SocialEvents,
)

__all__ = [
    "PPO_TELEMETRY_VERSION",
    "RESULT_SCHEMA_VERSION",
    "AnnealStageResultDTO",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "PPOTrainingResultDTO",
    "TrainingResultBase",
]

RESULT_SCHEMA_VERSION = "1.0.0"
PPO_TELEMETRY_VERSION = 1.2


def _is_none(value: object) -> bool:
    return value is None


class TrainingResultBase(Record):
    """What every training result has."""

    schema_version: str = Field(RESULT_SCHEMA_VERSION, description="Version of the result format.")
    duration_sec: float | None = Field(None, ge=0, description="Wall time, s.")
    run_id: str | None = Field(None, exclude_if=_is_none, description="Run directory's name.")
    checkpoint: str | None = Field(
        None, exclude_if=_is_none, description="Final checkpoint, relative to the run directory."
    )


class BCTrainingResultDTO(TrainingResultBase):
    """Result of behaviour cloning."""

    mode: Literal["bc"] = "bc"
    manifest: str = Field(description="Where the data came from.")
    accuracy: float = Field(ge=0, le=1, description="Training accuracy; the gate uses val_accuracy where present.")
    loss: float = Field(ge=0, description="Mean training loss of the last epoch.")
    learning_rate: float = Field(gt=0, description="Step size.")
    batch_size: int = Field(gt=0, description="Transitions of a mini-batch.")
    epochs: int = Field(gt=0, description="Epochs run.")
    val_accuracy: float | None = Field(None, ge=0, le=1, description="Accuracy on held-out trajectories.")
    val_loss: float | None = Field(None, ge=0, description="Loss on held-out trajectories.")
    weight_decay: float | None = Field(None, ge=0, description="Decoupled weight decay.")
    device: str | None = Field(None, description="Device of the learner.")


class PPOTrainingResultDTO(
    TrainingResultBase,
    ProgressSection,
    LossSection,
    OptimiserSection,
    AdvantageHealth,
    SocialEvents,
    BaselineSection,
    AnnealSection,
):
    """Summary of the last PPO epoch; extra keys are admitted under ``conflict.`` only."""

    model_config = ConfigDict(extra="allow")

    telemetry_version: float = Field(PPO_TELEMETRY_VERSION, description="Version of the summary format.")

    @model_validator(mode="before")
    @classmethod
    def _only_conflict_extras(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields and not str(key).startswith("conflict."):
                    msg = f"Unknown field {key!r}. Only 'conflict.*' dynamic fields are allowed"
                    raise ValueError(msg)
        return data


class AnnealStageResultDTO(TrainingResultBase):
    """Result of one anneal stage, BC or PPO."""

    cycle: int = Field(ge=0, description="Cycle of the stage.")
    mode: str = Field(description="bc or ppo.")
    accuracy: float | None = Field(None, ge=0, le=1, description="BC: the accuracy that gated.")
    loss: float | None = Field(None, description="BC: training loss.")
    threshold: float | None = Field(None, ge=0, le=1, description="BC: accuracy asked for.")
    passed: bool | None = Field(None, description="BC: whether it was reached.")
    bc_weight: float | None = Field(None, ge=0, le=1, description="Weight of the stage's BC loss.")
    rolled_back: bool | None = Field(None, description="The stage's weights were dropped.")
    loss_total: float | None = Field(None, description="PPO: what was minimised.")
    loss_policy: float | None = Field(None, description="PPO: clipped surrogate.")
    loss_value: float | None = Field(None, description="PPO: value loss.")
    queue_conflict_events: float | None = Field(None, description="PPO: count.")
    queue_conflict_intensity_sum: float | None = Field(None, description="PPO: sum of intensities.")
    anneal_loss_flag: bool | None = Field(None, description="Legacy loss flag.")
    anneal_queue_flag: bool | None = Field(None, description="Legacy queue flag.")
    anneal_intensity_flag: bool | None = Field(None, description="Legacy intensity flag.")
    evaluation: str | None = Field(
        None,
        exclude_if=_is_none,
        description="File with the stage's evaluation, relative to the run directory.",
    )


class AnnealSummaryDTO(TrainingResultBase):
    """Result of an anneal."""

    stages: tuple[AnnealStageResultDTO, ...] = Field(description="Stages in the order in which they ran.")
    status: str = Field(description="PASS, HOLD or FAIL.")
    dataset_label: str = Field(description="Label of the dataset.")
    baselines: dict[str, Any] = Field(default_factory=dict, description="Baselines of the guardrails by dataset.")
    promotion_pass_streak: int | None = Field(None, ge=0, description="Consecutive passes.")
    promotion_candidate_ready: bool | None = Field(None, description="Whether the candidate may be promoted.")
