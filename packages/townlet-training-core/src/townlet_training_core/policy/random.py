"""Uniform choice among the allowed actions: the floor of every comparison."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from townlet_training_core.arrays import ACTION_MASK, BoolArray, FloatArray, Observations
from townlet_training_core.policy.port import ActionStep, UniformSource, sample_actions

if TYPE_CHECKING:  # a type only: policies and simulations are neighbours
    from townlet_training_core.simulation.port import Simulation

__all__ = ["RandomPolicy"]


class RandomPolicy:
    """Draws uniformly among the allowed actions; greedy takes the first allowed one.

    Its log-probabilities are exact; it has no value function.
    """

    name = "random"

    def bind(self, simulation: Simulation) -> None:
        """Fit any simulation."""

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Draw one action a slot from ``S`` uniforms."""
        mask = observations[ACTION_MASK]
        log_probs: FloatArray = -np.log(mask.sum(axis=1), dtype=np.float32)
        if greedy:
            return ActionStep(actions=mask.argmax(axis=1).astype(np.int64), log_probs=np.zeros_like(log_probs))
        return ActionStep(actions=sample_actions(mask, rng.random(len(mask))), log_probs=log_probs)

    def values(self, observations: Observations) -> FloatArray | None:
        """Return ``None``: there is no value function."""
        del observations
        return None

    def reset(self, ended: BoolArray | None = None) -> None:
        """Forget nothing: there is no state."""

    def content_hash(self) -> str:
        """Return a constant: there are no weights."""
        return hashlib.sha256(b"townlet random policy 1").hexdigest()
