"""The promotion record keeps the keys and the transitions that existing tools read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from townlet_training_core.config.models import PromotionConfig, TrainingConfig
from townlet_training_core.errors import ArtifactError
from townlet_training_core.promotion.manager import HISTORY_LIMIT, PromotionManager, PromotionServiceAdapter

KEYS = {
    "state",
    "pass_streak",
    "required_passes",
    "candidate_ready",
    "candidate_ready_tick",
    "last_result",
    "last_evaluated_tick",
    "current_release",
    "initial_release",
    "candidate",
    "history",
}


def old_config(**extra: Any) -> SimpleNamespace:
    promotion = SimpleNamespace(required_passes=3, window_ticks=1000, allowed_alerts=())
    return SimpleNamespace(config_id="v1", stability=SimpleNamespace(promotion=promotion), **extra)


def ready(manager: PromotionManager, *, tick: int = 5) -> None:
    manager.update_from_metrics(
        {
            "promotion": {
                "pass_streak": 3,
                "required_passes": 3,
                "candidate_ready": True,
                "last_result": "pass",
                "last_evaluated_tick": tick,
            }
        },
        tick=tick,
    )


def test_a_new_record_monitors_the_initial_release() -> None:
    snapshot = PromotionManager(old_config(policy_hash="abc")).snapshot()
    assert set(snapshot) == KEYS
    assert snapshot["state"] == "monitoring"
    assert snapshot["required_passes"] == 3
    assert snapshot["current_release"] == snapshot["initial_release"] == {"config_id": "v1", "policy_hash": "abc"}
    assert snapshot["candidate"] is None
    assert snapshot["history"] == []


@pytest.mark.parametrize(
    ("config", "passes", "config_id"),
    [
        (old_config(), 3, "v1"),
        (TrainingConfig(config_id="c", promotion=PromotionConfig(required_passes=4)), 4, "c"),
        (PromotionConfig(required_passes=5), 5, "default"),
        (SimpleNamespace(), 2, "default"),
    ],
)
def test_any_shape_of_configuration_will_do(config: Any, passes: int, config_id: str) -> None:
    snapshot = PromotionManager(config).snapshot()
    assert snapshot["required_passes"] == passes
    assert snapshot["initial_release"] == {"config_id": config_id}


def test_a_candidate_becomes_ready_and_falls_back() -> None:
    manager = PromotionManager(old_config())
    ready(manager, tick=5)
    assert (manager.state, manager.candidate_ready, manager.pass_streak) == ("ready", True, 3)
    ready(manager, tick=9)
    assert manager.snapshot()["candidate_ready_tick"] == 5
    manager.update_from_metrics({"promotion": {"pass_streak": 0, "last_result": "fail"}}, tick=10)
    assert (manager.state, manager.candidate_ready, manager.pass_streak) == ("monitoring", False, 0)
    assert manager.snapshot()["last_result"] == "fail"
    assert manager.snapshot()["candidate_ready_tick"] is None


def test_metrics_without_a_promotion_block_change_nothing() -> None:
    manager = PromotionManager(old_config())
    ready(manager)
    before = manager.snapshot()
    manager.update_from_metrics({"other": 1}, tick=6)
    manager.update_from_metrics({"promotion": None}, tick=6)
    assert manager.snapshot() == before


def test_promotion_takes_the_candidates_metadata_and_clears_the_streak() -> None:
    manager = PromotionManager(old_config())
    ready(manager)
    manager.set_candidate_metadata({"policy_hash": "new"})
    manager.mark_promoted(tick=6)
    snapshot = manager.snapshot()
    assert snapshot["state"] == "promoted"
    assert snapshot["current_release"] == {"config_id": "v1", "policy_hash": "new"}
    assert (snapshot["pass_streak"], snapshot["candidate_ready"], snapshot["candidate"]) == (0, False, None)
    assert snapshot["history"] == [
        {
            "event": "promoted",
            "tick": 6,
            "metadata": {"policy_hash": "new"},
            "previous_release": {"config_id": "v1"},
            "release": {"config_id": "v1", "policy_hash": "new"},
        }
    ]
    manager.update_from_metrics({"promotion": {"candidate_ready": False}}, tick=7)
    assert manager.state == "promoted"
    ready(manager, tick=8)
    assert manager.state == "ready"


def test_rollback_goes_to_the_release_before_the_latest_promotion() -> None:
    manager = PromotionManager(old_config())
    manager.register_rollback(tick=1)
    assert manager.snapshot()["current_release"] == {"config_id": "v1"}
    manager.mark_promoted(tick=2, metadata={"policy_hash": "a"})
    manager.mark_promoted(tick=3, metadata={"policy_hash": "b", "config_id": "v2"})
    manager.register_rollback(tick=4)
    assert manager.state == "monitoring"
    assert manager.snapshot()["current_release"] == {"config_id": "v1", "policy_hash": "a"}
    manager.register_rollback(tick=5, metadata={"policy_hash": "z"})
    assert manager.snapshot()["current_release"] == {"config_id": "v1", "policy_hash": "z"}


def test_a_manual_swap_returns_the_snapshot() -> None:
    manager = PromotionManager(old_config())
    snapshot = manager.record_manual_swap(tick=3, metadata={"policy_hash": "m", "reason": "hotfix"})
    assert snapshot == manager.snapshot()
    assert snapshot["history"][-1]["event"] == "policy_swap"
    assert snapshot["current_release"]["policy_hash"] == "m"


def test_the_log_has_one_line_per_event_and_the_snapshot_the_last_fifty(tmp_path: Path) -> None:
    log = tmp_path / "new" / "promotion.jsonl"
    manager = PromotionManager(old_config(), log_path=log)
    for tick in range(HISTORY_LIMIT + 3):
        manager.mark_promoted(tick=tick, metadata={"policy_hash": str(tick)})
    manager.register_rollback(tick=99)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == HISTORY_LIMIT + 4
    assert lines[0]["state"] == "promoted"
    assert lines[-1]["state"] == "monitoring"
    assert lines[-1]["event"] == "rollback"
    history = manager.snapshot()["history"]
    assert len(history) == HISTORY_LIMIT
    assert {**history[-1], "state": "monitoring"} == lines[-1]


def test_state_survives_export_and_import() -> None:
    manager = PromotionManager(old_config())
    ready(manager)
    manager.mark_promoted(tick=6, metadata={"policy_hash": "a"})
    manager.set_candidate_metadata({"policy_hash": "b"})
    exported = json.loads(json.dumps(manager.export_state()))
    other = PromotionManager(PromotionConfig())
    other.import_state(exported)
    assert other.export_state() == manager.export_state()
    exported["history"].clear()
    assert other.snapshot()["history"]
    other.reset()
    assert other.snapshot()["state"] == "monitoring"


@pytest.mark.parametrize("payload", [{"state": "flying"}, {"pass_streak": "many"}, {"history": [3]}, None])
def test_an_import_that_fails_changes_nothing(payload: Any) -> None:
    manager = PromotionManager(old_config())
    ready(manager)
    before = manager.snapshot()
    with pytest.raises(ArtifactError, match="not an exported promotion state"):
        manager.import_state(payload)
    assert manager.snapshot() == before


def test_the_adapter_counts_passes_in_a_row() -> None:
    adapter = PromotionServiceAdapter(TrainingConfig())
    assert (adapter.pass_streak, adapter.eval_counter) == (0, 0)
    results = [{"mode": "bc", "cycle": 0}, {"mode": "ppo", "cycle": 1, "loss_total": 0.1}]
    first = adapter.record_evaluation(status="PASS", results=results)
    assert first == {
        "pass_streak": 1,
        "required_passes": 2,
        "candidate_ready": False,
        "last_result": "pass",
        "last_evaluated_tick": 1,
    }
    assert adapter.manager.snapshot()["candidate"] is None
    assert adapter.record_evaluation(status="PASS", results=results)["candidate_ready"] is True
    assert adapter.manager.state == "ready"
    assert adapter.manager.snapshot()["candidate"] == {"status": "PASS", "mode": "ppo", "cycle": 1}
    third = adapter.record_evaluation(status="HOLD", results=[])
    assert (third["pass_streak"], third["last_result"], adapter.eval_counter) == (0, "fail", 3)
    assert adapter.manager.state == "monitoring"


def test_the_adapter_can_be_told() -> None:
    manager = PromotionManager(old_config())
    adapter = PromotionServiceAdapter(old_config(), promotion_manager=manager)
    metrics = adapter.record_evaluation(status="FAIL", results=[], pass_streak=7, candidate_ready=True)
    assert (metrics["pass_streak"], metrics["candidate_ready"]) == (7, True)
    assert adapter.manager is manager
    assert manager.state == "ready"
    adapter.set_candidate_metadata({"policy_hash": "x"})
    assert manager.snapshot()["candidate"] == {"policy_hash": "x"}
