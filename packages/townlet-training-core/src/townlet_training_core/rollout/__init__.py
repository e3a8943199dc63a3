"""Rollouts: simulation × policy → columnar buffer (`buffer`, `capture`) → replay data (`service`).

`frames` and `trajectory` serve loops of the predecessor, which drive their own policy.
"""

from townlet_training_core.rollout.buffer import EventLog, RolloutBuffer
from townlet_training_core.rollout.capture import FinishedEpisodes, RolloutCollector
from townlet_training_core.rollout.service import CaptureResult, RolloutCaptureService

__all__ = [
    "CaptureResult",
    "EventLog",
    "FinishedEpisodes",
    "RolloutBuffer",
    "RolloutCaptureService",
    "RolloutCollector",
]
