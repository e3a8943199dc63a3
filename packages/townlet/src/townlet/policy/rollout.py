"""The rollout buffer of frames: core's."""

from townlet_training_core.rollout.frames import AgentRollout, build_dto_rollout_artifact
from townlet_training_core.rollout.frames import FrameRolloutBuffer as RolloutBuffer

__all__ = ["AgentRollout", "RolloutBuffer", "build_dto_rollout_artifact"]
