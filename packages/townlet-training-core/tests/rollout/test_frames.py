"""Frames of loops that drive their own policy: buffer, files, trajectory service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_training_core.errors import DataError
from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import transitions_from_rollout
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.rollout.frames import (
    FrameRolloutBuffer,
    build_dto_rollout_artifact,
    frames_from_transitions,
)
from townlet_training_core.rollout.trajectory import TrajectoryService
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation


def frame(agent: str, tick: int, **changes: Any) -> dict[str, Any]:
    return {
        "tick": tick,
        "agent_id": agent,
        "map": np.zeros((4, 4, 1), np.float32),
        "features": np.array([0.1, 0.2], np.float32),
        "action": {"kind": "wait"},
        "action_id": 0,
        "rewards": [1.0],
        "dones": [False],
        "metadata": {"feature_names": ["rivalry_max", "rivalry_avoid_count"], "dto": {"schema_version": "0.2.0"}},
        "position": (1, 2),
        **changes,
    }


def filled() -> FrameRolloutBuffer:
    buffer = FrameRolloutBuffer()
    buffer.extend([frame("bob", 1), frame("alice", 1), frame("bob", 2, dones=[True])])
    return buffer


def test_frames_by_agent() -> None:
    buffer = filled()
    assert len(buffer) == 3
    assert not buffer.is_empty()
    rollouts = buffer.by_agent()
    assert list(rollouts) == ["bob", "alice"]
    sample = rollouts["bob"].to_replay_sample()
    assert sample.map.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(sample.dones, [False, True])
    assert set(buffer.to_samples()) == {"bob", "alice"}


def test_saved_files_and_their_shapes(tmp_path: Path) -> None:
    filled().save(tmp_path / "out", prefix="p")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        *("p_alice_002.json", "p_alice_002.npz", "p_alice_002_dto.json"),
        *("p_bob_001.json", "p_bob_001.npz", "p_bob_001_dto.json"),
        *("p_manifest.json", "p_metrics.json"),
    ]
    manifest = json.loads((tmp_path / "out" / "p_manifest.json").read_text())
    assert manifest[0] == {"sample": "p_bob_001.npz", "meta": "p_bob_001.json", "dto": "p_bob_001_dto.json"}
    metrics = json.loads((tmp_path / "out" / "p_metrics.json").read_text())
    assert metrics["p_bob_001.npz"]["timesteps"] == 2
    metadata = json.loads((tmp_path / "out" / "p_bob_001.json").read_text())
    assert metadata["agent_id"] == "bob"
    assert metadata["frame_count"] == 2
    assert metadata["metrics"] == metrics["p_bob_001.npz"]
    artifact = json.loads((tmp_path / "out" / "p_bob_001_dto.json").read_text())
    assert (artifact["tick_first"], artifact["tick_last"], artifact["schema_version"]) == (1, 2, "0.2.0")
    assert artifact["frames"][0]["position"] == [1, 2]
    assert load_replay_sample(tmp_path / "out" / "p_bob_001.npz").timesteps == 2
    dataset = ReplayDataset(ReplayDatasetConfig.from_manifest(tmp_path / "out" / "p_manifest.json"))
    assert dataset.baseline_metrics["reward_sum"] == 3


def test_the_prefix_of_captures_makes_a_capture_directory(tmp_path: Path) -> None:
    filled().save(tmp_path)
    config = ReplayDatasetConfig.from_capture_dir(tmp_path)
    assert config.metrics_map is not None
    assert len(config.entries) == 2


def test_events_are_counted_with_their_fields() -> None:
    buffer = filled()
    buffer.record_events(
        [
            {"event": "queue_conflict", "intensity": 1.5},
            {"event": "queue_conflict", "intensity": 2.0},
            {"type": "shared_meal"},
            {"event": "employment_helped_when_late"},
            {"event": "employment_took_my_shift"},
            {"event": "chat_success", "quality": 0.5},
            {"event": "chat_success", "quality": 1.0},
            {"event": "chat_failure"},
            {"event": "queue_interaction"},
            {},
        ]
    )
    buffer.set_tick_count(5)
    dataset = buffer.build_dataset(batch_size=2)
    assert dataset.label == "rollout_buffer"
    assert dataset.rollout_ticks == 5
    assert dataset.queue_conflict_count == 2
    assert dataset.queue_conflict_intensity_sum == 3.5
    assert dataset.shared_meal_count == 1
    assert dataset.late_help_count == 1
    assert dataset.shift_takeover_count == 1
    assert dataset.chat_success_count == 2
    assert dataset.chat_failure_count == 1
    assert dataset.chat_quality_mean == 0.75
    assert dataset.baseline_metrics == {}


def test_what_is_empty_or_mixed_is_refused() -> None:
    assert FrameRolloutBuffer().is_empty()
    with pytest.raises(DataError, match="Rollout buffer contains no frames; cannot build dataset"):
        FrameRolloutBuffer().build_dataset()
    with pytest.raises(ValueError, match="frames cannot be empty"):
        build_dto_rollout_artifact([])
    with pytest.raises(ValueError, match="mixed agent identifiers"):
        build_dto_rollout_artifact([frame("a", 0), frame("b", 0)])
    assert filled().by_agent()["bob"].to_dto_artifact()["frame_count"] == 2


@dataclass
class Agent:
    agent_id: str
    map: Any = None
    features: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    position: Any = None
    needs: Any = None
    wallet: Any = None
    pending_intent: Any = None


@dataclass
class Global:
    anneal_context: dict[str, Any]


@dataclass
class Envelope:
    agents: list[Agent]
    schema_version: str = "0.2.0"
    global_context: Any = None


def test_a_tick_becomes_frames() -> None:
    service = TrajectoryService()
    service.begin_tick(7)
    entry = service.record_action("bob", {"kind": "move"}, 3)
    entry["log_prob"] = -0.5
    service.append_reward("bob", 0.25, True)
    service.append_reward("alice", 0.5, False)
    assert set(service.transitions) == {"alice", "bob"}
    envelope = Envelope(
        agents=[
            Agent("alice", map=1, features=2),
            Agent("bob", metadata={"x": 1}, position=(1, 2), wallet=3, pending_intent={"active": False, "kind": "x"}),
        ],
        global_context=Global({"cycle": 1}),
    )
    frames = service.flush_transitions(envelope=envelope)
    assert [item["agent_id"] for item in frames] == ["alice", "bob"]
    alice, bob = frames
    assert (alice["tick"], alice["map"], alice["features"], alice["action"]) == (7, 1, 2, None)
    assert bob["action_id"] == 3
    assert bob["rewards"] == [0.25]
    assert bob["dones"] == [True]
    assert bob["log_prob"] == -0.5
    assert bob["anneal_context"] == {"cycle": 1}
    dto = bob["metadata"]["dto"]
    assert dto["schema_version"] == "0.2.0"
    assert dto["pending_intent"] == {"active": False, "kind": "x"}
    assert dto["position"] == [1.0, 2.0]
    assert isinstance(dto["wallet"], float)
    assert "needs" not in dto
    assert service.transitions == {}
    assert service.trajectory == []
    service.extend_trajectory(frames)
    assert service.collect_trajectory(clear=False) == frames
    assert service.collect_trajectory() == frames
    assert service.collect_trajectory() == []
    service.append_reward("bob", 1.0, False)
    service.reset_state()
    assert service.transitions == {}


def test_columns_can_be_seen_as_frames() -> None:
    simulation = CountingSimulation(2, episode_ticks=3)
    collector = RolloutCollector(simulation, CountingPolicy(), steps=4, seed=0)
    table = transitions_from_rollout(collector.collect(), DataSpec.from_simulation(simulation.spec))
    frames = list(frames_from_transitions(table, [0]))
    assert [item["tick"] for item in frames] == [0, 1, 2]
    assert frames[0]["agent_id"] == "slot_0"
    assert frames[2]["dones"] == [True]
    assert [item["log_prob"] for item in frames] == [-0.125, -0.25, -0.375]
    buffer = FrameRolloutBuffer()
    buffer.extend(frames)
    sample = buffer.to_samples()["slot_0"]
    np.testing.assert_array_equal(sample.features, table.column("features")[:3])
    np.testing.assert_array_equal(sample.value_preds, [0, 1, 2, 3])
    assert sample.metadata["action_dim"] == 3
    assert sample.metadata["simulation"] == "counting-v1"
    assert len(list(frames_from_transitions(table))) == len(table)
