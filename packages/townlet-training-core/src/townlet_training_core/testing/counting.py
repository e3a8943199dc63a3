"""A simulation and a policy in which every number is known: for tests of everything that moves data.

Observation ``features`` is ``[agent, episode, tick, seed mod 1000]``; the reward of a step is ``tick + action / 2``;
the policy's value is ``100 * episode + tick`` and its log-probability ``-(tick + 1) / 8``, all exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import (
    ACTION_MASK,
    EVENT_DTYPE,
    ArraySpec,
    BoolArray,
    FloatArray,
    IntArray,
    Observations,
)
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_core.simulation.port import Simulation, StepOut

__all__ = ["CountingPolicy", "CountingSimulation"]


class CountingSimulation:
    """Counts ticks; an episode of an environment has ``episode_ticks`` steps.

    Parameters
    ----------
    num_envs, agents_per_env:
        B and N.
    episode_ticks:
        Steps of an episode.
    ends:
        Whether episodes end by truncation, by termination, or by turns (even episodes truncate).
    leaves_after:
        When given, the last agent of each environment terminates after so many ticks of every episode and keeps
        a dead slot until the next one.
    masked:
        Whether action ``tick mod 3`` is forbidden.
    """

    ACTIONS = ("zero", "one", "two")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        agents_per_env: int = 1,
        episode_ticks: int = 5,
        ends: Literal["truncated", "terminated", "alternate"] = "truncated",
        leaves_after: int | None = None,
        masked: bool = False,
    ) -> None:
        self.spec = EnvironmentSpec(
            name="counting-v1",
            num_envs=num_envs,
            agents_per_env=agents_per_env,
            observations={
                "features": ArraySpec((4,), np.dtype(np.float32)),
                "map": ArraySpec((1, 2, 2), np.dtype(np.uint8)),
            },
            action_names=self.ACTIONS,
            rules_hash=f"counting {episode_ticks} {ends} {leaves_after} {masked}",
            masked=masked,
            feature_names=("agent", "episode", "tick", "seed"),
            map_channels=("ticks",),
            event_kinds=("even_tick", "odd_tick"),
            versions={"observations": "1", "actions": "1"},
        )
        self.events: NDArray[Any] = np.empty(0, EVENT_DTYPE)
        self._episode_ticks, self._ends, self._leaves_after = episode_ticks, ends, leaves_after
        self._seeds = np.zeros(num_envs, np.int64)
        self._episodes = np.zeros(num_envs, np.int64)
        self._ticks = np.zeros(num_envs, np.int64)
        self._env = np.repeat(np.arange(num_envs), agents_per_env)
        self._last = np.tile(np.arange(agents_per_env) == agents_per_env - 1, num_envs)

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Begin episode 0 everywhere."""
        count = self.spec.num_envs
        self._seeds[:] = seed + np.arange(count) if isinstance(seed, int) else np.asarray(seed)
        self._episodes[:], self._ticks[:] = 0, 0
        self._show(out)

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Count one tick."""
        ticks, alive = self._ticks[self._env], self._alive()
        out.rewards[...] = np.where(alive, ticks + actions / 2, 0)
        self.events = np.zeros(self.spec.num_envs, EVENT_DTYPE)
        self.events["tick"], self.events["kind"] = self._ticks, self._ticks % 2
        self.events["slot"] = np.arange(self.spec.num_envs) * self.spec.agents_per_env
        self.events["other"], self.events["object"], self.events["value"] = -1, -1, self._ticks
        self._ticks += 1
        over = self._ticks == self._episode_ticks
        cut = over & (self._episodes % 2 == 0 if self._ends == "alternate" else self._ends == "truncated")
        out.truncated[...] = cut[self._env] & alive
        out.terminated[...] = ((over & ~cut)[self._env] & alive) | (alive & ~self._alive())
        out.truncated[...] &= ~out.terminated
        ended = out.truncated | out.terminated
        for name, array in self._observations().items():
            out.final_observation[name][ended] = array[ended]
        self._episodes += over
        self._ticks[over] = 0
        self._show(out)

    def expert_actions(self) -> IntArray:
        """Return ``(tick + 1) mod 3``, which is never forbidden."""
        return (self._ticks[self._env] + 1) % 3

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return the counters."""
        return {
            "seeds": self._seeds.copy(),
            "episodes": self._episodes.copy(),
            "ticks": self._ticks.copy(),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Restore the counters."""
        self._seeds[:], self._episodes[:], self._ticks[:] = state["seeds"], state["episodes"], state["ticks"]
        self._show(out)

    def close(self) -> None:
        """Do nothing."""

    def _alive(self) -> BoolArray:
        if self._leaves_after is None:
            return np.ones(len(self._env), np.bool_)
        return np.asarray(~self._last | (self._ticks[self._env] < self._leaves_after))

    def _observations(self) -> dict[str, NDArray[Any]]:
        slots = len(self._env)
        ticks = self._ticks[self._env]
        agents = np.arange(slots) % self.spec.agents_per_env
        columns = (agents, self._episodes[self._env], ticks, self._seeds[self._env] % 1000)
        return {
            "features": np.stack(columns, axis=1).astype(np.float32),
            "map": np.broadcast_to(ticks[:, None, None, None] % 256, (slots, 1, 2, 2)).astype(np.uint8),
        }

    def _show(self, out: StepOut) -> None:
        for name, array in self._observations().items():
            out.observations[name][...] = array
        out.alive[...] = self._alive()
        out.action_mask[...] = True
        if self.spec.masked:
            out.action_mask[np.arange(len(self._env)), self._ticks[self._env] % 3] = False


class CountingPolicy:
    """Draws uniformly among allowed actions; values and log-probabilities are read off the observation."""

    name = "counting"

    def __init__(self, *, has_values: bool = True) -> None:
        self._has_values = has_values
        self.resets: list[NDArray[np.bool_] | None] = []

    def bind(self, simulation: Simulation) -> None:
        """Fit."""

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Draw one action a slot."""
        mask = observations[ACTION_MASK]
        uniforms = np.zeros(len(mask)) if greedy else rng.random(len(mask))
        nth = (uniforms * mask.sum(axis=1)).astype(np.int64)
        actions = (mask.cumsum(axis=1) <= nth[:, None]).sum(axis=1)
        log_probs: FloatArray = (-(observations["features"][:, 2] + 1) / 8).astype(np.float32)
        return ActionStep(actions=actions, log_probs=log_probs, values=self.values(observations))

    def values(self, observations: Observations) -> FloatArray | None:
        """Return ``100 * episode + tick``."""
        if not self._has_values:
            return None
        features = observations["features"]
        return (100 * features[:, 1] + features[:, 2]).astype(np.float32)

    def reset(self, ended: BoolArray | None = None) -> None:
        """Remember what was asked."""
        self.resets.append(None if ended is None else ended.copy())

    def content_hash(self) -> str:
        """Return a constant."""
        return "counting"
