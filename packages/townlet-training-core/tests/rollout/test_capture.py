"""Rollouts on an environment where every number is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, FloatArray, Observations, RolloutArrays
from townlet_training_core.errors import CapabilityError, ConfigurationError, DataError
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.rollout.buffer import EventLog, RolloutBuffer
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation.port import ExpertSimulation, Simulation
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation


def _copy(arrays: RolloutArrays) -> dict[str, Any]:
    columns: dict[str, Any] = {name: array.copy() for name, array in arrays.observations.items()}
    for name in ("actions", "valid", "rewards", "terminated", "truncated", "episode_starts", "action_mask"):
        value = getattr(arrays, name)
        columns[name] = None if value is None else value.copy()
    for name in ("log_probs", "values", "next_values", "from_expert", "expert_actions"):
        value = getattr(arrays, name)
        columns[name] = None if value is None else value.copy()
    return columns


def _same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if value is None:
            assert right[name] is None, name
        else:
            np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_rows_of_one_decision_belong_together() -> None:
    simulation = CountingSimulation(1, episode_ticks=3)
    arrays = RolloutCollector(simulation, CountingPolicy(), steps=5, seed=7).collect()
    ticks = arrays.observations["features"][:, 0, 2]
    np.testing.assert_array_equal(ticks, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(arrays.observations["features"][:, 0, 1], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(arrays.observations["features"][:, 0, 3], [7] * 5)
    np.testing.assert_array_equal(arrays.rewards[:, 0], ticks + arrays.actions[:, 0] / 2)
    assert arrays.log_probs is not None
    assert arrays.values is not None
    assert arrays.next_values is not None
    np.testing.assert_array_equal(arrays.log_probs[:, 0], -(ticks + 1) / 8)
    np.testing.assert_array_equal(arrays.values[:, 0], [0, 1, 2, 100, 101])
    np.testing.assert_array_equal(arrays.truncated[:, 0], [False, False, True, False, False])
    np.testing.assert_array_equal(arrays.episode_starts[:, 0], [True, False, False, True, False])
    # Row 2 was cut off: its bootstrap is the value of tick 3 of episode 0, not of the next episode's start.
    np.testing.assert_array_equal(arrays.next_values[:, 0], [1, 2, 3, 101, 102])


def test_termination_has_no_bootstrap() -> None:
    simulation = CountingSimulation(1, episode_ticks=3, ends="terminated")
    arrays = RolloutCollector(simulation, CountingPolicy(), steps=4, seed=0).collect()
    assert arrays.next_values is not None
    np.testing.assert_array_equal(arrays.terminated[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(arrays.next_values[:, 0], [1, 2, 0, 101])


@pytest.mark.parametrize("ends", ["truncated", "terminated"])
def test_last_row_that_ends_an_episode(ends: Any) -> None:
    collector = RolloutCollector(CountingSimulation(1, episode_ticks=3, ends=ends), CountingPolicy(), steps=3, seed=0)
    arrays = collector.collect()
    assert arrays.next_values is not None
    assert arrays.next_values[2, 0] == (3 if ends == "truncated" else 0)
    second = collector.collect()
    assert second.values is not None
    np.testing.assert_array_equal(second.values[:, 0], [100, 101, 102])
    np.testing.assert_array_equal(second.episode_starts[:, 0], [True, False, False])


@given(
    envs=st.integers(1, 3),
    agents=st.integers(1, 3),
    length=st.integers(1, 6),
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    ends=st.sampled_from(["truncated", "terminated", "alternate"]),
    masked=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_rollouts_join_without_a_seam(
    envs: int, agents: int, length: int, chunks: list[int], ends: Any, masked: bool
) -> None:
    """Several calls see what one long call sees, but for the last bootstrap of each being asked for anew."""

    def make() -> CountingSimulation:
        return CountingSimulation(envs, agents_per_env=agents, episode_ticks=length, ends=ends, masked=masked)

    whole = _copy(RolloutCollector(make(), CountingPolicy(), steps=sum(chunks), seed=3).collect())
    first = RolloutCollector(make(), CountingPolicy(), steps=chunks[0], seed=3)
    parts = [_copy(first.collect())]
    state = first.save_state()
    for steps in chunks[1:]:
        collector = RolloutCollector(make(), CountingPolicy(), steps=steps, seed=99)
        collector.load_state(state)
        parts.append(_copy(collector.collect()))
        state = collector.save_state()
    joined = {
        name: None if value is None else np.concatenate([part[name] for part in parts])
        for name, value in parts[0].items()
    }
    _same(whole, joined)


def test_episode_returns_and_lengths_cross_rollouts() -> None:
    collector = RolloutCollector(CountingSimulation(2, episode_ticks=3), CountingPolicy(), steps=2, seed=0)
    first = collector.collect()
    rewards = first.rewards.copy()
    assert len(collector.episodes) == 0
    second = collector.collect()
    episodes = collector.episodes
    np.testing.assert_array_equal(episodes.slots, [0, 1])
    np.testing.assert_array_equal(episodes.steps, [0, 0])
    np.testing.assert_array_equal(episodes.lengths, [3, 3])
    np.testing.assert_allclose(episodes.returns, rewards.sum(axis=0) + second.rewards[0])


def test_a_slot_whose_agent_left_is_not_valid_until_the_next_episode() -> None:
    simulation = CountingSimulation(1, agents_per_env=2, episode_ticks=4, leaves_after=2)
    collector = RolloutCollector(simulation, CountingPolicy(), steps=6, seed=0)
    arrays = collector.collect()
    np.testing.assert_array_equal(arrays.valid[:, 0], [True] * 6)
    np.testing.assert_array_equal(arrays.valid[:, 1], [True, True, False, False, True, True])
    np.testing.assert_array_equal(arrays.terminated[:, 1], [False, True, False, False, False, True])
    assert arrays.episode_starts[4, 1]
    assert arrays.transitions == 10
    assert arrays.next_values is not None
    assert arrays.next_values[1, 1] == 0
    np.testing.assert_array_equal(collector.episodes.lengths, [2, 4, 2])


def test_what_is_absent_is_none() -> None:
    arrays = RolloutCollector(CountingSimulation(1), ScriptedPolicy(), steps=3, seed=0).collect()
    for name in ("log_probs", "values", "next_values", "from_expert", "expert_actions", "action_mask"):
        assert getattr(arrays, name) is None, name
    arrays = RolloutCollector(CountingSimulation(1, masked=True), RandomPolicy(), steps=3, seed=0).collect()
    assert arrays.values is None
    assert arrays.log_probs is not None
    np.testing.assert_allclose(arrays.log_probs, np.log(0.5), rtol=1e-6)
    assert arrays.action_mask is not None
    assert arrays.action_mask[np.arange(3), 0, arrays.actions[:, 0]].all()


def test_scripted_policy_takes_the_experts_actions() -> None:
    arrays = RolloutCollector(CountingSimulation(1), ScriptedPolicy(), steps=4, seed=0).collect()
    np.testing.assert_array_equal(arrays.actions[:, 0], [1, 2, 0, 1])


def test_blending_flags_the_experts_share() -> None:
    simulation = CountingSimulation(64, episode_ticks=50)
    collector = RolloutCollector(simulation, CountingPolicy(), steps=20, seed=1, expert_share=0.25)
    arrays = collector.collect()
    assert arrays.from_expert is not None
    assert arrays.expert_actions is not None
    np.testing.assert_array_equal(arrays.actions[arrays.from_expert], arrays.expert_actions[arrays.from_expert])
    assert 0.2 < arrays.from_expert.mean() < 0.3
    disagree = arrays.actions[~arrays.from_expert] != arrays.expert_actions[~arrays.from_expert]
    assert disagree.any()
    collector.expert_share = 0.0
    assert collector.collect().from_expert is None


def test_labels_without_blending_change_no_action() -> None:
    plain = RolloutCollector(CountingSimulation(3), CountingPolicy(), steps=4, seed=5).collect()
    labelled = RolloutCollector(CountingSimulation(3), CountingPolicy(), steps=4, seed=5, label_expert=True).collect()
    np.testing.assert_array_equal(plain.actions, labelled.actions)
    assert labelled.from_expert is None
    assert labelled.expert_actions is not None
    np.testing.assert_array_equal(labelled.expert_actions[:, 0], [1, 2, 0, 1])


class _Remembering(CountingPolicy):
    """Counts the steps since the last reset of each slot: its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = np.zeros(0, np.int64)

    def bind(self, simulation: Simulation) -> None:
        self.memory = np.zeros(simulation.spec.num_envs * simulation.spec.agents_per_env, np.int64)

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        step = super().act(observations, rng, greedy=greedy)
        self.memory = self.memory + 1
        return step

    def values(self, observations: Observations) -> FloatArray:
        return self.memory.astype(np.float32)

    def reset(self, ended: BoolArray | None = None) -> None:
        self.memory = np.where(True if ended is None else ended, 0, self.memory)

    def recurrent_state(self) -> dict[str, NDArray[Any]]:
        return {"memory": self.memory.copy()}

    def load_recurrent_state(self, state: Any) -> None:
        self.memory = state["memory"].copy()


class _Forgetful(CountingPolicy):
    """Says that it has no memory, and keeps how many rows it was asked to value."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def values(self, observations: Observations) -> FloatArray | None:
        self.asked.append(len(observations["features"]))
        return super().values(observations)

    def recurrent_state(self) -> dict[str, NDArray[Any]]:
        return {}

    def load_recurrent_state(self, state: Any) -> None:
        pass


def test_a_policy_without_memory_values_only_the_episodes_that_were_cut_off() -> None:
    columns = []
    for policy in (_Forgetful(), CountingPolicy()):
        simulation = CountingSimulation(6, agents_per_env=2, episode_ticks=6)
        collector = RolloutCollector(simulation, policy, steps=9, seed=0)
        collector.reset()
        state = simulation.save_state()
        simulation.load_state({**state, "ticks": np.array([0, 3, 0, 5, 1, 2])}, out=collector.current)
        columns.append(_copy(collector.collect()))
        if isinstance(policy, _Forgetful):
            # 9 decisions of 12 rows and the row after them; in between one or two environments of 2 agents at a time.
            assert sorted(policy.asked) == [2] * 6 + [4] + [12] * 10
    _same(*columns)


def test_memory_is_forgotten_only_after_the_final_value() -> None:
    collector = RolloutCollector(CountingSimulation(1, episode_ticks=3), _Remembering(), steps=4, seed=0)
    arrays = collector.collect()
    assert arrays.next_values is not None
    # act() values before it advances; the cut-off row is valued with the memory of its own episode (3 steps).
    np.testing.assert_array_equal(arrays.next_values[:, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(arrays.initial_state["memory"], [0])
    state = collector.save_state()
    resumed = RolloutCollector(CountingSimulation(1, episode_ticks=3), _Remembering(), steps=4, seed=8)
    resumed.load_state(state)
    again = resumed.collect()
    np.testing.assert_array_equal(again.initial_state["memory"], [1])
    _same(_copy(collector.collect()), _copy(again))


def test_events_are_kept_with_their_step() -> None:
    collector = RolloutCollector(CountingSimulation(2, episode_ticks=3), CountingPolicy(), steps=4, seed=0)
    collector.collect()
    events = collector.buffer.events
    np.testing.assert_array_equal(events.records["tick"], [0, 0, 1, 1, 2, 2, 0, 0])
    np.testing.assert_array_equal(events.steps, [0, 0, 1, 1, 2, 2, 3, 3])
    assert events.totals(("even_tick", "odd_tick")) == {"even_tick": (6, 4.0), "odd_tick": (2, 2.0)}
    collector.collect()
    assert len(collector.buffer.events) == 8


def test_event_log_grows() -> None:
    log = EventLog(capacity=1)
    event = np.zeros(3, np.dtype([(n, "f4") for n in ("tick", "slot", "kind", "other", "object", "value")]))
    for step in range(5):
        log.append(step, event)
    log.append(5, event[:0])
    assert len(log) == 15
    np.testing.assert_array_equal(log.steps, np.repeat(np.arange(5), 3))


def test_buffer_rows_are_views_made_once() -> None:
    buffer = RolloutBuffer(CountingSimulation(2, masked=True).spec, steps=3)
    assert buffer.rows[2].observations["map"].base is buffer.observations["map"]
    assert np.shares_memory(buffer.rows[2].rewards, buffer.rewards[1])
    assert np.shares_memory(buffer.views[1]["action_mask"], buffer.action_mask[1])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="steps=0"):
        RolloutCollector(CountingSimulation(), CountingPolicy(), steps=0, seed=0)
    with pytest.raises(ConfigurationError, match="expert_share=2"):
        RolloutCollector(CountingSimulation(), CountingPolicy(), steps=1, seed=0, expert_share=2)

    class Bare(CountingSimulation):
        expert_actions = None  # type: ignore[assignment]  # a simulation without an expert

    with pytest.raises(CapabilityError, match="'counting-v1' has no expert_actions"):
        RolloutCollector(Bare(), CountingPolicy(), steps=1, seed=0, label_expert=True)
    with pytest.raises(CapabilityError, match="'counting-v1' has no expert_actions"):
        RolloutCollector(Bare(), ScriptedPolicy(), steps=1, seed=0)
    with pytest.raises(CapabilityError, match="only after bind"):
        ScriptedPolicy().act({}, np.random.default_rng(0))


def test_states_of_another_simulation_are_refused() -> None:
    state = RolloutCollector(CountingSimulation(2), CountingPolicy(), steps=1, seed=0).save_state()
    other = RolloutCollector(CountingSimulation(2, agents_per_env=2), CountingPolicy(), steps=1, seed=0)
    with pytest.raises(DataError, match="has shape"):
        other.load_state(state)
    with pytest.raises(DataError, match="lacks the array 'streams/actions'"):
        RolloutCollector(CountingSimulation(2), CountingPolicy(), steps=1, seed=0).load_state(
            {name: array for name, array in state.items() if name != "streams/actions"}
        )


def test_a_policy_that_stops_giving_values_is_caught() -> None:
    class Fickle(CountingPolicy):
        def values(self, observations: Observations) -> FloatArray | None:
            return super().values(observations) if observations["features"][0, 2] < 2 else None

    with pytest.raises(DataError, match="returned None for values"):
        RolloutCollector(CountingSimulation(), Fickle(), steps=4, seed=0).collect()


def test_doubles_implement_the_ports() -> None:
    assert isinstance(CountingSimulation(), ExpertSimulation)
    assert RandomPolicy().content_hash() != ScriptedPolicy().content_hash()
    assert RandomPolicy().values({}) is None
    mask = {"action_mask": np.array([[False, True, True]])}
    assert RandomPolicy().act(mask, np.random.default_rng(0), greedy=True).actions == [1]
