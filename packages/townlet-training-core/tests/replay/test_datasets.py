"""Manifests and datasets of whole trajectories."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from townlet_training_core.errors import ConfigurationError, DataError, MissingFileError
from townlet_training_core.replay import dataset as dataset_module
from townlet_training_core.replay.dataset import (
    InMemoryReplayDataset,
    InMemoryReplayDatasetConfig,
    ReplayDataset,
    ReplayDatasetConfig,
)
from townlet_training_core.replay.manifest import load_bc_samples, load_manifest, write_manifest
from townlet_training_core.replay.npz import load_replay_sample, save_replay_sample
from townlet_training_core.replay.sample import ReplaySample


def sample(value: float, steps: int = 3) -> ReplaySample:
    return ReplaySample(
        map=np.full((steps, 1, 2, 2), value, np.float32),
        features=np.full((steps, 2), value, np.float32),
        actions=np.zeros(steps, np.int64),
        old_log_probs=np.full(steps, -value, np.float32),
        value_preds=np.zeros(steps + 1, np.float32),
        rewards=np.full(steps, value, np.float32),
        dones=np.zeros(steps, np.bool_),
        metadata={"feature_names": ["rivalry_max", "rivalry_avoid_count"], "metrics": {"reward_sum": value * steps}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, steps in enumerate([3, 3, 5, 3, 3]):
        save_replay_sample(sample(number, steps), tmp_path / f"s{number}.npz", compress=False)
    return tmp_path


def manifest(folder: Path, payload: Any, name: str = "m.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(payload) if name.endswith("json") else yaml.safe_dump(payload))
    return path


@pytest.mark.parametrize("name", ["m.json", "m.yaml", "m.yml"])
@pytest.mark.parametrize("wrap", [False, True])
def test_both_shapes_in_both_formats(folder: Path, name: str, wrap: bool) -> None:
    entries = ["s0.npz", {"sample": "s1.npz", "meta": "s1.json", "metrics": {"a": 1}}]
    payload = {"metadata": {"seed": 1}, "samples": entries} if wrap else entries
    loaded = load_manifest(manifest(folder, payload, name))
    assert loaded.pairs() == [(folder / "s0.npz", None), (folder / "s1.npz", folder / "s1.json")]
    assert loaded.metadata == ({"seed": 1} if wrap else {})


def test_json_lines_are_read_too(folder: Path) -> None:
    path = folder / "m.jsonl"
    path.write_text('{"sample": "s0.npz"}\n\n"s1.npz"\n')
    assert len(load_manifest(path).entries) == 2


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"x": 1}, "missing 'samples' list"),
        ({"samples": "s0.npz"}, "missing 'samples' list"),
        ("s0.npz", "must be a list or a mapping"),
        ([], "contains no entries"),
        ({"samples": []}, "contains no entries"),
        ([{"meta": "s0.json"}], "Manifest entry missing 'sample' field"),
        ([3], "Manifest entry missing 'sample' field"),
        ([{"sample": 3}], "expected a path"),
        ([{"sample": "a\0b"}], "expected a path"),
        ([{"sample": "x" * 5000}], "no usable path"),
        ([{"sample": "s0.npz", "accepted": False}], "no entries that are accepted"),
    ],
)
def test_bad_manifests(folder: Path, payload: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_manifest(manifest(folder, payload))


@pytest.mark.parametrize(("name", "text"), [("m.json", "[1,"), ("m.yaml", "a: [")])
def test_manifests_that_cannot_be_parsed(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        load_manifest(folder / name)


def test_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    nested = folder / "nested"
    nested.mkdir()
    monkeypatch.chdir(folder)
    payload = [str(folder / "s0.npz"), "../s1.npz", "s2.npz"]  # absolute, upwards, from the working directory
    loaded = load_manifest(manifest(nested, payload))
    assert [path.resolve() for path, _ in loaded.pairs()] == [folder / f"s{n}.npz" for n in range(3)]
    with pytest.raises(MissingFileError, match=r"entry 0: 'gone.npz' does not exist; looked for .*nested") as caught:
        load_manifest(manifest(nested, ["gone.npz"]))
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(FileNotFoundError, match=r"none.json"):
        load_manifest(folder / "none.json")
    with caplog.at_level(logging.WARNING):
        assert len(load_manifest(manifest(folder, ["s0.npz", "s0.npz"])).entries) == 2
    assert "more than once" in caplog.text


def test_rejected_entries_are_skipped_with_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    payload = [{"sample": f"s{n}.npz", "accepted": n == 1} for n in range(3)]
    with caplog.at_level(logging.INFO):
        loaded = load_manifest(manifest(folder, payload))
    assert [path.name for path, _ in loaded.pairs()] == ["s1.npz"]
    assert loaded.rejected == 2
    assert len(caplog.records) == 1


def test_a_written_manifest_is_read(folder: Path) -> None:
    write_manifest(folder / "w.json", [{"sample": Path("s0.npz")}], metadata={"seed": np.int64(3)})
    loaded = load_manifest(folder / "w.json")
    assert loaded.metadata == {"seed": 3}
    assert loaded.pairs() == [(folder / "s0.npz", None)]


def test_batches_never_mix_shapes(folder: Path) -> None:
    config = ReplayDatasetConfig.from_manifest(manifest(folder, [f"s{n}.npz" for n in range(5)]), batch_size=2)
    dataset = ReplayDataset(config)
    assert config.label == "m"
    batches = list(dataset)
    assert len(dataset) == len(batches) == 3
    assert [batch.rewards.shape for batch in batches] == [(2, 3), (2, 3), (1, 5)]
    config.drop_last = True
    assert [batch.rewards.shape for batch in ReplayDataset(config)] == [(2, 3), (2, 3)]
    assert dataset.baseline_metrics["reward_sum"] == 3 * (0 + 1 + 3 + 4) + 10
    assert dataset.baseline_metrics["sample_count"] == 5


@pytest.mark.parametrize("streaming", [False, True])
def test_every_pass_is_shuffled_anew_and_can_be_resumed(folder: Path, streaming: bool) -> None:
    entries: list[tuple[Path, Path | None]] = [(folder / f"s{n}.npz", None) for n in (0, 1, 3, 4)]
    config = ReplayDatasetConfig(entries=entries, shuffle=True, seed=3, streaming=streaming)

    def values(batches: Any) -> list[float]:
        return [float(batch.rewards[0, 0]) for batch in batches]

    dataset = ReplayDataset(config)
    passes = [values(dataset) for _ in range(4)]
    assert all(sorted(one) == [0, 1, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    again = ReplayDataset(config)
    assert values(again) == passes[0]
    iterator = iter(again)
    assert values([next(iterator), next(iterator)]) == passes[1][:2]
    resumed = ReplayDataset(config)
    resumed.seek(again.position)
    assert values(resumed) == passes[1][2:]
    assert values(resumed) == passes[2]


def test_streaming_reads_each_file_once_a_pass_and_keeps_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    load = load_replay_sample

    def counting(path: Path, *args: Any, **kwargs: Any) -> ReplaySample:
        reads.append(path.name)
        return load(path, *args, **kwargs)

    monkeypatch.setattr(dataset_module, "load_replay_sample", counting)
    entries: list[tuple[Path, Path | None]] = [(folder / f"s{n}.npz", None) for n in range(5)]
    for streaming, expected in ((True, 10), (False, 5)):
        reads.clear()
        dataset = ReplayDataset(ReplayDatasetConfig(entries=entries, batch_size=2, streaming=streaming))
        for _ in range(2):
            assert len(list(dataset)) == 3
        assert len(reads) == expected


def test_errors_of_a_prefetched_batch_reach_the_reader(folder: Path) -> None:
    entries: list[tuple[Path, Path | None]] = [(folder / f"s{n}.npz", None) for n in (0, 1)]
    dataset = ReplayDataset(ReplayDatasetConfig(entries=entries, streaming=True))
    (folder / "s1.npz").write_bytes(b"torn")
    iterator = iter(dataset)
    next(iterator)
    with pytest.raises(DataError, match=r"s1.npz"):
        next(iterator)


def test_capture_directories(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"rollout_sample_manifest.json"):
        ReplayDatasetConfig.from_capture_dir(folder)
    manifest(folder, {"samples": ["s0.npz"]}, "rollout_sample_manifest.json")
    config = ReplayDatasetConfig.from_capture_dir(folder)
    assert config.label == folder.name
    assert config.metrics_map is None
    for payload in ({"metadata": {}, "samples": {"s0.npz": {"x_sum": 5}}}, {"s0.npz": {"x_sum": 5}}):
        manifest(folder, payload, "rollout_sample_metrics.json")
        dataset = ReplayDataset(ReplayDatasetConfig.from_capture_dir(folder))
        assert dataset.metrics_map == {"s0.npz": {"x_sum": 5}}
        assert dataset.baseline_metrics == {"sample_count": 1, "x_sum": 5, "x_sum_mean": 5}
    for text, message in (("{", "not valid JSON"), ("[]", "expected a mapping")):
        (folder / "rollout_sample_metrics.json").write_text(text)
        with pytest.raises(DataError, match=message):
            ReplayDatasetConfig.from_capture_dir(folder)


def test_bad_configurations(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="batch_size must be positive"):
        ReplayDataset(ReplayDatasetConfig(entries=[(folder / "s0.npz", None)], batch_size=0))
    with pytest.raises(DataError, match="no entries"):
        ReplayDataset(ReplayDatasetConfig(entries=[]))
    with pytest.raises(FileNotFoundError):
        ReplayDataset(ReplayDatasetConfig(entries=[(folder / "gone.npz", None)]))


def test_in_memory() -> None:
    dataset = InMemoryReplayDataset(
        InMemoryReplayDatasetConfig(entries=[sample(1), sample(2, 4), sample(3)], batch_size=2, rollout_ticks=7)
    )
    assert len(dataset) == 2
    assert [batch.rewards[:, 0].tolist() for batch in dataset] == [[1, 3], [2]]
    assert dataset.rollout_ticks == 7
    assert dataset.baseline_metrics == {}
    assert dataset.chat_quality_mean == 0
    with pytest.raises(DataError, match="In-memory dataset requires samples"):
        InMemoryReplayDataset(InMemoryReplayDatasetConfig(entries=[]))
    with pytest.raises(ConfigurationError, match="batch_size must be positive"):
        InMemoryReplayDataset(InMemoryReplayDatasetConfig(entries=[sample(1)], batch_size=0))


def test_bc_samples(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = manifest(folder, [{"sample": "s0.npz"}, {"sample": "gone.npz"}, {"sample": "s1.npz", "accepted": False}])
    with caplog.at_level(logging.WARNING):
        assert [item.rewards[0] for item in load_bc_samples(path)] == [0]
    assert "gone.npz" in caplog.text
    with pytest.raises(ValueError, match="BC manifest must be a list"):
        load_bc_samples(manifest(folder, {"x": 1}))
    for payload in ([], ["gone.npz"]):
        with pytest.raises(ValueError, match="BC manifest contained no valid samples"):
            load_bc_samples(manifest(folder, payload))
    with pytest.raises(FileNotFoundError):
        load_bc_samples(folder / "none.json")
