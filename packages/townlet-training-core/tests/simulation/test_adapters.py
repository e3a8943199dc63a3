"""Environments that nobody here wrote, behind the simulation port."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from townlet_training_core.arrays import allocate
from townlet_training_core.errors import (
    CapabilityError,
    ConfigurationError,
    DataError,
    SpaceMismatchError,
)
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation import gymnasium as gymnasium_adapter
from townlet_training_core.simulation import pettingzoo as pettingzoo_adapter
from townlet_training_core.simulation.environments import EnvironmentSimulation, episode_seed
from townlet_training_core.simulation.hosted import record_hosted_loop
from townlet_training_core.simulation.observations import ObservationLayout
from townlet_training_core.testing.counting import CountingSimulation
from townlet_training_core.testing.simulations import check_simulation

spaces = pytest.importorskip("gymnasium.spaces")
pytest.importorskip("pettingzoo")


def test_cart_pole_conforms() -> None:
    check_simulation(lambda count: gymnasium_adapter.make_simulation(count, {"env": "CartPole-v1"}), steps=80)


def test_mpe2_conforms() -> None:
    pytest.importorskip("mpe2")
    options = {"env": "mpe2.simple_spread_v3:parallel_env", "kwargs": {"max_cycles": 9}}
    check_simulation(lambda count: pettingzoo_adapter.make_simulation(count, options), steps=25)


def test_the_counting_simulation_conforms() -> None:
    def make(count: int) -> CountingSimulation:
        return CountingSimulation(count, agents_per_env=2, leaves_after=2, masked=True, ends="alternate")

    check_simulation(make)


def test_cart_pole_truncates_with_its_true_last_observation() -> None:
    simulation = gymnasium_adapter.make_simulation(2, {"env": "CartPole-v1", "kwargs": {"max_episode_steps": 5}})
    assert simulation.spec.feature_names == tuple(f"observation_{index}" for index in range(4))
    out = allocate(simulation.spec.observations, slots=2, actions=2)
    simulation.reset(seed=[3, 4], out=out)
    for step in range(5):
        before = out.observations["features"].copy()
        simulation.step(np.array([step % 2, step % 2]), out)
    assert out.truncated.all()
    assert not out.terminated.any()
    final = out.final_observation["features"]
    # The position after a step is the position before plus 0.02 s of the velocity before (Euler).
    np.testing.assert_allclose(final[:, 0], before[:, 0] + 0.02 * before[:, 1], rtol=1e-5)
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(out.observations["features"][1], env.reset(seed=episode_seed(4, 1))[0])


def test_agents_that_leave_keep_their_slots() -> None:
    class Leaving:
        """Agent a stays three steps, agent b one; c has fewer actions and joins at step 1."""

        possible_agents = ("a", "b", "c")

        def __init__(self) -> None:
            self.agents: list[str] = []
            self.tick = 0

        def observation_space(self, agent: str) -> Any:
            return spaces.Box(-9, 9, (1 if agent == "c" else 2,), np.float32)

        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2 if agent == "c" else 3, start=10)

        def reset(self, seed: int | None = None) -> Any:
            self.agents, self.tick = ["a", "b"], 0
            return dict.fromkeys(self.agents, np.zeros(2, np.float32)), {}

        def step(self, actions: dict[str, int]) -> Any:
            assert set(actions) == set(self.agents)
            assert all(action >= 10 for action in actions.values())
            self.tick += 1
            seen = dict.fromkeys(self.agents, np.full(2, self.tick, np.float32))
            cut = dict.fromkeys(self.agents, self.tick == 3)
            final = {agent: agent == "b" for agent in self.agents}
            rewards = {agent: float(self.tick) for agent in self.agents}
            self.agents = [] if self.tick == 3 else ["a", "c"]
            if self.tick == 1:
                seen["c"] = np.ones(1, np.float32)
            seen = {agent: value[:1] if agent == "c" else value for agent, value in seen.items()}
            return seen, rewards, final, cut, {}

        def close(self) -> None: ...

    simulation = EnvironmentSimulation([Leaving()], name="leaving", rules_hash="")  # type: ignore[list-item]  # tuple of agents
    assert simulation.spec.masked
    out = allocate(simulation.spec.observations, slots=3, actions=3)
    simulation.reset(seed=0, out=out)
    np.testing.assert_array_equal(out.alive, [True, True, False])
    simulation.step(np.zeros(3, np.int64), out)
    np.testing.assert_array_equal(out.alive, [True, False, True])
    np.testing.assert_array_equal(out.terminated, [False, True, False])
    np.testing.assert_array_equal(out.final_observation["features"][1], [1, 1])
    np.testing.assert_array_equal(out.observations["features"], [[1, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(out.action_mask[2], [True, True, False])
    np.testing.assert_array_equal(out.rewards, [1, 1, 0])
    simulation.step(np.zeros(3, np.int64), out)
    simulation.step(np.zeros(3, np.int64), out)
    np.testing.assert_array_equal(out.truncated, [True, False, True])
    np.testing.assert_array_equal(out.alive, [True, True, False])
    np.testing.assert_array_equal(out.final_observation["features"][0], [3, 3])
    np.testing.assert_array_equal(out.observations["features"][0], [0, 0])


def test_masks_in_observations_and_images_with_channels_last() -> None:
    class Masked:
        possible_agents = ("a",)
        agents: list[str]

        def observation_space(self, agent: str) -> Any:
            return spaces.Dict(
                {
                    "picture": spaces.Box(0, 255, (6, 5, 3), np.uint8),
                    "kind": spaces.Discrete(3),
                    "speed": spaces.Box(-1, 1, (1,), np.float64),
                    "action_mask": spaces.Box(0, 1, (2,), np.int8),
                }
            )

        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2)

        def reset(self, seed: int | None = None) -> Any:
            self.agents = ["a"]
            picture = np.arange(90, dtype=np.uint8).reshape(6, 5, 3)
            return {"a": {"picture": picture, "kind": 1, "speed": [0.5], "action_mask": [0, 1]}}, {}

        def close(self) -> None: ...

    simulation = EnvironmentSimulation([Masked()], name="masked", rules_hash="")  # type: ignore[list-item]  # never stepped
    spec = simulation.spec
    assert spec.masked
    assert spec.observations["map"].shape == (3, 6, 5)
    assert spec.observations["map"].dtype == np.uint8
    assert spec.feature_names == ("kind_0", "kind_1", "kind_2", "speed")
    out = allocate(spec.observations, slots=1, actions=2)
    simulation.reset(seed=0, out=out)
    np.testing.assert_array_equal(out.observations["features"], [[0, 1, 0, 0.5]])
    np.testing.assert_array_equal(out.observations["map"][0, :, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(out.action_mask, [[False, True]])


def test_unsupported_spaces_are_refused() -> None:
    with pytest.raises(SpaceMismatchError, match="expected Discrete"):
        gymnasium_adapter.make_simulation(1, {"env": "Pendulum-v1"})
    with pytest.raises(SpaceMismatchError, match="expected a Box or something flat"):
        ObservationLayout(spaces.Sequence(spaces.Discrete(2)), agent="a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "env of 'gymnasium' is None"),
        ({"env": "CartPole-v1", "speed": 3}, "unknown keys \\['speed'\\]"),
        ({"env": "CartPole-v1", "kwargs": [1]}, "expected a mapping"),
        ({"env": "NoSuch-v1"}, "'NoSuch-v1' cannot be made"),
        ({"env": "CartPole-v1", "kwargs": {"nonsense": 1}}, "cannot be made with"),
    ],
)
def test_bad_gymnasium_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gymnasium_adapter.make_simulation(1, options)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("mpe2.simple_spread_v3", "expected 'package.module:function'"),
        ("os:system('x')", "expected 'package.module:function'"),
        ("no_such_package:make", "cannot be imported"),
        ("json:no_such", "cannot be imported"),
        ("json:__doc__", "is not callable"),
        ("json:dumps", "does not take"),
    ],
)
def test_bad_pettingzoo_options(env: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        pettingzoo_adapter.make_simulation(1, {"env": env})


def test_what_is_no_parallel_environment_is_refused() -> None:
    with pytest.raises(SpaceMismatchError, match="made dict, expected a PettingZoo ParallelEnv"):
        pettingzoo_adapter.make_simulation(1, {"env": "builtins:dict"})


def test_seeds_and_states_must_fit() -> None:
    simulation = gymnasium_adapter.make_simulation(2, {"env": "CartPole-v1"})
    out = allocate(simulation.spec.observations, slots=2, actions=2)
    with pytest.raises(DataError, match="1 seeds for 2 environments"):
        simulation.reset(seed=[1], out=out)
    simulation.reset(seed=1, out=out)
    other = gymnasium_adapter.make_simulation(3, {"env": "CartPole-v1"})
    with pytest.raises(DataError, match="saved state is of"):
        other.load_state(simulation.save_state(), out=out)


def test_an_environment_that_is_not_deterministic_cannot_be_restored() -> None:
    lengths = deque([1, 5, 2])

    class Chance:
        possible_agents = ("a",)
        agents: list[str]

        def observation_space(self, agent: str) -> Any:
            return spaces.Discrete(2)

        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2)

        def reset(self, seed: int | None = None) -> Any:
            self.agents, self.left = ["a"], lengths.popleft()
            return {"a": 0}, {}

        def step(self, actions: Any) -> Any:
            self.left -= 1
            self.agents = ["a"] if self.left else []
            return {"a": 0}, {"a": 0.0}, {"a": not self.left}, {"a": False}, {}

        def close(self) -> None: ...

    simulation = EnvironmentSimulation([Chance()], name="chance", rules_hash="")  # type: ignore[list-item]  # tuple of agents
    out = allocate(simulation.spec.observations, slots=1, actions=2)
    simulation.reset(seed=0, out=out)
    for _ in range(4):
        simulation.step(np.zeros(1, np.int64), out)
    with pytest.raises(DataError, match="not deterministic given its seed"):
        simulation.load_state(simulation.save_state(), out=out)


def test_cart_pole_is_collected_and_resumed_exactly() -> None:
    def collector(seed: int) -> RolloutCollector:
        simulation = gymnasium_adapter.make_simulation(3, {"env": "CartPole-v1"})
        return RolloutCollector(simulation, RandomPolicy(), steps=30, seed=seed)

    first = collector(5)
    first.collect()
    state = first.save_state()
    expected = {name: array.copy() for name, array in first.collect().observations.items()}
    resumed = collector(6)
    resumed.load_state(state)
    np.testing.assert_array_equal(resumed.collect().observations["features"], expected["features"])
    assert resumed.episodes.returns.tolist() == first.episodes.returns.tolist()
    assert len(first.episodes) > 0


class _Loop:
    """The old shape, nothing more."""

    def __init__(self) -> None:
        self.tick = 0
        self.frames: list[dict[str, Any]] = [{"tick": -1}]

    @property
    def policy(self) -> _Loop:
        return self

    @property
    def telemetry(self) -> _Loop:
        return self

    def collect_trajectory(self, *, clear: bool = True) -> list[dict[str, Any]]:
        frames, self.frames = self.frames, []
        return frames

    def latest_events(self) -> list[dict[str, Any]]:
        return [{"event": "shared_meal", "tick": self.tick}]

    def step(self) -> None:
        self.tick += 1
        self.frames.append({"tick": self.tick, "agent_id": "alice"})


def test_hosted_loop_is_recorded() -> None:
    ticks: list[int] = []
    recording = record_hosted_loop(_Loop(), ticks=3, on_tick=ticks.append)
    assert [frame["tick"] for frame in recording.frames] == [1, 2, 3]
    assert [event["tick"] for event in recording.events] == [1, 2, 3]
    assert ticks == [1, 2, 3]
    with pytest.raises(ConfigurationError, match="ticks must be positive"):
        record_hosted_loop(_Loop(), ticks=0)
    with pytest.raises(CapabilityError, match=r"object has no step\(\)"):
        record_hosted_loop(object(), ticks=1)  # type: ignore[arg-type]  # not a loop
