"""Captures through the service: any simulation, any policy, memory or disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_core.errors import (
    CapabilityError,
    ConfigurationError,
    DataError,
    InterruptedRunError,
    MissingFileError,
)
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.openers import open_transitions
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.tensorfile import write_tensors
from townlet_training_core.rollout.progress import STATE_FILE, load_progress
from townlet_training_core.rollout.service import CaptureResult, RolloutCaptureService
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation


def service(**options: Any) -> RolloutCaptureService:
    def make(*, num_envs: int | None = None) -> Simulation:
        return CountingSimulation(num_envs or 2, **options)

    return RolloutCaptureService(make)


def test_into_memory() -> None:
    table = service(episode_ticks=3).collect(ScriptedPolicy(), steps=6, seed=1, num_envs=3, label="expert")
    assert len(table) == 18
    assert table.label == "expert"
    assert "log_probs" not in table.columns
    assert table.final["features"].shape == (6, 4)


@pytest.mark.parametrize("form", ["shards", "npz"])
def test_onto_disk(tmp_path: Path, form: Literal["shards", "npz"]) -> None:
    ticks: list[int] = []
    result = service(episode_ticks=3).capture(
        CountingPolicy(), ticks=7, seed=1, output=tmp_path / "c", form=form, shard_bytes=500, on_ticks=ticks.append
    )
    assert result.transitions == 14
    assert result.episodes == 4
    assert result.mean_length == 3
    assert result.events["odd_tick"] == (4, 4.0)
    assert sum(ticks) == 7
    table = open_transitions(tmp_path / "c")
    assert len(table) == 14
    features = table.column("features")
    np.testing.assert_array_equal(table.column("rewards"), features[:, 2] + table.column("actions") / 2)
    np.testing.assert_array_equal(table.column("log_probs"), -(features[:, 2] + 1) / 8)
    ends = table.offsets[1:] - 1
    expected = 100 * features[ends, 1] + features[ends, 2] + 1
    np.testing.assert_array_equal(table.column("next_values")[ends], expected)


def test_shards_are_sealed_while_capturing_and_say_how(tmp_path: Path) -> None:
    sealed: list[int] = []

    def look(_: int) -> None:
        sealed.append(len(ShardStore.open(tmp_path / "c").shards))

    service().capture(CountingPolicy(), ticks=9, seed=4, output=tmp_path / "c", shard_bytes=400, on_ticks=look)
    assert sealed == sorted(sealed)
    assert sealed[0] == 1
    assert len(sealed) > 2
    store = ShardStore.open(tmp_path / "c", verify=True)
    assert store.complete
    assert store.metadata["policy"] == "counting"
    assert store.metadata["seed"] == 4
    assert store.metadata["episodes"] == 2


@given(envs=st.integers(1, 3), ticks=st.integers(1, 8), length=st.integers(1, 4), size=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_captures_to_datasets_to_batches_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, envs: int, ticks: int, length: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("capture") / "c"
    captured = service(episode_ticks=length)
    captured.capture(CountingPolicy(), ticks=ticks, seed=2, output=folder, form="npz", num_envs=envs)
    table = captured.collect(CountingPolicy(), steps=ticks, seed=2, num_envs=envs)
    batches = list(ReplayDataset(ReplayDatasetConfig.from_capture_dir(folder, batch_size=size)))
    rows = np.concatenate([batch.features.reshape(-1, 4) for batch in batches])
    rewards = np.concatenate([batch.rewards.reshape(-1) for batch in batches])
    assert len(rows) == len(table) == envs * ticks
    columns = np.column_stack([rows, rewards])
    expected = np.column_stack([table.column("features"), table.column("rewards")])
    np.testing.assert_array_equal(columns[np.lexsort(columns.T)], expected[np.lexsort(expected.T)])
    for batch in batches:
        last = batch.value_preds[:, -1]
        np.testing.assert_array_equal(last, 100 * batch.features[:, -1, 1] + batch.features[:, -1, 2] + 1)


def test_captures_are_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        service().capture(RandomPolicy(), ticks=6, seed=4, output=tmp_path / name)
    left, right = (ShardStore.open(tmp_path / name) for name in ("a", "b"))
    assert [shard.sha256 for shard in left.shards] == [shard.sha256 for shard in right.shards]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_capture_goes_on_as_if_nothing_had_happened(tmp_path: Path, after: int) -> None:
    def capture(name: str, *, stop_after: int | None = None, resume: bool = False, seed: int = 4) -> CaptureResult:
        stop, sealed = threading.Event(), []

        def count(ticks: int) -> None:
            sealed.append(ticks)
            if len(sealed) == stop_after:
                stop.set()

        made = service(episode_ticks=4)
        output = tmp_path / name
        options: dict[str, Any] = {"shard_bytes": 400, "resume": resume, "stop": stop, "on_ticks": count}
        return made.capture(CountingPolicy(), ticks=17, seed=seed, output=output, **options)

    whole = capture("whole")
    with pytest.raises(InterruptedRunError, match="of 17 ticks, which are kept; go on with --resume"):
        capture("parts", stop_after=after)
    assert len(ShardStore.open(tmp_path / "parts").shards) == after
    with pytest.raises(ConfigurationError, match=r"was begun with \{'seed': 4\}"):
        capture("parts", resume=True, seed=5)
    with pytest.raises(ConfigurationError, match="exists"):
        capture("parts")
    if after == 2:  # killed after a shard was listed, before its state was kept
        before = (tmp_path / "parts" / STATE_FILE).read_bytes()
        with pytest.raises(InterruptedRunError):
            capture("parts", resume=True, stop_after=2)
        (tmp_path / "parts" / STATE_FILE).write_bytes(before)
    result = capture("parts", resume=True)
    assert (result.episodes, result.mean_return, result.events) == (whole.episodes, whole.mean_return, whole.events)
    left, right = (ShardStore.open(tmp_path / name, verify=True) for name in ("whole", "parts"))
    assert left.shards == right.shards
    assert left.metadata == right.metadata
    assert right.complete
    with pytest.raises(MissingFileError, match="no unfinished capture"):
        capture("parts", resume=True)


def test_a_torn_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"torn")
    with pytest.raises(DataError, match="torn"):
        load_progress(tmp_path, {})
    write_tensors(tmp_path / STATE_FILE, {"a": [np.zeros(1)]}, metadata={"progress": "{}"})
    with pytest.raises(DataError, match="is broken: KeyError"):
        load_progress(tmp_path, {})


def test_what_cannot_be_saved_says_so(tmp_path: Path) -> None:
    class Unsaved(CountingSimulation):
        def save_state(self) -> Any:
            msg = "no"
            raise CapabilityError(msg)

    stop = threading.Event()
    stop.set()
    made = RolloutCaptureService(lambda *, num_envs=None: Unsaved(2))
    with pytest.raises(InterruptedRunError, match="must begin anew"):
        made.capture(RandomPolicy(), ticks=9, seed=0, output=tmp_path / "c", shard_bytes=100, stop=stop)
    with pytest.raises(ConfigurationError, match="npz files are written at the end"):
        made.capture(RandomPolicy(), ticks=9, seed=0, output=tmp_path / "d", form="npz", resume=True)


def test_bad_captures(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ticks must be positive"):
        service().capture(RandomPolicy(), ticks=0, seed=0, output=tmp_path / "c")
    forms: tuple[Literal["shards", "npz"], ...] = ("shards", "npz")
    for form in forms:
        service().capture(RandomPolicy(), ticks=1, seed=0, output=tmp_path / form, form=form)
        with pytest.raises(ConfigurationError, match="exists"):
            service().capture(RandomPolicy(), ticks=1, seed=0, output=tmp_path / form, form=form)


@pytest.mark.parametrize("family", ["gymnasium", "pettingzoo"])
def test_environments_that_nobody_here_wrote(tmp_path: Path, family: str) -> None:
    pytest.importorskip("gymnasium")
    if family == "pettingzoo":
        pytest.importorskip("mpe2")
        from townlet_training_core.simulation.pettingzoo import make_simulation

        options: dict[str, Any] = {
            "env": "mpe2.simple_spread_v3:parallel_env",
            "kwargs": {"max_cycles": 8, "N": 2},
        }
    else:
        from townlet_training_core.simulation.gymnasium import make_simulation

        options = {"env": "CartPole-v1", "kwargs": {"max_episode_steps": 12}}

    def make(*, num_envs: int | None = None) -> Simulation:
        return make_simulation(num_envs or 2, options)

    result = RolloutCaptureService(make).capture(RandomPolicy(), ticks=30, seed=0, output=tmp_path / "c")
    table = open_transitions(tmp_path / "c")
    assert result.transitions == len(table) == 30 * (4 if family == "pettingzoo" else 2)
    assert result.episodes > 0
    lengths = np.diff(table.offsets)
    ends = table.offsets[1:] - 1
    cut = table.column("truncated")[ends]
    assert (lengths[cut] == (8 if family == "pettingzoo" else 12)).all()
    if family == "gymnasium":
        final = table.final_observations(np.arange(len(lengths)))["features"]
        before = table.column("features")[ends]
        np.testing.assert_allclose(final[:, 0], before[:, 0] + 0.02 * before[:, 1], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(table.column("rewards"), 1.0)
