"""The shard store: lossless, sealed shard by shard, mapped, and never trusted blindly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from townlet_training_core.errors import ConfigurationError, DataError, MissingFileError
from townlet_training_core.files import atomic_open
from townlet_training_core.replay import tensorfile
from townlet_training_core.replay.npz import load_replay_sample, save_replay_sample
from townlet_training_core.replay.openers import convert, fetch_store, open_transitions, replay_kind
from townlet_training_core.replay.sample import TRAINING_ARRAY_FIELDS, ReplaySample
from townlet_training_core.replay.shards import STORE_FILE, ShardStore
from townlet_training_core.replay.shardwriter import ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.tensorfile import map_tensors, write_tensors
from townlet_training_core.replay.transitions import Transitions, transitions_from_rollout
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.rollout.progress import STATE_FILE
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation


def blocks(count: int = 3, steps: int = 5) -> tuple[DataSpec, list[Transitions]]:
    simulation = CountingSimulation(2, episode_ticks=3, masked=True)
    spec = DataSpec.from_simulation(simulation.spec)
    collector = RolloutCollector(simulation, CountingPolicy(), steps=steps, seed=0, keep_final=True)
    return spec, [
        transitions_from_rollout(collector.collect(), spec, final=collector.buffer.observations_after)
        for _ in range(count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    spec, parts = blocks()
    with ShardWriter(tmp_path / "store", spec, shard_bytes=1, metadata={"seed": 0}) as writer:
        for part in parts:
            writer.add(part)
    return ShardStore.open(tmp_path / "store", verify=True)


def test_a_store_gives_back_what_was_written(store: ShardStore) -> None:
    _, parts = blocks()
    whole = Transitions.concatenate(parts)
    assert len(store.shards) == 3
    assert store.complete
    assert store.metadata == {"seed": 0}
    assert store.spec == whole.spec
    assert store.columns == whole.columns
    assert len(store) == len(whole)
    np.testing.assert_array_equal(store.offsets, whole.offsets)
    np.testing.assert_array_equal(store.slots, whole.slots)
    np.testing.assert_array_equal(store.trajectory_ids, whole.trajectory_ids)
    rng = np.random.default_rng(0)
    for indices in (np.arange(len(whole)), rng.permutation(len(whole)), rng.integers(len(whole), size=9), np.array([])):
        expected = whole.gather(np.asarray(indices, np.int64))
        for name, rows in store.gather(indices).items():
            assert rows.dtype == expected[name].dtype
            np.testing.assert_array_equal(rows, expected[name], err_msg=name)
    for name in whole.columns:
        np.testing.assert_array_equal(store.column(name), whole.column(name))
    chosen = np.array([5, 0, 3])
    for name, array in whole.final_observations(chosen).items():
        np.testing.assert_array_equal(store.final_observations(chosen)[name], array)
    assert store.final_observations(np.array([], np.int64))["map"].shape == (0, 1, 2, 2)
    assert [len(block) for block in store.blocks()] == [10, 10, 10]
    assert store.records == ()


def test_any_safetensors_reader_can_read_a_shard(store: ShardStore) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    tensors = numpy_reader.load_file(store.path / store.shards[1].file)
    np.testing.assert_array_equal(tensors["column/rewards"], store.column("rewards")[10:20])


def test_rows_outside_and_unknown_columns_are_refused(store: ShardStore) -> None:
    for row in (-1, 30):
        with pytest.raises(DataError, match="has 30 rows"):
            store.gather(np.array([row]))
    with pytest.raises(DataError, match="no column 'reward'"):
        store.gather(np.array([0]), ["reward"])
    with pytest.raises(DataError, match="no column 'x'"):
        store.column("x")


def test_appending_continues_a_store(store: ShardStore) -> None:
    spec, parts = blocks(1)
    with pytest.raises(ConfigurationError, match="exists; choose another folder"):
        ShardWriter(store.path, spec)
    with ShardWriter(store.path, spec, append=True, metadata={"more": 1}) as writer:
        writer.add(parts[0])
    again = ShardStore.open(store.path, verify=True)
    assert len(again) == len(store) + len(parts[0])
    assert again.metadata == {"seed": 0, "more": 1}
    other = DataSpec(observations=spec.observations, action_names=("x",))
    with pytest.raises(DataError, match="holds data of another kind"):
        ShardWriter(store.path, other, append=True)


def test_blocks_must_be_alike(tmp_path: Path) -> None:
    spec, parts = blocks(1)
    writer = ShardWriter(tmp_path / "s", spec)
    writer.add(parts[0])
    without = {name: array for name, array in parts[0].data.items() if name != "values"}
    odd = Transitions(spec=spec, data=without, offsets=parts[0].offsets, slots=parts[0].slots)
    with pytest.raises(DataError, match=r"differs from the store .* in the columns \['values'\]"):
        writer.add(odd)
    writer.add(parts[0].select([]))
    writer.close()
    writer.close()
    assert len(ShardStore.open(tmp_path / "s").shards) == 1
    with pytest.raises(ConfigurationError, match="shard_bytes=0"):
        ShardWriter(tmp_path / "t", spec, shard_bytes=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        ShardWriter(tmp_path / "file" / "s", spec)


def test_an_error_while_capturing_keeps_the_sealed_shards(tmp_path: Path) -> None:
    spec, parts = blocks(2)

    def capture() -> None:
        with ShardWriter(tmp_path / "s", spec, shard_bytes=1) as writer:
            writer.add(parts[0])
            writer.add(parts[1])
            msg = "stop"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="stop"):
        capture()
    kept = ShardStore.open(tmp_path / "s", verify=True)
    assert len(kept) == 20
    assert not kept.complete


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, parts = blocks(2)
    writer = ShardWriter(tmp_path / "s", spec, shard_bytes=1)
    writer.add(parts[0])

    class Full:
        """Fails like a disk that fills up while the second tensor is written."""

        def __init__(self, stream: Any) -> None:
            self.stream, self.written = stream, 0

        def write(self, chunk: Any) -> None:
            self.written += 1
            if self.written > 3:
                raise OSError(28, "No space left on device")
            self.stream.write(chunk)

    real = atomic_open

    class Opener:
        def __init__(self, path: Path) -> None:
            self.inner = real(path)

        def __enter__(self) -> Full:
            return Full(self.inner.__enter__())

        def __exit__(self, *exc_info: Any) -> Any:
            return self.inner.__exit__(*exc_info)

    with monkeypatch.context() as patch:
        patch.setattr(tensorfile, "atomic_open", Opener)
        with pytest.raises(DataError, match="No space left on device"):
            writer.add(parts[1])
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["shard-00000.safetensors", STORE_FILE]
    assert len(ShardStore.open(tmp_path / "s", verify=True)) == 10
    writer.close()  # once there is room again, nothing is lost
    assert len(ShardStore.open(tmp_path / "s", verify=True)) == 20


_CAPTURE = """
import sys
from pathlib import Path
from townlet_training_core.rollout.service import RolloutCaptureService
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation

service = RolloutCaptureService(lambda *, num_envs=None: CountingSimulation(64, episode_ticks=7))
ticks, resume = int(sys.argv[2]), sys.argv[3] == "resume"
service.capture(CountingPolicy(), ticks=ticks, seed=0, output=Path(sys.argv[1]), shard_bytes=60_000, resume=resume)
"""


@pytest.mark.deep
def test_kill_while_capturing_keeps_every_sealed_shard(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for attempt in range(12):
        target = tmp_path / f"s{attempt}"
        process = subprocess.Popen([sys.executable, "-c", _CAPTURE, str(target), str(10**9), "anew"])
        while not (target / STORE_FILE).exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.2)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = ShardStore.open(target, verify=True)
        assert not kept.complete
        assert len(kept) > 0
        ticks = kept.column("features")[:, 2]
        np.testing.assert_array_equal(kept.column("rewards"), ticks + kept.column("actions") / 2)


@pytest.mark.deep
def test_a_capture_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    def command(name: str, mode: str) -> list[str]:
        return [sys.executable, "-c", _CAPTURE, str(tmp_path / name), "20000", mode]

    subprocess.run(command("whole", "anew"), check=True)
    target, rng, kills = tmp_path / "parts", np.random.default_rng(5), 0
    index, state = target / STORE_FILE, target / STATE_FILE
    while not (index.exists() and ShardStore.open(target).complete):
        if not state.exists():  # killed before anything could be gone on with
            shutil.rmtree(target, ignore_errors=True)
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command("parts", "resume" if before else "anew"))
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.4)))
        kills += process.poll() is None
        process.kill()
        process.wait()
    left, right = (ShardStore.open(tmp_path / name, verify=True) for name in ("whole", "parts"))
    assert kills > 3
    assert right.complete
    assert left.shards == right.shards


def break_index(store: ShardStore, **changes: Any) -> None:
    path = store.path / STORE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 9}, "schema_version 9, expected 1"),
        ({"shards": [{}]}, "is broken: KeyError"),
        ({"columns": 3}, "is broken"),
        ({"columns": {"a": {"shape": [float("inf")], "dtype": "float32"}}}, "is broken: OverflowError"),
        ({"columns": {"a": {"shape": [-1], "dtype": "float32"}}}, "describes no array"),
        ({"columns": {"a": {"shape": [1], "dtype": "object"}}}, "describes no array"),
        ({"shards": [{"file": "a", "transitions": 2**60, "trajectories": 0, "bytes": 0}]}, "is no count"),
        ({"spec": {}}, "description of the data is broken"),
    ],
)
def test_a_broken_index(store: ShardStore, changes: Any, message: str) -> None:
    break_index(store, **changes)
    with pytest.raises(DataError, match=message):
        ShardStore.open(store.path)


def test_an_index_that_is_no_object(store: ShardStore) -> None:
    for text, message in (("{", "not valid JSON"), ("[]", "expected an object")):
        (store.path / STORE_FILE).write_text(text)
        with pytest.raises(DataError, match=message):
            ShardStore.open(store.path)


def test_shards_that_are_not_what_the_index_says(store: ShardStore) -> None:
    entry = json.loads((store.path / STORE_FILE).read_text())["shards"]
    file = store.path / entry[1]["file"]
    payload = file.read_bytes()
    file.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    with pytest.raises(DataError, match="differs from its checksum"):
        ShardStore.open(store.path, verify=True)
    file.write_bytes(payload[:-1])
    with pytest.raises(DataError, match="torn or was replaced"):
        ShardStore.open(store.path)
    file.unlink()
    with pytest.raises(MissingFileError, match="does not exist"):
        ShardStore.open(store.path)
    break_index(store, shards=[entry[0] | {"file": "../x"}])
    with pytest.raises(DataError, match="is no name of a shard"):
        ShardStore.open(store.path)
    break_index(store, shards=[entry[0] | {"transitions": 11}])
    with pytest.raises(DataError, match=r"does not hold what store\.json says"):
        ShardStore.open(store.path).column("rewards")


@given(
    mutations=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), cut=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_a_mutated_shard_raises_nothing_but_typed_errors(
    tmp_path_factory: pytest.TempPathFactory, mutations: list[tuple[int, int]], cut: bool
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.safetensors"
    write_tensors(path, {"a": [np.arange(6.0)], "b": [np.zeros((2, 3), np.bool_)]}, metadata={"x": "y"})
    payload = bytearray(path.read_bytes())
    for position, value in mutations:
        payload[position % min(len(payload), 220)] = value
    path.write_bytes(payload[: mutations[0][0] % len(payload)] if cut else payload)
    try:
        tensors, _ = map_tensors(path)
    except DataError:
        return
    for array in tensors.values():
        array.sum()


@given(
    arrays=st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=4).filter(
            lambda name: name != "__metadata__"
        ),
        hnp.arrays(
            st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int16, np.uint8, np.bool_]),
            hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3),
        ),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_tensors_round_trip(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    write_tensors(path, {name: [array[:1], array[1:]] for name, array in arrays.items()})
    tensors, _ = map_tensors(path)
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_unusable_files_and_dtypes(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        map_tensors(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be mapped"):
        map_tensors(tmp_path / "empty")
    with pytest.raises(DataError, match="'a' has dtype complex128"):
        write_tensors(tmp_path / "c", {"a": [np.zeros(1, np.complex128)]})


def sample(draw: st.DrawFn, features: int, whole_map: bool, mask: bool, bootstrap: bool, quiet: bool) -> ReplaySample:
    steps = draw(st.integers(0, 4))

    def floats(*shape: int) -> Any:
        return draw(hnp.arrays(np.float32, shape))

    return ReplaySample(
        map=draw(hnp.arrays(np.uint8, (steps, 1, 2, 2))).astype(np.float32) if whole_map else floats(steps, 1, 2, 2),
        features=floats(steps, features),
        actions=np.abs(draw(hnp.arrays(np.int8, steps)).astype(np.int64)),
        old_log_probs=np.zeros(steps, np.float32) if quiet else floats(steps),
        value_preds=np.zeros(steps + bootstrap, np.float32) if quiet else floats(steps + bootstrap),
        rewards=floats(steps),
        dones=draw(hnp.arrays(np.bool_, steps)),
        metadata={"feature_names": ["x"], "agent_id": draw(st.text(max_size=3)), "nested": {"n": [1, None]}},
        extras={"action_mask": draw(hnp.arrays(np.bool_, (steps, 3)))} if mask else {},
    )


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_npz_to_store_to_npz_is_lossless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    options = data.draw(st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.booleans(), st.booleans()))
    make = st.composite(sample)(*options)
    samples = data.draw(st.lists(make, min_size=1, max_size=3))
    folder = tmp_path_factory.mktemp("convert")
    for number, item in enumerate(samples):
        save_replay_sample(item, folder / f"{number}.npz", compress=False)
    (folder / "m.json").write_text(json.dumps([f"{number}.npz" for number in range(len(samples))]))
    assert convert(folder / "m.json", folder / "store", to="shards", shard_bytes=200) == len(samples)
    assert convert(folder / "store", folder / "back", to="npz", compress=False) == len(samples)
    entries = json.loads((folder / "back" / "rollout_sample_manifest.json").read_text())["samples"]
    for item, entry in zip(samples, entries, strict=True):
        back = load_replay_sample(folder / "back" / entry["sample"], require_conflict_features=False)
        for name in ("map", "features", *TRAINING_ARRAY_FIELDS):
            left, right = getattr(item, name), getattr(back, name)
            assert left.dtype == right.dtype, name
            assert left.shape == right.shape, name
            assert left.tobytes() == right.tobytes(), name
        assert item.metadata == back.metadata
        for name, array in item.extras.items():
            np.testing.assert_array_equal(array, back.extras[name])


def test_maps_of_small_whole_numbers_are_kept_as_bytes(tmp_path: Path) -> None:
    simulation = CountingSimulation(1)
    spec = DataSpec.from_simulation(simulation.spec)
    _, (part,) = blocks(1)

    def write(name: str, value: float) -> ShardStore:
        changed = Transitions(
            spec=spec,
            data={**part.data, "map": np.full(part.data["map"].shape, value, np.float32)},
            offsets=part.offsets,
            slots=part.slots,
        )
        with ShardWriter(tmp_path / name, spec, shard_bytes=1) as writer:
            writer.add(changed)
        return ShardStore.open(tmp_path / name)

    assert write("whole", 255.0).column("map").dtype == np.uint8
    for name, value in (("half", 0.5), ("large", 256.0), ("negative", -0.0), ("nan", np.nan)):
        assert write(name, value).column("map").dtype == np.float32
    with ShardWriter(tmp_path / "half", spec, append=True) as writer:
        changed = {**part.data, "map": np.ones(part.data["map"].shape, np.float32)}
        writer.add(Transitions(spec=spec, data=changed, offsets=part.offsets, slots=part.slots))
    mixed = ShardStore.open(tmp_path / "half")
    assert mixed.column("map").dtype == np.float32
    np.testing.assert_array_equal(mixed.gather(np.array([0, 15]), ["map"])["map"][:, 0, 0, 0], [0.5, 1.0])
    assert mixed.final_observations(np.array([0])) == {}


def test_a_store_converts_into_a_store(store: ShardStore, tmp_path: Path) -> None:
    assert convert(store.path, tmp_path / "copy", to="shards") == len(store.slots)
    copy = ShardStore.open(tmp_path / "copy")
    assert len(copy.shards) == 1
    np.testing.assert_array_equal(copy.column("features"), store.column("features"))
    with pytest.raises(ConfigurationError, match="exists"):
        convert(store.path, tmp_path / "copy", to="shards")
    assert convert(store.path, tmp_path / "npz", to="npz") == len(store.slots)
    with pytest.raises(ConfigurationError, match="exists; choose another folder"):
        convert(store.path, tmp_path / "npz", to="npz")
    back = open_transitions(tmp_path / "npz")
    np.testing.assert_array_equal(back.column("features"), store.column("features"))
    one = next((tmp_path / "npz").glob("*.npz"))
    assert len(open_transitions(one).offsets) == 2


def test_what_holds_no_replay_data(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        replay_kind(tmp_path / "none")
    with pytest.raises(MissingFileError, match="holds no replay data"):
        replay_kind(tmp_path)
    with pytest.raises(MissingFileError, match="is no shard store"):
        ShardStore.open(tmp_path)


def test_stores_behind_a_url(store: ShardStore, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    remote = fsspec.filesystem("memory")
    for path in store.path.iterdir():
        remote.pipe(f"/bucket/s/{path.name}", path.read_bytes())
    local = fetch_store("memory://bucket/s", cache=tmp_path / "cache")
    np.testing.assert_array_equal(ShardStore.open(local, verify=True).column("actions"), store.column("actions"))
    remote.pipe(f"/bucket/s/{store.shards[0].file}", b"changed")
    with pytest.raises(DataError, match="differs from its checksum"):
        fetch_store("memory://bucket/s", cache=tmp_path / "third")
    with pytest.raises(DataError, match="cannot be fetched"):
        open_transitions("memory://bucket/none")
    again = fetch_store("memory://bucket/s", cache=tmp_path / "cache")  # what is there and sound is not fetched again
    assert again == local
