"""B copies of an environment that somebody else wrote, behind the simulation port.

Each copy speaks PettingZoo's parallel interface. Slots are fixed: an agent that leaves keeps its slot with ``alive``
false. Every episode is reset with an explicit seed derived from the copy's own, so a copy's state is known by its
seed, its episode and the actions since the reset; that is what :meth:`EnvironmentSimulation.save_state` keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec, IntArray, StepArrays, allocate
from townlet_training_core.errors import DataError, SpaceMismatchError
from townlet_training_core.simulation.observations import ObservationLayout, merge_specs
from townlet_training_core.simulation.port import StepOut
from townlet_training_core.streams import stream_seed

__all__ = ["EnvironmentSimulation", "EnvironmentSpec", "ParallelEnvironment", "environment_hash", "episode_seed"]


class ParallelEnvironment(Protocol):
    """The part of PettingZoo's ``ParallelEnv`` that is used."""

    agents: list[Any]
    possible_agents: list[Any]

    def reset(self, seed: int | None = None) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Begin an episode; return observations and infos of the agents."""

    def step(
        self, actions: dict[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, Any]]:
        """Return observations, rewards, terminations, truncations and infos by agent."""

    def observation_space(self, agent: Any) -> Any:
        """Return the agent's observation space."""

    def action_space(self, agent: Any) -> Any:
        """Return the agent's action space."""

    def close(self) -> None:
        """Release what the environment holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """A plain :class:`~townlet_training_core.simulation.port.SimulationSpec`."""

    name: str
    num_envs: int
    agents_per_env: int
    observations: Mapping[str, ArraySpec]
    action_names: tuple[str, ...]
    rules_hash: str
    masked: bool = False
    feature_names: tuple[str, ...] = ()
    map_channels: tuple[str, ...] = ()
    event_kinds: tuple[str, ...] = ()
    kpi_names: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def environment_hash(**constants: Any) -> str:
    """Hash what determines an environment's rules (name, keyword arguments, package version)."""
    return hashlib.sha256(json.dumps(constants, sort_keys=True, default=repr).encode()).hexdigest()


def episode_seed(seed: int, episode: int) -> int:
    """Seed of an environment's episode: its own seed for the first, a derived one (32 bits) for each later one."""
    return seed % 2**32 if episode == 0 else stream_seed(seed, "episode", episode) % 2**32


@dataclass(slots=True)
class _Copy:
    """One environment and what its state is known by."""

    environment: ParallelEnvironment
    first_slot: int
    seed: int = 0
    episode: int = 0
    history: list[IntArray] = field(default_factory=list)


class EnvironmentSimulation:
    """The simulation port over B copies of a parallel environment with discrete actions.

    Agents with fewer actions than the richest one have the rest masked; flat observations are padded with zeros
    to the widest agent's width.

    Parameters
    ----------
    environments:
        The copies, all of one kind.
    name, rules_hash, versions:
        For the spec.

    Raises
    ------
    SpaceMismatchError
        When an action space is not discrete, or the agents' observations have no common shape.
    """

    def __init__(
        self,
        environments: Sequence[ParallelEnvironment],
        *,
        name: str,
        rules_hash: str,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        first = environments[0]
        agents = list(first.possible_agents)
        self._index = {agent: index for index, agent in enumerate(agents)}
        self._layouts = {agent: ObservationLayout(first.observation_space(agent), agent=str(agent)) for agent in agents}
        counts = [_discrete(first.action_space(agent), agent=str(agent)) for agent in agents]
        self._first_action = {agent: start for agent, (start, _) in zip(agents, counts, strict=True)}
        actions = max(count for _, count in counts)
        self._allowed = np.arange(actions) < np.array([[count] for _, count in counts])
        observations = merge_specs({str(agent): layout for agent, layout in self._layouts.items()})
        widest = max(self._layouts.values(), key=lambda layout: len(layout.feature_names))
        self._copies = [_Copy(environment, number * len(agents)) for number, environment in enumerate(environments)]
        _, infos = first.reset(seed=0)  # a mask may only show in the infos
        self.spec = EnvironmentSpec(
            name=name,
            num_envs=len(environments),
            agents_per_env=len(agents),
            observations=observations,
            action_names=tuple(f"action_{index}" for index in range(actions)),
            masked=bool(
                not self._allowed.all()
                or any(layout.has_mask for layout in self._layouts.values())
                or any("action_mask" in info for info in infos.values())
            ),
            feature_names=widest.feature_names,
            map_channels=tuple(f"channel_{index}" for index in range(observations["map"].shape[0]))
            if "map" in observations
            else (),
            rules_hash=rules_hash,
            versions=dict(versions or {}),
        )
        self.events: NDArray[Any] = np.empty(0, EVENT_DTYPE)

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Begin episode 0 of every copy; copy ``b`` takes ``seed + b`` or ``seed[b]``."""
        seeds = [seed + number for number in range(len(self._copies))] if isinstance(seed, int) else list(seed)
        if len(seeds) != len(self._copies):
            msg = f"{len(seeds)} seeds for {len(self._copies)} environments; expected one each"
            raise DataError(msg)
        for copy, own in zip(self._copies, seeds, strict=True):
            copy.seed, copy.episode = int(own), 0
            self._begin(copy, out)

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Advance every copy by one step; an ended one begins its next episode in the same step."""
        out.rewards[...] = 0.0
        out.terminated[...] = False
        out.truncated[...] = False
        for copy in self._copies:
            own = actions[copy.first_slot : copy.first_slot + len(self._index)]
            self._advance(copy, own, out)
            if not copy.environment.agents:
                copy.episode += 1
                self._begin(copy, out)

    def _begin(self, copy: _Copy, out: StepOut) -> None:
        copy.history = []
        seen, infos = copy.environment.reset(seed=episode_seed(copy.seed, copy.episode))
        self._show(copy, seen, infos, out)

    def _advance(self, copy: _Copy, actions: IntArray, out: StepOut) -> None:
        environment = copy.environment
        acting = list(environment.agents)
        chosen = {agent: int(actions[self._index[agent]]) + self._first_action[agent] for agent in acting}
        copy.history.append(actions.copy())
        seen, rewards, terminated, truncated, infos = environment.step(chosen)
        staying = set(environment.agents)
        for agent in acting:
            slot = copy.first_slot + self._index[agent]
            out.rewards[slot] = rewards.get(agent, 0.0)
            final = bool(terminated.get(agent, False))
            cut = bool(truncated.get(agent, False))
            if agent in seen and (final or cut or agent not in staying):
                self._layouts[agent].write(seen[agent], out.final_observation, slot)
            # Who leaves without a flag or without a last observation leaves nothing to bootstrap from.
            out.terminated[slot] = final or (agent not in staying and (agent not in seen or not cut))
            out.truncated[slot] = cut and agent in seen
        self._show(copy, seen, infos, out)

    def _show(self, copy: _Copy, seen: dict[Any, Any], infos: dict[Any, Any], out: StepOut) -> None:
        """Write what every agent sees next; slots without an agent are not alive and see zeros."""
        acting = set(copy.environment.agents)
        for agent, index in self._index.items():
            slot = copy.first_slot + index
            out.alive[slot] = agent in acting
            out.action_mask[slot] = self._allowed[index]
            if agent not in acting:
                for rows in out.observations.values():
                    rows[slot] = 0
                continue
            layout = self._layouts[agent]
            layout.write(seen[agent], out.observations, slot)
            mask = seen[agent]["action_mask"] if layout.has_mask else infos.get(agent, {}).get("action_mask")
            if mask is not None:
                out.action_mask[slot, : len(mask)] &= np.asarray(mask, np.bool_)

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return seed, episode and the actions since the reset of every copy; -1 pads shorter histories.

        The future follows from these where the environment is deterministic given its seed.
        """
        longest = max(len(copy.history) for copy in self._copies)
        history = np.full((len(self._copies), longest, len(self._index)), -1, np.int64)
        for row, copy in zip(history, self._copies, strict=True):
            if copy.history:
                row[: len(copy.history)] = copy.history
        return {
            "seeds": np.array([copy.seed for copy in self._copies], np.int64),
            "episodes": np.array([copy.episode for copy in self._copies], np.int64),
            "lengths": np.array([len(copy.history) for copy in self._copies], np.int64),
            "actions": history,
        }

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Reset every copy to its saved episode and replay the actions since.

        Raises
        ------
        DataError
            When the state belongs to another simulation, or a replayed episode ends early (the environment is
            not deterministic given its seed).
        """
        expected = (len(self._copies), len(self._index))
        found = (state["actions"].shape[0], state["actions"].shape[2])
        if found != expected:
            msg = f"saved state is of {found} environments x agents, expected {expected}"
            raise DataError(msg)
        scratch = self._scratch()
        for number, copy in enumerate(self._copies):
            copy.seed, copy.episode = int(state["seeds"][number]), int(state["episodes"][number])
            self._begin(copy, scratch)
            for actions in state["actions"][number, : int(state["lengths"][number])]:
                if not copy.environment.agents:
                    msg = (
                        f"environment {number} of {self.spec.name!r} ended its episode earlier than when it was "
                        "saved: it is not deterministic given its seed, so it cannot be restored"
                    )
                    raise DataError(msg)
                self._advance(copy, actions, scratch)
        for name, rows in out.observations.items():
            rows[...] = scratch.observations[name]
        out.action_mask[...] = scratch.action_mask
        out.alive[...] = scratch.alive

    def _scratch(self) -> StepArrays:
        slots = self.spec.num_envs * self.spec.agents_per_env
        return allocate(self.spec.observations, slots=slots, actions=len(self.spec.action_names))

    def close(self) -> None:
        """Close every copy."""
        for copy in self._copies:
            copy.environment.close()


def _discrete(space: Any, *, agent: str) -> tuple[int, int]:
    """Return first action and count of a discrete space."""
    from gymnasium import spaces

    if not isinstance(space, spaces.Discrete):
        msg = f"agent {agent!r} has the action space {space}; expected Discrete, the only kind that is supported"
        raise SpaceMismatchError(msg)
    return int(space.start), int(space.n)
