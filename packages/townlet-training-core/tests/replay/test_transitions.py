"""Tables of transitions: cutting rollouts, padding, mini-batches, conversion to samples and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.errors import ConfigurationError, DataError, NonFiniteError, SpaceMismatchError
from townlet_training_core.replay.convert import samples_from_transitions, transitions_from_samples
from townlet_training_core.replay.minibatches import MiniBatches
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.shardwriter import ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import (
    PaddedColumn,
    Transitions,
    pad_trajectories,
    require_finite,
    transitions_from_rollout,
)
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation


def captured(steps: int = 7, *, has_values: bool = True, **options: Any) -> Transitions:
    simulation = CountingSimulation(**({"num_envs": 2, "episode_ticks": 3} | options))
    collector = RolloutCollector(
        simulation, CountingPolicy(has_values=has_values), steps=steps, seed=0, keep_final=True, label_expert=True
    )
    return transitions_from_rollout(
        collector.collect(), DataSpec.from_simulation(simulation.spec), final=collector.buffer.observations_after
    )


def test_a_rollout_is_cut_into_trajectories() -> None:
    table = captured(7)
    np.testing.assert_array_equal(table.offsets, [0, 3, 6, 7, 10, 13, 14])
    np.testing.assert_array_equal(table.slots, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(table.column("features")[:, 2], [0, 1, 2, 0, 1, 2, 0] * 2)
    np.testing.assert_array_equal(table.trajectory_ids[:7], [0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(table.column("next_values")[:7], [1, 2, 3, 101, 102, 103, 201])
    # What was seen after the last step: the final observation of ended episodes, the next one of the open ones.
    final = table.final_observations(np.arange(6))["features"]
    np.testing.assert_array_equal(final[:, 2], [3, 3, 1, 3, 3, 1])
    np.testing.assert_array_equal(final[:, 1], [0, 1, 2, 0, 1, 2])


def test_dead_slots_are_in_no_trajectory() -> None:
    table = captured(6, num_envs=1, agents_per_env=2, episode_ticks=4, leaves_after=2)
    np.testing.assert_array_equal(np.diff(table.offsets), [4, 2, 2, 2])
    np.testing.assert_array_equal(table.slots, [0, 0, 1, 1])


def test_columns_that_are_absent_are_not_there() -> None:
    table = captured(has_values=False)
    assert "values" not in table.columns
    assert "next_values" not in table.columns
    with pytest.raises(DataError, match="has no column 'values'; it has"):
        table.column("values")


@given(
    steps=st.integers(1, 9),
    length=st.integers(1, 4),
    ends=st.sampled_from(["truncated", "terminated", "alternate"]),
    leaves=st.sampled_from([None, 1, 2]),
    masked=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_padding_keeps_every_row(steps: int, length: int, ends: Any, leaves: int | None, masked: bool) -> None:
    table = captured(steps, agents_per_env=2, episode_ticks=length, ends=ends, leaves_after=leaves, masked=masked)
    arrays = pad_trajectories(table)
    assert arrays.transitions == len(table)
    for name in ("actions", "rewards", "values", "next_values", "log_probs", "terminated", "expert_actions"):
        column = getattr(arrays, name)
        np.testing.assert_array_equal(column.T[arrays.valid.T], table.column(name))
    np.testing.assert_array_equal(
        np.swapaxes(arrays.observations["features"], 0, 1)[arrays.valid.T], table.column("features")
    )
    lengths = np.diff(table.offsets)
    last = lengths - 1
    ended = arrays.terminated | arrays.truncated
    assert ended[last, np.arange(len(lengths))].all()
    assert ended.sum() == len(lengths)
    if masked:
        assert arrays.action_mask is not None
        assert arrays.action_mask[~arrays.valid].all()
    else:
        assert arrays.action_mask is None


def test_a_padded_column_of_a_store_reads_what_padding_would_hold(tmp_path: Path) -> None:
    table = captured(11, agents_per_env=2, episode_ticks=4, leaves_after=2)
    with ShardWriter(tmp_path, table.spec) as writer:
        for number in range(len(table.offsets) - 1):
            writer.add(table.select([number]))
            writer.seal()
    store = ShardStore.open(tmp_path)
    assert len(store.shards) > 2
    plain, mapped = pad_trajectories(store), pad_trajectories(store, mapped=True)
    places = np.random.default_rng(0).permutation(np.flatnonzero(plain.valid.reshape(-1)))
    columns: Any = mapped.observations
    read = PaddedColumn.read(columns, places)
    for name, expected in plain.observations.items():
        column: Any = columns[name]
        assert (column.dtype, column.shape, len(column)) == (expected.dtype, expected.shape, len(expected))
        np.testing.assert_array_equal(np.asarray(column), expected)
        np.testing.assert_array_equal(column[1:3], expected[1:3])
        np.testing.assert_array_equal(column[plain.valid], expected[plain.valid])
        np.testing.assert_array_equal(read[name], expected.reshape(-1, *expected.shape[2:])[places])
    assert (mapped.actions == plain.actions).all()
    assert PaddedColumn.read({}, places) == {}


def test_padding_of_a_selection() -> None:
    arrays = pad_trajectories(captured(7), np.array([2, 0]))
    np.testing.assert_array_equal(arrays.valid.sum(axis=0), [1, 3])
    np.testing.assert_array_equal(arrays.truncated[:, 0], [True, False, False])
    np.testing.assert_array_equal(arrays.episode_starts[0], [True, True])


def test_selection_and_concatenation() -> None:
    table = captured(7)
    left, right = table.select([0, 1]), table.select([2, 3, 4, 5], label="right")
    joined = Transitions.concatenate([left, right], label="joined")
    np.testing.assert_array_equal(joined.offsets, table.offsets)
    np.testing.assert_array_equal(joined.column("features"), table.column("features"))
    np.testing.assert_array_equal(joined.final["map"], table.final["map"])
    assert joined.label == "joined"
    with pytest.raises(DataError, match="at least one dataset"):
        Transitions.concatenate([])
    with pytest.raises(DataError, match="has the columns"):
        Transitions.concatenate([table, captured(has_values=False)])


def test_tables_that_do_not_fit_together() -> None:
    table = captured(2)
    parts: dict[str, Any] = {"spec": table.spec, "offsets": table.offsets, "slots": table.slots}
    with pytest.raises(DataError, match="column 'rewards' has 1 rows, expected 4"):
        Transitions(data={**table.data, "rewards": np.zeros(1)}, **parts)
    with pytest.raises(DataError, match=r"lacks the columns \['features'\]"):
        Transitions(data={name: array for name, array in table.data.items() if name != "features"}, **parts)
    with pytest.raises(DataError, match="'slots' has 1 rows for 2"):
        Transitions(data=table.data, **(parts | {"slots": np.zeros(1, np.int64)}))


def test_nan_is_named() -> None:
    table = captured(2)
    require_finite(table)
    rewards = table.column("rewards").copy()
    rewards[2] = np.inf
    bad = Transitions(
        spec=table.spec, data={**table.data, "rewards": rewards}, offsets=table.offsets, slots=table.slots, label="d"
    )
    with pytest.raises(NonFiniteError, match="dataset 'd': column 'rewards' holds NaN or infinity, first in row 2"):
        require_finite(bad)


@given(size=st.integers(1, 9), window=st.sampled_from([None, 1, 4, 99]), drop=st.booleans())
@settings(max_examples=30, deadline=None)
def test_mini_batches_cover_an_epoch_once(size: int, window: int | None, drop: bool) -> None:
    table = captured(7)
    batches = MiniBatches(table, batch_size=size, seed=1, window=window, drop_last=drop, names=["actions", "features"])
    rows = [batch["features"] for batch in batches.epoch(0)]
    assert len(rows) == len(batches)
    seen = np.concatenate(rows) if rows else np.empty((0, 4))
    if drop:
        assert len(seen) == len(table) // size * size
    else:
        order = np.lexsort(seen.T)
        np.testing.assert_array_equal(seen[order], table.column("features")[np.lexsort(table.column("features").T)])


def test_mini_batches_are_reshuffled_and_resumable() -> None:
    table = captured(7)
    batches = MiniBatches(table, batch_size=4, seed=1, names=["features"])
    assert not np.array_equal(batches.order(0), batches.order(1))
    np.testing.assert_array_equal(batches.order(1), MiniBatches(table, batch_size=9, seed=1).order(1))
    whole = [batch["features"] for batch in batches.epoch(1)]
    rest = [batch["features"] for batch in batches.epoch(1, first=2)]
    for left, right in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(left, right)
    split = MiniBatches(table, batch_size=4, seed=1, rows=np.arange(5))
    assert sorted(split.order(0)) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        MiniBatches(table, batch_size=0, seed=1)


@pytest.mark.parametrize("has_values", [True, False])
def test_rollouts_become_samples_and_come_back(has_values: bool) -> None:
    table = captured(7, has_values=has_values, masked=True)
    samples = list(samples_from_transitions(table))
    assert [sample.timesteps for sample in samples] == [3, 3, 1, 3, 3, 1]
    assert samples[0].metadata["action_names"] == ["zero", "one", "two"]
    assert samples[0].metadata["simulation"] == "counting-v1"
    assert ("values" in samples[0].metadata.get("absent", ())) is not has_values
    back = transitions_from_samples(samples)
    assert set(back.columns) == set(table.columns)
    for name in table.columns:
        np.testing.assert_array_equal(back.column(name), table.column(name), err_msg=name)
    for name, array in table.final.items():
        np.testing.assert_array_equal(back.final[name], array)
    assert back.spec.action_names == table.spec.action_names
    assert back.spec.rules_hash == table.spec.rules_hash


def legacy_sample(**changes: Any) -> ReplaySample:
    fields: dict[str, Any] = {
        "map": np.zeros((3, 1, 2, 2), np.float32),
        "features": np.zeros((3, 2), np.float32),
        "actions": np.array([0, 2, 1]),
        "old_log_probs": np.full(3, -1, np.float32),
        "value_preds": np.array([1, 2, 3, 4], np.float32),
        "rewards": np.ones(3, np.float32),
        "dones": np.array([False, True, False]),
        "metadata": {"feature_names": ["a", "b"]},
    }
    return ReplaySample(**(fields | changes))


def test_old_samples_as_transitions() -> None:
    table = transitions_from_samples([legacy_sample(), legacy_sample(value_preds=np.array([1, 2, 3], np.float32))])
    assert table.spec.action_names == ("action_0", "action_1", "action_2")
    assert table.spec.simulation is None
    np.testing.assert_array_equal(table.column("next_values"), [2, 3, 4, 2, 3, 3])
    np.testing.assert_array_equal(table.column("terminated"), [False, True, False] * 2)
    arrays = pad_trajectories(table)
    np.testing.assert_array_equal(arrays.episode_starts[:, 0], [True, False, True])
    np.testing.assert_array_equal(arrays.truncated[:, 0], [False, False, True])
    wide = transitions_from_samples([legacy_sample(), legacy_sample(metadata={"feature_names": [], "action_dim": 9})])
    assert wide.spec.action_dim == 9


def test_old_samples_with_a_superfluous_axis() -> None:
    flat = legacy_sample()
    tall = legacy_sample(rewards=flat.rewards[:, None], value_preds=flat.value_preds[:, None])
    arrays = pad_trajectories(transitions_from_samples([tall]))
    np.testing.assert_array_equal(arrays.rewards[:, 0], flat.rewards)
    assert arrays.next_values is not None
    np.testing.assert_array_equal(arrays.next_values[:, 0], flat.value_preds[1:])
    wide = legacy_sample(rewards=np.ones((3, 2), np.float32))
    with pytest.raises(DataError, match=r"column 'rewards' has rows of shape \(2,\), expected scalars"):
        pad_trajectories(transitions_from_samples([wide]))


def test_zeros_throughout_are_absent() -> None:
    zeros = {"old_log_probs": np.zeros(3, np.float32), "value_preds": np.zeros(4, np.float32)}
    table = transitions_from_samples([legacy_sample(**zeros), legacy_sample(**zeros)])
    assert not {"log_probs", "values", "next_values"} & set(table.columns)
    arrays = pad_trajectories(table)
    assert arrays.log_probs is None
    assert arrays.next_values is None
    assert "log_probs" in transitions_from_samples([legacy_sample(**zeros), legacy_sample()]).columns


def test_samples_that_do_not_go_together() -> None:
    with pytest.raises(DataError, match="contains no samples"):
        transitions_from_samples([])
    with pytest.raises(DataError, match=r"replay\[1\], array 'features'"):
        transitions_from_samples([legacy_sample(), legacy_sample(features=np.zeros((3, 5), np.float32))])
    with pytest.raises(DataError, match=r"replay\[1\] has the arrays"):
        transitions_from_samples([legacy_sample(), legacy_sample(extras={"x": np.zeros(3)})])
    flags = {"terminated": np.zeros(3, np.bool_), "truncated": np.zeros(3, np.bool_)}
    with pytest.raises(DataError, match="'dones' contradicts"):
        transitions_from_samples([legacy_sample(extras=flags)])


def test_specs_travel_as_json_and_are_compared() -> None:
    simulation = CountingSimulation(2, masked=True)
    spec = DataSpec.from_simulation(simulation.spec)
    assert DataSpec.from_json(spec.to_json(), source="x") == spec
    spec.check_fits(simulation.spec, label="d")
    with pytest.raises(DataError, match="x: the description of the data is broken"):
        DataSpec.from_json({"observations": {"map": {}}}, source="x")
    narrow = DataSpec(observations={"features": ArraySpec((1,), np.dtype(np.float32))}, action_names=("a",))
    with pytest.raises(SpaceMismatchError, match="dataset 'd' has observations"):
        narrow.check_fits(simulation.spec, label="d")
    for names, simulation_name in ((("x", "y", "z"), "s"), (("a", "b", "c", "d"), None)):
        other = DataSpec(observations=spec.observations, action_names=names, simulation=simulation_name)
        with pytest.raises(SpaceMismatchError, match="actions"):
            other.check_fits(simulation.spec, label="d")
