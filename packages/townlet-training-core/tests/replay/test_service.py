"""The replay service and the openers: one door, whatever the data is stored in."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.config.models import TrainingConfig, TrainingSettings
from townlet_training_core.errors import ConfigurationError, DataError, MissingDependencyError, MissingFileError
from townlet_training_core.replay.convert import samples_from_transitions, transitions_from_samples
from townlet_training_core.replay.dataset import (
    InMemoryReplayDataset,
    InMemoryReplayDatasetConfig,
    ReplayDataset,
    ReplayDatasetConfig,
)
from townlet_training_core.replay.npz import save_replay_sample
from townlet_training_core.replay.openers import convert, open_transitions, write_samples
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.service import ReplayService, summarize_dataset, summarize_pairs
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions


def sample(steps: int = 2, **changes: Any) -> ReplaySample:
    fields: dict[str, Any] = {
        "map": np.ones((steps, 1, 2, 2), np.float32),
        "features": np.full((steps, 2), 0.5, np.float32),
        "actions": np.arange(steps),
        "old_log_probs": np.full(steps, -1, np.float32),
        "value_preds": np.ones(steps + 1, np.float32),
        "rewards": np.ones(steps, np.float32),
        "dones": np.zeros(steps, np.bool_),
        "metadata": {"feature_names": ["rivalry_max", "rivalry_avoid_count"], "agent_id": "al/ice"},
    }
    return ReplaySample(**(fields | changes))


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    write_samples([sample(2), sample(3)], tmp_path / "captures", metadata={"seed": 1})
    return tmp_path / "captures"


def service(manifest: Path | None = None) -> ReplayService:
    return ReplayService(TrainingConfig(training=TrainingSettings(replay_manifest=manifest)))


def test_a_source_is_what_is_named_or_configured(captures: Path) -> None:
    manifest = captures / "rollout_sample_manifest.json"
    assert service(manifest).resolve() == manifest
    assert service(Path("elsewhere")).resolve(captures) == manifest
    with pytest.raises(ConfigurationError, match="no replay data: name a manifest"):
        service().resolve()
    with pytest.raises(MissingFileError, match="'elsewhere' does not exist"):
        service(Path("elsewhere")).resolve()


def test_every_form_opens_as_transitions(captures: Path, tmp_path: Path) -> None:
    convert(captures, tmp_path / "store", to="shards")
    one = next(iter(sorted(captures.glob("*.npz"))))
    assert one.name == "rollout_sample_al_ice_000.npz"
    for source, rows in (
        (captures, 5),
        (tmp_path / "store", 5),
        (one, 2),
        (captures / "rollout_sample_manifest.json", 5),
    ):
        assert len(service().transitions(source)) == rows
    assert open_transitions(captures).spec.action_dim == 3


def test_every_form_of_files_opens_as_batches(captures: Path, tmp_path: Path) -> None:
    one = next(iter(sorted(captures.glob("*.npz"))))
    assert len(service().dataset(captures)) == 2
    assert service().dataset(captures).label == "captures"
    assert service(captures / "rollout_sample_manifest.json").dataset().label == "rollout_sample_manifest"
    assert service().dataset(one, batch_size=4, streaming=True).config.streaming
    convert(captures, tmp_path / "store", to="shards")
    with pytest.raises(DataError, match="is a shard store: open it by transitions"):
        service().dataset(tmp_path / "store")


def test_a_folder_with_another_prefix_or_several_manifests(captures: Path, tmp_path: Path) -> None:
    write_samples([sample()], tmp_path / "other", metadata={}, prefix="night")
    assert len(service().transitions(tmp_path / "other")) == 2
    (tmp_path / "other" / "second_manifest.json").write_text("[]")
    with pytest.raises(MissingFileError, match="found 2 manifests"):
        service().resolve(tmp_path / "other")


def test_summaries(captures: Path) -> None:
    dataset = ReplayDataset(ReplayDatasetConfig.from_capture_dir(captures))
    summary = summarize_dataset(dataset)
    assert summary["batch"] == len(dataset) == 2
    assert summary["feature_dim"] == 2
    assert summary["conflict.rivalry_max_mean"] == 0.5
    one = next(iter(sorted(captures.glob("*.npz"))))
    assert summarize_pairs([(one, None), (one, None)])["batch_size"] == 2
    empty = InMemoryReplayDataset(InMemoryReplayDatasetConfig(entries=[sample()], batch_size=2, drop_last=True))
    with pytest.raises(DataError, match="Replay dataset yielded no batches"):
        summarize_dataset(empty)


def test_urls_need_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"townlet-training-core\[remote\]"):
        service().transitions(Path("memory://x"))
    with pytest.raises(MissingDependencyError, match=r"townlet-training-core\[remote\]"):
        open_transitions("s3://bucket/store")


def test_observations_beyond_map_and_features_travel_too(tmp_path: Path) -> None:
    spec = DataSpec(
        observations={"state": ArraySpec((3,), np.dtype(np.float32))}, action_names=("a", "b"), simulation="x"
    )
    table = Transitions(
        spec=spec,
        data={
            "state": np.arange(6, dtype=np.float32).reshape(2, 3),
            "actions": np.array([1, 0]),
            "rewards": np.ones(2, np.float32),
            "terminated": np.array([False, False]),
            "truncated": np.array([False, True]),
        },
        offsets=np.array([0, 2]),
        slots=np.array([4]),
        final={"state": np.full((1, 3), 9, np.float32)},
    )
    write_samples(samples_from_transitions(table), tmp_path / "npz", metadata={})
    convert(tmp_path / "npz", tmp_path / "store", to="shards")
    for source in (tmp_path / "npz", tmp_path / "store"):
        back = open_transitions(source)
        assert back.spec.observations == spec.observations
        assert back.spec.action_names == spec.action_names
        np.testing.assert_array_equal(back.column("state"), table.column("state"))
        np.testing.assert_array_equal(back.column("truncated"), [False, True])
        np.testing.assert_array_equal(back.final_observations(np.array([0]))["state"], [[9, 9, 9]])


@pytest.mark.parametrize(
    "change",
    [
        {"value_pred_steps": 9},
        {"dones": "<U9"},
        {"dones": 3},
        {"hidden_dtypes": {"value_preds": "<f4"}, "value_shape": [10**9]},
        {"extras": ["none"]},
        {"map": None},
    ],
)
def test_tampered_records_are_refused(change: dict[str, Any]) -> None:
    table = transitions_from_samples([sample()])
    tampered = Transitions(
        spec=table.spec,
        data=table.data,
        offsets=table.offsets,
        slots=table.slots,
        records=({**table.records[0], **change},),
        label="t",
    )
    with pytest.raises(DataError, match="trajectory 0 of 't' cannot be restored"):
        list(samples_from_transitions(tampered))


def test_nothing_to_convert(tmp_path: Path) -> None:
    save_replay_sample(sample(), tmp_path / "a.npz")
    (tmp_path / "m.json").write_text(json.dumps({"samples": [{"sample": "a.npz", "accepted": False}]}))
    with pytest.raises(DataError, match="no entries that are accepted"):
        convert(tmp_path / "m.json", tmp_path / "store", to="shards")
    assert not (tmp_path / "store").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        convert(tmp_path / "a.npz", tmp_path / "file" / "npz", to="npz")
