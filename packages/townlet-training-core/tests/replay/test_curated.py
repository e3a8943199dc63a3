"""Curations of shard stores: what is rejected, loaders do not see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.cli.app import app
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import ConfigurationError, DataError, MissingFileError, SpaceMismatchError
from townlet_training_core.replay import MiniBatches, ReplayService, ShardStore, ShardWriter, open_transitions
from townlet_training_core.replay.analysis import compare_datasets, dataset_stats
from townlet_training_core.replay.curated import CuratedStores, is_curation, read_curation
from townlet_training_core.replay.curation import audit, curate, merge, record_checksums
from townlet_training_core.replay.openers import convert, replay_kind
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions, pad_trajectories

ACTIONS = ("rest", "work", "eat")


def table(lengths: list[int], *, base: float = 0.0, logged: bool = False, **spec: Any) -> Transitions:
    """Trajectory k of length n pays k in every step and shows ``base + k + step / 100``."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in lengths)])
    shown = (base + owner + step / 100).astype(np.float32)
    observations = {
        "features": ArraySpec((2,), np.dtype(np.float32)),
        "map": ArraySpec((1, 2, 2), np.dtype(np.float32)),
    }
    described = {"observations": observations, "action_names": ACTIONS, "feature_names": ("x", "y"), **spec}
    data: dict[str, Any] = {
        "features": np.stack([shown, -shown], axis=1),
        "map": np.broadcast_to((owner % 7)[:, None, None, None], (len(owner), 1, 2, 2)).astype(np.float32),
        "actions": (step + owner) % 3,
        "rewards": owner.astype(np.float32),
        "terminated": np.zeros(len(owner), np.bool_),
        "truncated": np.zeros(len(owner), np.bool_),
    }
    if logged:
        data["log_probs"] = -shown
    last = np.arange(len(lengths), dtype=np.float32)
    return Transitions(
        spec=DataSpec(simulation=described.pop("simulation", "fake-v1"), **described),
        data=data,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        slots=np.arange(len(lengths)) % 3,
        final={"features": np.stack([last, last], axis=1), "map": np.zeros((len(lengths), 1, 2, 2), np.float32)},
    )


def write(path: Path, *parts: Transitions) -> Path:
    with ShardWriter(path, parts[0].spec, shard_bytes=1) as writer:
        for part in parts:
            writer.add(part)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six trajectories in two shards: lengths 3, 1, 4 and 2, 5, 2; rewards per step 0, 1, 2 and again."""
    return write(tmp_path / "captures" / "store", table([3, 1, 4]), table([2, 5, 2], base=10.0))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


def test_a_curation_by_hand(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "curated" / "good.json"
    report = curate(store, output, min_timesteps=2, min_reward=1.0, reject=["slot-002/000005"])
    # Rewards 0, 1, 8, 0, 5, 4: number 1 is too short, 0 and 3 earn nothing, 5 is named.
    assert (report.total, report.accepted, report.rejected) == (6, 2, 4)
    assert report.reasons == {"rejected by name": 1, "too little reward": 2, "too short": 1}
    curation = read_curation(output)
    assert curation.stores[0].accepted.tolist() == [2, 4]
    entry = curation.stores[0].trajectories[1]
    assert entry["name"] == "slot-001/000001"
    assert entry["metrics"] == {"timesteps": 1.0, "reward_sum": 1.0, "mean_reward": 1.0, "done_count": 0.0}
    assert entry["reasons"] == ["too short: 1 of 2 steps"]
    assert json.loads(output.read_text())["stores"][0]["store"] == "../captures/store"
    data = open_transitions(output)
    assert isinstance(data, CuratedStores)
    assert data.offsets.tolist() == [0, 4, 9]
    np.testing.assert_allclose(data.column("features")[:, 0], [2, 2.01, 2.02, 2.03, 11, 11.01, 11.02, 11.03, 11.04])
    assert data.slots.tolist() == [2, 1]
    assert data.trajectory_ids.tolist() == [0] * 4 + [1] * 5
    np.testing.assert_array_equal(data.final_observations(np.array([1, 0]))["features"][:, 0], [1, 2])
    assert data.final_observations(np.array([], np.int64))["features"].shape == (0, 2)
    # The store itself is as it was.
    assert len(ShardStore.open(store, verify=True)) == 17


def test_every_loader_leaves_the_rejected_out(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "good_manifest.json"
    curate(store, output, min_timesteps=4)
    data = open_transitions(output)
    drawn = [row for batch in MiniBatches(data, batch_size=2, seed=0).epoch(0) for row in batch["features"][:, 0]]
    np.testing.assert_allclose(sorted(drawn), data.column("features")[:, 0])
    assert pad_trajectories(data).valid.sum() == 9
    service = ReplayService(TrainingConfig())
    assert len(service.transitions(output)) == 9
    assert replay_kind(tmp_path / "good_manifest.json") == ("curation", output)
    with pytest.raises(DataError, match="is a curation of shard stores: open it by transitions"):
        service.dataset(output)
    assert convert(output, tmp_path / "npz", to="npz") == 2
    assert convert(output, tmp_path / "shards", to="shards") == 2
    for copy in (tmp_path / "npz", tmp_path / "shards"):
        again = open_transitions(copy)
        np.testing.assert_array_equal(again.column("features"), data.column("features"))
        np.testing.assert_array_equal(again.column("actions"), data.column("actions"))
    stats = dataset_stats(output)
    assert (stats.total.samples, stats.total.steps, stats.rejected) == (2, 9, 4)
    assert stats.total.reward_sum == 13.0
    assert [group.name for group in stats.agents] == ["slot 001", "slot 002"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_curated_table_is_the_selection(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("stores")
    parts = [
        table(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)), base=100.0 * number)
        for number in range(3)
    ]
    paths = [write(folder / "a", *parts[:2]), write(folder / "b", parts[2])]
    wholes = [Transitions.concatenate(parts[:2]), parts[2]]
    chosen = [np.array(sorted(data.draw(st.sets(st.integers(0, len(whole.slots) - 1)))), np.int64) for whole in wholes]
    expected = Transitions.concatenate(
        [whole.select(some.tolist()) for whole, some in zip(wholes, chosen, strict=True)]
    )
    opened = CuratedStores(
        [(ShardStore.open(path), some) for path, some in zip(paths, chosen, strict=True)], label="both"
    )
    np.testing.assert_array_equal(opened.offsets, expected.offsets)
    np.testing.assert_array_equal(opened.slots, expected.slots)
    rows = np.array(data.draw(st.lists(st.integers(0, max(0, len(expected) - 1)), max_size=12)), np.int64)
    for indices in (np.arange(len(expected)), rows if len(expected) else np.empty(0, np.int64)):
        found, wanted = opened.gather(indices), expected.gather(indices)
        assert set(found) == set(wanted)
        for name, column in wanted.items():
            np.testing.assert_array_equal(found[name], column, err_msg=name)
    every = np.arange(len(expected.slots))
    for name, column in expected.final_observations(every).items():
        np.testing.assert_array_equal(opened.final_observations(every)[name], column)
    blocks = list(opened.blocks())
    if blocks:
        joined = Transitions.concatenate(blocks)
        for name, column in expected.data.items():
            np.testing.assert_array_equal(joined.data[name], column, err_msg=name)
            assert joined.data[name].dtype == column.dtype


def test_stores_are_merged_without_copying(store: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", table([3], base=50.0, simulation="fake-v2"))
    curate(store, tmp_path / "long.json", min_timesteps=3)  # 0, 2 and 4
    curate(store, tmp_path / "paid.json", min_timesteps=1, min_reward=4.0)  # 2, 4 and 5
    report = merge([tmp_path / "long.json", tmp_path / "paid.json", other], tmp_path / "both.json")
    assert (report.total, report.accepted, report.rejected) == (7, 5, 2)
    assert report.reasons == {"listed more than once": 2}
    data = open_transitions(tmp_path / "both.json")
    np.testing.assert_allclose(data.column("features")[data.offsets[:-1], 0], [0, 2, 11, 12, 50])
    assert data.spec.simulation is None  # the stores come from two
    assert data.spec.action_names == ACTIONS
    # A curation of the merge rejects further, and keeps what was rejected before.
    again = curate(tmp_path / "both.json", tmp_path / "again.json", min_timesteps=4)
    assert (again.total, again.accepted) == (5, 2)
    assert read_curation(tmp_path / "again.json").total == 7
    comparison = compare_datasets(store, tmp_path / "again.json")
    assert comparison.samples == (6, 2)


def test_columns_that_one_store_lacks_are_absent(tmp_path: Path) -> None:
    with_logs, without = write(tmp_path / "a", table([2, 2], logged=True)), write(tmp_path / "b", table([2]))
    merge([with_logs, without], tmp_path / "m.json")
    assert "log_probs" not in open_transitions(tmp_path / "m.json").columns
    assert "log_probs" in open_transitions(with_logs).columns
    with pytest.raises(DataError, match="no column 'log_probs'"):
        open_transitions(tmp_path / "m.json").column("log_probs")


def test_what_does_not_belong_together_is_not_merged(store: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", table([2], action_names=("rest", "work", "chat")))
    with pytest.raises(SpaceMismatchError, match="has other action names"):
        merge([store, other], tmp_path / "m.json")
    convert(store, tmp_path / "npz", to="npz")
    with pytest.raises(ConfigurationError, match="bring both into one form"):
        merge([store, tmp_path / "npz"], tmp_path / "m.json")
    with pytest.raises(ConfigurationError, match="at least two"):
        merge([store], tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_rows_that_no_loader_could_use_are_rejected(tmp_path: Path) -> None:
    bad = table([2, 2, 2])
    bad.data["rewards"][0] = np.nan
    bad.data["actions"][2] = 9
    path = write(tmp_path / "bad", bad)
    with pytest.raises(DataError, match="curate"):
        dataset_stats(path)
    report = curate(path, tmp_path / "good.json", min_timesteps=1, accept=["*"])
    assert report.reasons == {"unreadable": 2}
    assert dataset_stats(tmp_path / "good.json").total.samples == 1
    curate(path, tmp_path / "none.json", min_timesteps=100)
    with pytest.raises(DataError, match="no trajectories that are accepted"):
        open_transitions(tmp_path / "none.json")


def test_a_store_that_grew_since_is_refused(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "good.json"
    curate(store, output, min_timesteps=2)
    with ShardWriter(store, table([3]).spec, append=True) as writer:
        writer.add(table([3]))
    with pytest.raises(DataError, match=r"changed since .* curate again"):
        open_transitions(output)
    with pytest.raises(DataError, match="curate again"):
        curate(output, tmp_path / "again.json")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 9},
        {"stores": []},
        {"stores": [{"store": "x"}]},
        {"stores": 3},
        {"metadata": 3},
    ],
)
def test_a_broken_curation_is_named(store: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    output = tmp_path / "good.json"
    curate(store, output, min_timesteps=2)
    output.write_text(json.dumps({**json.loads(output.read_text()), **change}))
    assert is_curation(output)
    with pytest.raises(DataError, match=r"good\.json.* is not a sound curation"):
        open_transitions(output)
    with pytest.raises(MissingFileError):
        read_curation(tmp_path / "absent.json")
    assert not is_curation(tmp_path / "absent.json")


def test_nothing_is_written_over_what_is_read(store: Path, tmp_path: Path) -> None:
    before = (store / "store.json").read_bytes()
    output = tmp_path / "good.json"
    curate(store, output, min_timesteps=2)
    for source, target in ((store, store / "store.json"), (output, output)):
        with pytest.raises(ConfigurationError, match="write to another file"):
            curate(source, target)
    assert (store / "store.json").read_bytes() == before


def test_an_audit_finds_every_changed_byte(store: Path, tmp_path: Path) -> None:
    output, versions = tmp_path / "good.json", tmp_path / "data" / "versions.json"
    curate(store, output, min_timesteps=2)
    assert record_checksums(versions, "raw", store) == 6
    assert record_checksums(versions, "good", output) == 6
    report = audit(versions)
    assert [(item.name, item.status, item.sample_count) for item in report.datasets] == [
        ("raw", "PASS", 6),
        ("good", "PASS", 6),
    ]
    payload = output.read_text()
    output.write_text(payload.replace('"accepted": false', '"accepted": true'))
    assert [item.status for item in audit(versions).datasets] == ["PASS", "FAIL"]
    output.write_text(payload)
    shard = store / "shard-00001.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    failed = audit(versions)
    assert [item.status for item in failed.datasets] == ["FAIL", "FAIL"]
    assert "shard-00001.safetensors: was changed" in failed.datasets[0].findings[0]
    shard.unlink()
    assert audit(versions).failures == 2


def test_the_commands(store: Path, tmp_path: Path) -> None:
    good, versions = tmp_path / "good.json", tmp_path / "versions.json"
    done = invoke("curate", store, "-o", good, "--min-timesteps", 2, "--reject", "slot-000/*", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["accepted"] == 3
    shown = invoke("stats", good, "--plot", tmp_path / "a.png")
    assert "3 rejected entries were left out" in shown.output
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert invoke("compare", store, good, "--plot", tmp_path / "d.png").exit_code == 0
    assert invoke("audit", versions, "--record", f"good={good}").exit_code == 0
    merged = invoke("merge", store, good, "-o", tmp_path / "m.json")
    assert "6 samples in" in merged.output
    exported = invoke("export", good, tmp_path / "good.parquet")
    assert exported.exit_code == 0, exported.output
    inspected = json.loads(invoke("inspect", good, "--verify", "--json").output)
    assert (inspected["kind"], inspected["trajectories"]) == ("curation", 3)
    (store / "shard-00000.safetensors").write_bytes(b"torn")
    for arguments in (["stats", good], ["inspect", good], ["curate", store, "-o", tmp_path / "n.json"]):
        assert invoke(*arguments).exit_code == 2
    assert invoke("audit", versions).exit_code == 1
