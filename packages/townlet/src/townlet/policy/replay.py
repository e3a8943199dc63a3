"""Replay samples, batches and datasets: core's."""

from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.sample import (
    REQUIRED_CONFLICT_FEATURES,
    STEP_ARRAY_FIELDS,
    TRAINING_ARRAY_FIELDS,
    ReplayBatch,
    ReplaySample,
    build_batch,
    frames_to_replay_sample,
)

__all__ = [
    "REQUIRED_CONFLICT_FEATURES",
    "STEP_ARRAY_FIELDS",
    "TRAINING_ARRAY_FIELDS",
    "ReplayBatch",
    "ReplayDataset",
    "ReplayDatasetConfig",
    "ReplaySample",
    "build_batch",
    "frames_to_replay_sample",
    "load_replay_sample",
]
