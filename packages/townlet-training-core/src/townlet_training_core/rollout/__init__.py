"""Rollouts: simulation × policy → columnar buffer (`buffer`, `capture`) → replay data."""

from townlet_training_core.rollout.buffer import EventLog, RolloutBuffer
from townlet_training_core.rollout.capture import FinishedEpisodes, RolloutCollector

__all__ = ["EventLog", "FinishedEpisodes", "RolloutBuffer", "RolloutCollector"]
