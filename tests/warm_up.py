"""Compile the town's kernels once, before several test workers and their subprocesses would do it at the same time.

The compiled kernels are kept on disk, so this costs a second or two when nothing changed.
"""

from __future__ import annotations

import numpy as np

from townlet_training_core.config.models import SimulationChoice
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.registry import make_simulation
from townlet_training_core.rollout.capture import RolloutCollector

__all__ = ["main"]


def main() -> None:
    """Make a town, let its expert live for some ticks, save and restore it."""
    simulation = make_simulation(SimulationChoice(name="town", num_envs=2))
    collector = RolloutCollector(simulation, ScriptedPolicy(), steps=8, seed=0)
    rewards = collector.collect().rewards
    assert np.isfinite(rewards).all()
    simulation.close()


if __name__ == "__main__":
    main()
