"""Replay datasets in memory: core's."""

from townlet_training_core.replay.dataset import InMemoryReplayDataset, InMemoryReplayDatasetConfig

__all__ = ["InMemoryReplayDataset", "InMemoryReplayDatasetConfig"]
