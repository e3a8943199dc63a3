"""Checkpoints: whole or not there, torn ones detected, the right ones kept."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from townlet_training_core.config.models import NetworkConfig
from townlet_training_core.errors import CheckpointError
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.testing.counting import CountingSimulation
from townlet_training_torch.checkpoint import CheckpointStore, Snapshot, find_checkpoint, point_latest, read_snapshot
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.seeding import global_generators, restore_global_generators, torch_generator


def _snapshot(step: int) -> Snapshot:
    network = build_network(
        describe(CountingSimulation().spec, NetworkConfig(hidden_dim=4)), generator=torch_generator(step, "s")
    )
    return Snapshot(
        step=step,
        tensors={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        description=network.description,
        optimizer={"optimizer/policy_head.bias/exp_avg": np.arange(3, dtype=np.float32)},
        rollout={"collector/flags": np.array([True, False]), "counter": np.array(7, np.uint64)},
        state={"steps": 12.5},
    )


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, stage="01-ppo")
    snapshot = _snapshot(3)
    folder = store.save(snapshot, score=1.5)
    assert folder.name == "00000003-01-ppo"
    found = read_snapshot(folder)
    assert found.step == 3
    assert found.state["steps"] == 12.5
    for part in ("tensors", "optimizer", "rollout"):
        expected, given_back = getattr(snapshot, part), getattr(found, part)
        assert expected.keys() == given_back.keys()
        for name, array in expected.items():
            assert array.dtype == given_back[name].dtype
            assert array.shape == given_back[name].shape
            assert (array == given_back[name]).all()
    assert (
        ExportedPolicy.load(tmp_path).content_hash() == ExportedPolicy(found.tensors, found.description).content_hash()
    )
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"MANIFEST.json"}
    assert manifest["versions"]["torch"] == torch.__version__


def test_last_and_best_are_kept_and_stages_are_left_alone(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, stage="00-bc").save(_snapshot(1))
    store = CheckpointStore(tmp_path, stage="01-ppo", keep_last=2, keep_best=1)
    for step, score in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
        store.save(_snapshot(step), score=score)
    assert [path.name for path in store.folders()] == ["00000002-01-ppo", "00000004-01-ppo", "00000005-01-ppo"]
    assert (tmp_path / "00000001-00-bc").is_dir()
    assert (tmp_path / "latest").read_text() == "00000005-01-ppo\n"
    assert not list(tmp_path.glob(".writing-*"))


def test_without_scores_only_the_last_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=0)
    for step in range(4):
        store.save(_snapshot(step), score=float(-step))
    assert [path.name for path in store.folders()] == ["00000002", "00000003"]


@pytest.mark.parametrize("name", ["policy.safetensors", "policy.json", "optimizer.safetensors", "rollout.safetensors",
    "state.json", "MANIFEST.json"])  # fmt: skip
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_checkpoint_torn_at_any_byte_is_detected_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, data: st.DataObject
) -> None:
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    (tmp_path / "c").mkdir()
    store = CheckpointStore(tmp_path / "c")
    store.save(_snapshot(1))
    torn = store.save(_snapshot(2)) / name
    payload = torn.read_bytes()
    length = data.draw(st.integers(0, len(payload) - 2))
    torn.write_bytes(payload[:length])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = store.newest()
    assert found is not None
    assert found.step == 1
    assert "trying the one before" in caplog.text
    with pytest.raises(CheckpointError):
        read_snapshot(torn.parent)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_detected(tmp_path: Path, position: int) -> None:
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    (tmp_path / "c").mkdir()
    path = CheckpointStore(tmp_path / "c").save(_snapshot(1)) / "policy.safetensors"
    payload = bytearray(path.read_bytes())
    payload[position % len(payload)] ^= 1
    path.write_bytes(payload)
    with pytest.raises(CheckpointError, match="torn or was changed"):
        read_snapshot(path.parent)
    with pytest.raises(CheckpointError, match="torn or was changed"):
        ExportedPolicy.load(path.parent)


def test_a_torn_checkpoint_is_written_again_and_a_sound_one_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    folder = store.save(_snapshot(1))
    (folder / "state.json").write_text("{")
    store.save(_snapshot(1))
    assert read_snapshot(folder).step == 1
    before = (folder / "MANIFEST.json").stat().st_mtime_ns
    store.save(_snapshot(1))
    assert (folder / "MANIFEST.json").stat().st_mtime_ns == before


def test_what_a_kill_in_the_middle_of_a_save_leaves_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(_snapshot(1))
    half = tmp_path / ".writing-00000002"
    half.mkdir()
    (half / "policy.json").write_text("{}")
    found = store.newest()
    assert found is not None
    assert found.step == 1
    assert store.save(_snapshot(2)).is_dir()
    assert not half.exists()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = CheckpointStore(tmp_path).save(_snapshot(1))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        read_snapshot(folder)


def test_latest_may_name_an_older_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    first = store.save(_snapshot(1))
    store.save(_snapshot(2))
    point_latest(first)
    assert find_checkpoint(tmp_path) == first


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no policy"):
        find_checkpoint(tmp_path)
    assert CheckpointStore(tmp_path / "nowhere").newest() is None


def test_global_generators_are_put_back() -> None:
    import random

    saved: dict[str, Any] = global_generators()
    expected = (random.random(), random.gauss(0, 1), torch.rand(2).tolist())
    restore_global_generators(saved)
    assert (random.random(), random.gauss(0, 1), torch.rand(2).tolist()) == expected
