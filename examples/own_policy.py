"""A policy of your own, compared with random play on the same episodes; no torch.

A policy is any object with these methods. It acts on plain numpy arrays, one row per slot.
"""

from __future__ import annotations

import numpy as np

from townlet_training_core import load_config
from townlet_training_core.arrays import BoolArray, FloatArray, Observations
from townlet_training_core.evaluation.compare import compare_paired
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.services import TrainingServices
from townlet_training_core.simulation.port import Simulation


class BalancePolicy:
    """Pushes the cart towards the side to which the pole falls."""

    name = "balance"

    def bind(self, simulation: Simulation) -> None:
        """Nothing is taken from the simulation; a real policy would check its spaces here."""

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Look at the pole's angle and speed, columns 2 and 3 of the features."""
        features = observations["features"]
        return ActionStep(actions=(features[:, 2] + features[:, 3] > 0.0).astype(np.int64))

    def values(self, observations: Observations) -> FloatArray | None:
        """It values nothing."""
        return None

    def reset(self, ended: BoolArray | None = None) -> None:
        """It remembers nothing."""

    def content_hash(self) -> str:
        """What its decisions depend on."""
        return "balance-1"


def main() -> None:
    """Evaluate both policies and compare them episode by episode."""
    config = load_config(
        overrides=[
            "simulation.name=gymnasium",
            "simulation.options.env=CartPole-v1",
            "evaluation.episodes=16",
        ]
    )
    with TrainingServices.from_config(config).evaluation as evaluation:
        balance = evaluation.evaluate(BalancePolicy(), label="balance")
        random = evaluation.evaluate(RandomPolicy(), label="random")
    for result in (random, balance):
        mean = result.summary.mean
        print(f"{result.label:8} mean return {mean.estimate:6.1f}  [{mean.low:.1f}, {mean.high:.1f}]")
    difference = compare_paired(balance, random).difference
    print(f"paired difference {difference.estimate:.1f}  [{difference.low:.1f}, {difference.high:.1f}]")


if __name__ == "__main__":
    main()
