"""Frozen pydantic records: everything that crosses a seam or a disk."""

from townlet_training_core.dto.results import (
    AnnealStageResultDTO,
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    PPOTrainingResultDTO,
    TrainingResultBase,
)

__all__ = [
    "AnnealStageResultDTO",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "PPOTrainingResultDTO",
    "TrainingResultBase",
]
