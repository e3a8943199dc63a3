"""A small world and a policy with a dial, as fixtures: the port and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec
from townlet_training_core.errors import SpaceMismatchError
from townlet_training_core.policy.port import ActionStep, UniformSource, sample_actions
from townlet_training_core.simulation.port import Simulation, StepOut


@dataclass(frozen=True, kw_only=True)
class FakeSpec:
    num_envs: int
    agents_per_env: int
    name: str = "fake-v1"
    observations: Mapping[str, ArraySpec] = field(
        default_factory=lambda: {"features": ArraySpec((2,), np.dtype(np.float32))}
    )
    feature_names: tuple[str, ...] = ("step", "seed")
    map_channels: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ("rest", "earn", "earn_more")
    masked: bool = False
    event_kinds: tuple[str, ...] = ("earned", "rested")
    kpi_names: tuple[str, ...] = ("attendance",)
    rules_hash: str = "rules-1"
    versions: Mapping[str, str] = field(default_factory=dict)


class FakeTown:
    """Rewards: the action's number, plus 0.1 * agent, plus noise of the environment's seed and step.

    An episode has ``4 + seed % 3`` steps, or is endless. ``respawn_at`` terminates agent 0 alone in that step,
    alive again at once; ``leaves_at`` terminates the last agent, which stays away until the episode ends.
    """

    def __init__(
        self,
        *,
        num_envs: int,
        agents: int = 3,
        noise: float = 0.0,
        respawn_at: int | None = None,
        leaves_at: int | None = None,
        endless: bool = False,
        length: int | None = None,
        broken_at: int | None = None,
        rules_hash: str = "rules-1",
    ) -> None:
        self._spec = FakeSpec(num_envs=num_envs, agents_per_env=agents, rules_hash=rules_hash)
        self._noise, self._respawn_at, self._leaves_at = noise, respawn_at, leaves_at
        self._endless, self._length, self._broken_at = endless, length, broken_at
        self.resets: list[list[int]] = []
        self.closed = 0
        self._events: NDArray[Any] = np.zeros(0, EVENT_DTYPE)
        self._rested = np.zeros(num_envs)
        self._acted = np.zeros(num_envs)
        self._kpis = np.full(num_envs, -1.0)

    @property
    def spec(self) -> FakeSpec:
        return self._spec

    @property
    def events(self) -> NDArray[Any]:
        return self._events

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        towns, agents = self._spec.num_envs, self._spec.agents_per_env
        self._seeds = [seed + b for b in range(towns)] if isinstance(seed, int) else list(seed)
        assert len(self._seeds) == towns
        self.resets.append(self._seeds)
        self._tick = np.zeros(towns, np.int64)
        self._alive = np.ones((towns, agents), np.bool_)
        self._streams = [np.random.default_rng(s) for s in self._seeds]
        self._rested[:] = self._acted[:] = 0
        self._write(out)
        out.rewards[:] = 0
        out.terminated[:] = out.truncated[:] = False

    def step(self, actions: NDArray[np.int64], out: StepOut) -> None:
        towns, agents = self._spec.num_envs, self._spec.agents_per_env
        chosen = actions.reshape(towns, agents)
        acted = self._alive.copy()
        records = []
        out.terminated[:] = out.truncated[:] = False
        terminated, truncated = out.terminated.reshape(towns, agents), out.truncated.reshape(towns, agents)
        rewards = out.rewards.reshape(towns, agents)
        for b in range(towns):
            noise = self._noise * self._streams[b].normal(size=agents)
            rewards[b] = chosen[b] + 0.1 * np.arange(agents) + noise
            self._tick[b] += 1
            tick = int(self._tick[b])
            if tick == self._broken_at:
                rewards[b, 0] = np.nan
            rewards[b, ~acted[b]] = 100.0  # what a dead slot "earns" must not count
            for n in np.flatnonzero(acted[b]):
                records.append((tick, b * agents + n, int(chosen[b, n] == 0), -1, -1, 0.0))
            self._rested[b] += (chosen[b][acted[b]] == 0).sum()
            self._acted[b] += acted[b].sum()
            if tick == self._respawn_at:
                terminated[b, 0] = True
            if tick == self._leaves_at:
                terminated[b, -1] = True
                self._alive[b, -1] = False
            if not self._endless and tick == (self._length or 4 + self._seeds[b] % 3):
                truncated[b] = acted[b] & ~terminated[b]
                self._kpis[b] = 1.0 - self._rested[b] / self._acted[b]
                self._rested[b] = self._acted[b] = self._tick[b] = 0
                self._alive[b] = True
        self._events = np.array(records, EVENT_DTYPE)
        self._write(out)

    def _write(self, out: StepOut) -> None:
        features = out.observations["features"]
        features[:, 0] = np.repeat(self._tick, self._spec.agents_per_env)
        features[:, 1] = np.repeat(self._seeds, self._spec.agents_per_env)
        out.alive[:] = self._alive.reshape(-1)
        out.action_mask[:] = True

    def save_state(self) -> dict[str, NDArray[Any]]:
        return {}

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1

    def kpis(self) -> Mapping[str, NDArray[Any]]:
        return {"attendance": self._kpis.copy()}


class DialPolicy:
    """Takes each action with a fixed probability; its recurrent state counts steps."""

    def __init__(self, probabilities: Sequence[float], *, name: str = "dial", actions: int = 3) -> None:
        self.name = name
        self._probabilities = np.array(probabilities, np.float64)
        self._expected = actions
        self.calls = 0
        self.state: int | None = None

    def bind(self, simulation: Simulation) -> None:
        if len(simulation.spec.action_names) != self._expected:
            msg = f"policy {self.name!r} knows {self._expected} actions"
            raise SpaceMismatchError(msg)

    def act(self, observations: Mapping[str, NDArray[Any]], rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        self.calls += 1
        slots = len(observations["features"])
        if greedy:
            return ActionStep(actions=np.full(slots, int(self._probabilities.argmax()), np.int64))
        table = np.tile(self._probabilities, (slots, 1))
        return ActionStep(actions=sample_actions(table, rng.random(slots)))

    def values(self, observations: Mapping[str, NDArray[Any]]) -> None:
        return None

    def reset(self, ended: NDArray[np.bool_] | None = None) -> None:
        self.state = 0

    def content_hash(self) -> str:
        return hashlib.sha256(self._probabilities.tobytes()).hexdigest()


@pytest.fixture
def fake_town() -> type[FakeTown]:
    return FakeTown


@pytest.fixture
def dial_policy() -> type[DialPolicy]:
    return DialPolicy
