"""The `Policy` port: numpy in, numpy out.

Actions are sampled by inverting the cumulative distribution at one uniform number per slot, which the
caller's stream provides. The same weights, observations and stream thus act the same with torch and without,
alone or in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, FloatArray, IntArray, Observations

if TYPE_CHECKING:  # a type only: policies and simulations are neighbours, and neither runs the other's code
    from townlet_training_core.simulation.port import Simulation

__all__ = ["ActionStep", "Policy", "RecurrentPolicy", "UniformSource", "actions_at", "sample_actions"]


class UniformSource(Protocol):
    """A stream of uniform numbers in [0, 1); ``numpy.random.Generator`` is one."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Draw ``size`` numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionStep:
    """What a policy decided for S slots.

    ``log_probs`` and ``values`` are ``None`` for policies that have none (a scripted expert): absent, not
    zero.
    """

    actions: IntArray
    log_probs: FloatArray | None = None
    values: FloatArray | None = None


@runtime_checkable
class Policy(Protocol):
    """A decision rule for every slot of a simulation."""

    name: str

    def bind(self, simulation: Simulation) -> None:
        """Check that the policy fits the simulation and take what it needs from it; called before acting.

        Raises :class:`~townlet_training_core.errors.SpaceMismatchError` when the spaces do not fit.
        """

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Decide for all S slots.

        ``observations`` holds the simulation's named arrays and ``action_mask``. Exactly ``S`` uniforms are
        drawn from ``rng`` by a policy that samples; ``greedy`` takes the most probable action instead.
        """

    def values(self, observations: Observations) -> FloatArray | None:
        """Return the value estimate of each row without acting or advancing any recurrent state."""

    def reset(self, ended: BoolArray | None = None) -> None:
        """Forget recurrent state of slots whose episode ended (all when ``None``)."""

    def content_hash(self) -> str:
        """Hash of everything that determines the decisions (weights, constants)."""


@runtime_checkable
class RecurrentPolicy(Policy, Protocol):
    """A policy with memory: its state can be read (before a rollout) and put back (on resume).

    A feed-forward policy may implement it too and return an empty mapping.
    """

    def recurrent_state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the recurrent state by name, each ``(S, ...)``; empty when there is none."""

    def load_recurrent_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`recurrent_state`."""


def sample_actions(probabilities: NDArray[Any], uniforms: NDArray[np.float64]) -> IntArray:
    """Invert the cumulative distribution of each row: ``(S, A)`` and ``(S,)`` to ``(S,)``.

    Rows need not sum to one exactly. An action of probability 0 is never returned.
    """
    cumulative = np.cumsum(probabilities, axis=1, dtype=np.float64)
    return actions_at(cumulative, uniforms * cumulative[:, -1])


def actions_at(cumulative: NDArray[np.float64], threshold: NDArray[np.float64]) -> IntArray:
    """Find the action whose mass holds the threshold: running sums ``(S, A)`` and thresholds ``(S,)`` to ``(S,)``.

    Thresholds lie below the last sum of their row.
    """
    # The first index whose cumulative mass exceeds the threshold has positive probability, since the
    # threshold is strictly below the total.
    return np.asarray((cumulative <= threshold[:, None]).sum(axis=1), dtype=np.int64)
