"""Frames tick by tick: core's."""

from townlet_training_core.rollout.trajectory import TrajectoryService

__all__ = ["TrajectoryService"]
