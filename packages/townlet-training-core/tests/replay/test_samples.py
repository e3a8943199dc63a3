"""Samples, npz files, frames and batches: the exchange format."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from townlet_training_core.errors import DataError, MissingFileError, NonFiniteError
from townlet_training_core.replay.metrics import aggregate_metrics, compute_sample_metrics
from townlet_training_core.replay.npz import (
    load_replay_sample,
    read_npz,
    read_npz_headers,
    save_replay_sample,
    to_builtins,
)
from townlet_training_core.replay.sample import (
    STEP_ARRAY_FIELDS,
    TRAINING_ARRAY_FIELDS,
    ReplaySample,
    build_batch,
    frames_to_replay_sample,
)

NAMES = ["rivalry_max", "rivalry_avoid_count", "reward_total", "lateness_counter"]


def make_sample(steps: int = 3, **changes: Any) -> ReplaySample:
    arrays: dict[str, Any] = {
        "map": np.arange(steps * 8, dtype=np.float32).reshape(steps, 2, 2, 2),
        "features": np.arange(steps * 4, dtype=np.float32).reshape(steps, 4),
        "actions": np.arange(steps, dtype=np.int64) % 2,
        "old_log_probs": np.full(steps, -0.5, np.float32),
        "value_preds": np.linspace(0, 1, steps + 1, dtype=np.float32),
        "rewards": np.ones(steps, np.float32),
        "dones": np.arange(steps) == steps - 1,
        "metadata": {"feature_names": NAMES},
    }
    return ReplaySample(**(arrays | changes))


def test_constants_are_the_contracts() -> None:
    assert TRAINING_ARRAY_FIELDS == ("actions", "old_log_probs", "rewards", "dones", "value_preds")
    assert STEP_ARRAY_FIELDS == ("actions", "old_log_probs", "rewards", "dones")


def test_a_sample_fills_in_its_metadata_and_axes() -> None:
    sample = make_sample(
        1,
        map=np.zeros((4, 3, 3), np.float32),
        features=np.zeros(4, np.float32),
        actions=np.array(1),
        old_log_probs=np.array(0.0),
        rewards=np.array(1.0),
        dones=np.array(True),
        value_preds=np.array([0.5]),
    )
    assert sample.map.shape == (1, 4, 3, 3)
    assert sample.features.shape == (1, 4)
    assert sample.actions.shape == (1,)
    assert sample.metadata["timesteps"] == 1
    assert sample.metadata["value_pred_steps"] == 1
    assert sample.metadata["training_arrays"] == list(TRAINING_ARRAY_FIELDS)


def test_conflict_stats_are_means() -> None:
    assert make_sample().conflict_stats() == {"rivalry_max": 4.0, "rivalry_avoid_count": 5.0}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"actions": [0, 1, 0]}, TypeError, r"ReplaySample.actions must be a numpy array"),
        ({"rewards": np.zeros((3, 1, 1))}, ValueError, "rewards must be 1D or 2D"),
        ({"rewards": np.zeros(2)}, ValueError, "training arrays must share timestep length"),
        ({"map": np.zeros((3, 2))}, ValueError, "map must be 3D or 4D"),
        ({"map": np.zeros((2, 2, 2, 2))}, ValueError, "map and features must match"),
        ({"features": np.zeros((3, 2, 2))}, ValueError, "features must be 1D or 2D"),
        ({"features": np.zeros((2, 4))}, ValueError, "map and features must match"),
        ({"value_preds": np.zeros(2)}, ValueError, r"must have length matching timesteps or timesteps \+ 1"),
        ({"extras": {"action_mask": np.ones((2, 2))}}, ValueError, "extras"),
    ],
)
def test_samples_that_do_not_fit_together(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_sample(**changes)


def test_save_and_load(tmp_path: Path) -> None:
    sample = make_sample(extras={"action_mask": np.ones((3, 2), np.bool_)})
    for compress in (True, False):
        save_replay_sample(sample, tmp_path / "ålice.npz", compress=compress)
        loaded = load_replay_sample(tmp_path / "ålice.npz")
        assert_same_sample(sample, loaded)
        loaded.rewards[0] = 7  # what is loaded may be changed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ålice.json", "ålice.npz"]
    with np.load(tmp_path / "ålice.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["map"], sample.map)


def assert_same_sample(left: ReplaySample, right: ReplaySample) -> None:
    for name in ("map", "features", *TRAINING_ARRAY_FIELDS):
        mine, theirs = getattr(left, name), getattr(right, name)
        assert mine.dtype == theirs.dtype, name
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert left.metadata == right.metadata
    assert set(left.extras) == set(right.extras)
    for name, array in left.extras.items():
        np.testing.assert_array_equal(array, right.extras[name])


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps({"feature_names": NAMES}))
    return path


def arrays_of(sample: ReplaySample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in ("map", "features", *TRAINING_ARRAY_FIELDS)}


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.npz"):
        load_replay_sample(tmp_path / "none.npz")
    path = write_npz(tmp_path / "a.npz", **arrays_of(make_sample()))
    path.with_suffix(".json").unlink()
    with pytest.raises(MissingFileError, match="metadata file"):
        load_replay_sample(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map": None}, "missing required arrays"),
        ({"actions": None, "dones": None}, r"missing training array\(s\): \['actions', 'dones'\]"),
        ({"actions": np.zeros(3)}, "'actions': expected integers, found dtype float64"),
        ({"rewards": np.array(["a", "b", "c"])}, "'rewards': expected numbers, found dtype <U1"),
        ({"rewards": np.zeros(4)}, "must share timestep length"),
        ({"rewards": np.array([object()] * 3)}, "object arrays are refused"),
    ],
)
def test_unsound_arrays_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in (arrays_of(make_sample()) | change).items() if array is not None}
    path = write_npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_replay_sample(path)
    assert "a.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "Replay sample metadata missing feature_names list"),
        ('{"feature_names": ["x", "rivalry_max"]}', r"missing conflict feature\(s\): \['rivalry_avoid_count'\]"),
    ],
)
def test_unsound_metadata(tmp_path: Path, text: str, message: str) -> None:
    path = write_npz(tmp_path / "a.npz", **arrays_of(make_sample()))
    path.with_suffix(".json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_replay_sample(path)


def test_conflict_features_are_demanded_of_towns_only(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **arrays_of(make_sample()))
    path.with_suffix(".json").write_text(json.dumps({"feature_names": ["x"], "simulation": "gymnasium:CartPole-v1"}))
    assert load_replay_sample(path).feature_names == ["x"]
    with pytest.raises(DataError, match="missing conflict feature"):
        load_replay_sample(path, require_conflict_features=True)
    path.with_suffix(".json").write_text(json.dumps({"feature_names": ["x"]}))
    assert load_replay_sample(path, require_conflict_features=False).feature_names == ["x"]


def test_nan_is_kept_unless_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **arrays_of(make_sample(rewards=np.array([1, np.nan, 2]))))
    assert np.isnan(load_replay_sample(path).rewards[1])
    with pytest.raises(NonFiniteError, match="'rewards' holds NaN"):
        load_replay_sample(path, require_finite=True)


def test_a_torn_archive_is_refused_at_every_length(tmp_path: Path) -> None:
    whole = write_npz(tmp_path / "a.npz", **arrays_of(make_sample())).read_bytes()
    torn = tmp_path / "torn.npz"
    for length in range(0, len(whole), 37):
        torn.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"torn.npz"):
            read_npz(torn)


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    for header in ({"shape": (10**12,)}, {"shape": (-1,)}, {"descr": "|O"}):
        stream = io.BytesIO()
        fields: dict[str, Any] = {"descr": "<f8", "fortran_order": False, "shape": (1,)} | header
        np.lib.format.write_array_header_1_0(stream, fields)
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rewards.npy", stream.getvalue() + bytes(8))
        with pytest.raises(DataError, match="'rewards'"):
            read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rewards.npy", b"\x93NUMPY\x09\x00" + bytes(80))
    with pytest.raises(DataError, match="not supported"):
        read_npz(path)


def test_headers_agree_with_data(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "e": np.zeros((0, 3), np.int8),
        "s": np.array(3),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    loaded, headers = read_npz(tmp_path / "a.npz"), read_npz_headers(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert headers[name] == (array.shape, array.dtype)


@st.composite
def samples(draw: st.DrawFn) -> ReplaySample:
    count = draw(st.integers(0, 4))

    def array(dtype: Any, *shape: int) -> Any:
        return draw(hnp.arrays(dtype, (count, *shape)))

    bootstrap = draw(st.booleans())
    values = draw(hnp.arrays(np.float32, count + bootstrap))
    channels, height, width = draw(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(0, 2)))
    extras = {}
    if draw(st.booleans()):
        extras["action_mask"] = array(np.bool_, 2)
    return ReplaySample(
        map=array(draw(st.sampled_from([np.float32, np.uint8, np.float64])), channels, height, width),
        features=array(np.float32, draw(st.integers(0, 3))),
        actions=np.abs(array(np.int16)).astype(np.int64),
        old_log_probs=array(np.float32),
        value_preds=values,
        rewards=array(np.float32),
        dones=array(np.bool_),
        metadata={
            "feature_names": draw(st.lists(st.text(max_size=3), max_size=2)),
            "agent_id": draw(st.text(max_size=3)),
        },
        extras=extras,
    )


@given(sample=samples())
@settings(max_examples=60, deadline=None)
def test_npz_round_trip_is_lossless(tmp_path_factory: pytest.TempPathFactory, sample: ReplaySample) -> None:
    path = tmp_path_factory.mktemp("npz") / "sample.npz"
    save_replay_sample(sample, path, compress=False)
    assert_same_sample(sample, load_replay_sample(path, require_conflict_features=False))


def frame(tick: int, **changes: Any) -> dict[str, Any]:
    return {
        "map": np.full((1, 2, 2), tick),
        "features": [float(tick), 0.0],
        "action_id": tick % 2,
        "action": {"kind": "wait" if tick % 2 == 0 else "move", "blocked": tick == 2},
        "log_prob": -0.1 * tick,
        "value_pred": float(tick),
        "rewards": [0.5, float(tick)],
        "dones": [False],
        "metadata": {"feature_names": ["a", "b"], "dto": {"schema_version": "0.2.0"}},
        **changes,
    }


def test_frames_join_into_a_sample() -> None:
    sample = frames_to_replay_sample([frame(0), frame(1), frame(2, anneal_context={"cycle": 1})])
    np.testing.assert_array_equal(sample.actions, [0, 1, 0])
    np.testing.assert_array_equal(sample.rewards, [0, 1, 2])
    np.testing.assert_array_equal(sample.value_preds, [0, 1, 2, 2])
    assert sample.map.shape == (3, 1, 2, 2)
    assert sample.metadata["action_dim"] == 2
    assert sample.metadata["dto_schema_version"] == "0.2.0"
    assert sample.metadata["anneal_context"] == {"cycle": 1}
    assert sample.metadata["timesteps"] == 3
    assert sample.metadata["value_pred_steps"] == 4


def test_a_bootstrap_value_in_the_last_frame_is_used() -> None:
    sample = frames_to_replay_sample([frame(0), frame(1, bootstrap_value=9.0)])
    np.testing.assert_array_equal(sample.value_preds, [0, 1, 9])


def test_actions_without_ids_are_looked_up_or_numbered() -> None:
    def without_id(**changes: Any) -> dict[str, Any]:
        made = frame(0, **changes)
        del made["action_id"]
        return made

    move, wait = {"kind": "move"}, {"kind": "wait"}
    sample = frames_to_replay_sample([without_id(action=wait), without_id(action=move), without_id(action=wait)])
    np.testing.assert_array_equal(sample.actions, [0, 1, 0])
    for lookup in ({json.dumps(move, sort_keys=True): 5}, {5: move}, {"5": json.dumps(move, sort_keys=True)}):
        sample = frames_to_replay_sample([without_id(action=move, action_lookup=lookup)])
        np.testing.assert_array_equal(sample.actions, [5])
        assert sample.metadata["action_dim"] == 6


def test_frames_that_cannot_be_joined() -> None:
    with pytest.raises(DataError, match="frames sequence cannot be empty"):
        frames_to_replay_sample([])
    with pytest.raises(DataError, match="maps and features of one shape"):
        frames_to_replay_sample([frame(0), frame(1, features=[1.0])])
    sample = frames_to_replay_sample([frame(0, rewards=[], dones=None, log_prob=None)])
    np.testing.assert_array_equal(sample.rewards, [0])
    assert frames_to_replay_sample([frame(0, rewards=2.5)]).rewards[0] == 2.5


def test_batches_stack_samples() -> None:
    first, second = make_sample(), make_sample(metadata={"feature_names": NAMES, "action_dim": 9, "metrics": {"a": 1}})
    batch = build_batch([first, second])
    assert batch.maps.shape == (2, 3, 2, 2, 2)
    assert batch.actions.shape == (2, 3)
    assert batch.value_preds.shape == (2, 4)
    assert batch.metadata["action_dim"] == 9
    assert batch.metadata["metrics"] == [{}, {"a": 1}]
    assert batch.metadata["map_shape"] == (2, 2, 2)
    assert batch.conflict_stats() == {
        "rivalry_max_mean": 4.0,
        "rivalry_max_max": 8.0,
        "rivalry_avoid_count_mean": 5.0,
        "rivalry_avoid_count_max": 9.0,
    }
    with pytest.raises(DataError, match="at least one sample required to build batch"):
        build_batch([])
    with pytest.raises(DataError, match="must have one shape"):
        build_batch([first, make_sample(2)])


def test_metrics_by_hand() -> None:
    sample = frames_to_replay_sample([frame(0), frame(1), frame(2)])
    metrics = compute_sample_metrics(sample)
    assert metrics["timesteps"] == 3
    assert metrics["reward_sum"] == 3
    assert metrics["reward_mean"] == 1
    assert metrics["log_prob_mean"] == pytest.approx(-0.1)
    assert metrics["value_pred_last"] == 2
    assert metrics["action_nonzero"] == 1
    assert metrics["action_total"] == 3
    assert metrics["action_wait_count"] == 2
    assert metrics["action_move_count"] == 1
    assert metrics["action_entropy"] == pytest.approx(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    assert all(isinstance(value, float) for value in metrics.values())
    named = compute_sample_metrics(make_sample(metadata={"feature_names": NAMES, "action_names": ["wait", "work"]}))
    assert named["action_work_count"] == 1
    assert named["rivalry_max_max"] == 8
    assert named["reward_feature_mean"] == 6
    assert named["lateness_mean"] == 7
    assert compute_sample_metrics(make_sample(0))["action_blocked_ratio"] == 0


def test_aggregation_sums_sums_and_means_the_rest() -> None:
    rows: list[dict[str, Any]] = [{"reward_sum": 1.0, "x": 2.0}, {"reward_sum": 3.0, "x": 4.0, "name": "b"}, {}]
    assert aggregate_metrics(rows) == {"sample_count": 2.0, "reward_sum": 4.0, "reward_sum_mean": 2.0, "x": 3.0}
    assert aggregate_metrics([]) == {}


def test_builtins() -> None:
    value = {"a": (np.float32(1), np.array([1, 2])), 3: Path("x"), "n": None}
    assert to_builtins(value) == {"a": [1.0, [1, 2]], "3": "x", "n": None}
