"""The `Simulation` port: structural protocols over the standard library and numpy.

A simulation steps B environments of N agents in lock-step and writes into arrays that the caller owns
(:class:`~townlet_training_core.arrays.StepArrays`, but any object with the same attributes will do).

Reset is *same-step*: a slot whose episode ends in a step is given the first observation of its next episode
in ``observations`` and its true last one in ``final_observation``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, FloatArray, IntArray

__all__ = ["ArrayLikeSpec", "ExpertSimulation", "KpiSimulation", "Simulation", "SimulationSpec", "StepOut"]


class ArrayLikeSpec(Protocol):
    """Shape without the slot axis, and dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the slot axis."""

    @property
    def dtype(self) -> Any:
        """Anything that numpy takes for a dtype."""


class SimulationSpec(Protocol):
    """What a simulation is, in names and shapes; constant over its life."""

    @property
    def name(self) -> str:
        """Name with version, e.g. ``"town-v1"``."""

    @property
    def num_envs(self) -> int:
        """B, environments stepped together."""

    @property
    def agents_per_env(self) -> int:
        """N, slots of one environment."""

    @property
    def observations(self) -> Mapping[str, ArrayLikeSpec]:
        """Named observation arrays. Networks know ``map`` (C, H, W), ``features`` (F,) and ``state`` (G,)."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``features``; empty when there are no names."""

    @property
    def map_channels(self) -> tuple[str, ...]:
        """Names of the channels of ``map``; empty when there is no map."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """The action vocabulary in order of ids; its length is A."""

    @property
    def masked(self) -> bool:
        """Whether ``action_mask`` ever excludes an action."""

    @property
    def event_kinds(self) -> tuple[str, ...]:
        """Names of event kinds; ``kind`` of an event indexes them."""

    @property
    def kpi_names(self) -> tuple[str, ...]:
        """Names of the per-episode indicators of :class:`KpiSimulation`; empty when there are none."""

    @property
    def rules_hash(self) -> str:
        """Hash of rules and constants; results of different hashes must not be compared."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the spaces, e.g. ``{"observations": "hybrid-1", "actions": "1"}``."""


class StepOut(Protocol):
    """The attributes of :class:`~townlet_training_core.arrays.StepArrays` that a simulation writes."""

    @property
    def observations(self) -> Mapping[str, NDArray[Any]]:
        """What each slot sees next, by name."""

    @property
    def action_mask(self) -> BoolArray:
        """Actions possible next, ``(S, A)``."""

    @property
    def alive(self) -> BoolArray:
        """Whether each slot acts next."""

    @property
    def rewards(self) -> FloatArray:
        """Reward of this step."""

    @property
    def terminated(self) -> BoolArray:
        """Ended for good in this step."""

    @property
    def truncated(self) -> BoolArray:
        """Cut off in this step."""

    @property
    def final_observation(self) -> Mapping[str, NDArray[Any]]:
        """True last observations of slots that ended in this step."""


@runtime_checkable
class Simulation(Protocol):
    """Anything that steps B x N slots with discrete actions."""

    @property
    def spec(self) -> SimulationSpec:
        """Names and shapes."""

    @property
    def events(self) -> NDArray[Any]:
        """Events of the last step, records of :data:`~townlet_training_core.arrays.EVENT_DTYPE`."""

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Begin new episodes everywhere and write the first observations.

        ``seed``: one integer ``s`` gives environment ``b`` the seed ``s + b``; a sequence of B integers gives
        each its own. An environment's trajectory depends on its seed and actions only, never on B.
        """

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Advance every environment by one step; ``actions`` is ``(S,)``. Rows of dead slots are ignored."""

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the future depends on, as named arrays."""

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Restore :meth:`save_state` and rewrite the current observations, mask and alive rows of ``out``."""

    def close(self) -> None:
        """Release threads and handles; safe to call twice."""


@runtime_checkable
class ExpertSimulation(Simulation, Protocol):
    """A simulation with a scripted expert."""

    def expert_actions(self) -> IntArray:
        """Return the expert's action for the current state of every slot, ``(S,)``; always inside the mask.

        Calling it changes no result: it neither draws from the simulation's streams nor alters its state.
        """


@runtime_checkable
class KpiSimulation(Simulation, Protocol):
    """A simulation that reports indicators per episode."""

    def kpis(self) -> Mapping[str, NDArray[Any]]:
        """Return ``(B,)`` arrays by name: indicators of the last *finished* episode of each environment."""
