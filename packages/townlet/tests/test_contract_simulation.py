"""The old loop over the town, scenarios, stubs, captures."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from townlet.config import RuntimeProviderConfig, SimulationConfig
from townlet.core import policy_registry, telemetry_registry
from townlet.core.sim_loop import SimulationLoop
from townlet.core.utils import is_stub_policy, policy_provider_name, telemetry_provider_name
from townlet.dto.observations import AgentObservationDTO, ObservationEnvelope
from townlet.policy import resolve_policy_backend
from townlet.policy.fallback import StubPolicyBackend
from townlet.policy.models import torch_available
from townlet.policy.rollout import RolloutBuffer
from townlet.policy.scenario_utils import AgentIntent, ScenarioBehavior, apply_scenario, has_agents, seed_default_agents
from townlet.policy.scripted import ScriptedPolicyAdapter, get_scripted_policy
from townlet.policy.training import RolloutCaptureService, TrainingOrchestrator
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet.telemetry.fallback import StubTelemetrySink

LOGGER = "townlet.policy.training_orchestrator"


def _config(**extra: Any) -> SimulationConfig:
    flags: dict[str, Any] = {"stages": {}, "systems": {}, "training": {}}
    return SimulationConfig.model_validate({"config_id": "c", "features": flags, "rewards": {}, "seed": 3, **extra})


SHOWER: dict[str, Any] = {
    "description": "two wait for one shower",
    "objects": [{"id": "shower_1", "type": "shower", "position": [5, 5]}],
    "agents": [
        {
            "id": "ann",
            "position": [3, 3],
            "needs": {"hygiene": 0.1},
            "schedule": [{"kind": "move", "position": [9, 3]}],
        },
        {"id": "ben", "position": [3, 3], "needs": {"hygiene": 0.1}, "wallet": 1.5},
    ],
}


def test_envelope_takes_names_and_aliases() -> None:
    agent = AgentObservationDTO(agent_id="a", needs={"hunger": 0.5})
    named = ObservationEnvelope(tick=1, agents=[agent])
    aliased = ObservationEnvelope.model_validate(
        {"tick": 1, "dto_schema_version": "0.2.0", "agents": [agent], "global": {}}
    )
    assert named == aliased
    assert (named.schema_version, named.global_context.queue_metrics, named.global_context.rivalry_events) == (
        "0.2.0",
        {},
        [],
    )
    assert (named.actions, named.terminated, named.termination_reasons) == ({}, {}, {})
    assert named.model_dump(by_alias=True)["global"]["promotion_state"] is None
    with pytest.raises(ValidationError):
        named.tick = 2  # type: ignore[misc]  # frozen


def test_registries() -> None:
    registry = policy_registry()
    assert registry is policy_registry()
    assert (registry.domain, telemetry_registry().domain) == ("policy", "telemetry")
    registry.register("own", lambda **kwargs: kwargs)
    try:
        assert registry.has("own")
        assert "own" in registry._providers
        assert registry.resolve("own", backend=1) == {"backend": 1}
        assert resolve_policy_backend("own", config=2) == {"config": 2}
    finally:
        del registry._providers["own"]
    with pytest.raises(KeyError, match="unknown policy provider 'own'"):
        registry.resolve("own")
    assert isinstance(resolve_policy_backend(), StubPolicyBackend)


def test_stubs_take_everything() -> None:
    policy, sink = StubPolicyBackend(config=1, backend=2), StubTelemetrySink(config=1, publisher=2)
    assert policy.collect_trajectory(clear=True) == []
    assert policy.decide(SimpleNamespace(agents={"a": None}), 0) == {"a": {"kind": "wait"}}
    assert sink.latest_events() == []
    assert sink.publish_tick(tick=1) is None
    assert policy.anything_else(1, b=2) is None
    assert is_stub_policy(policy)
    assert is_stub_policy(object(), "stub")
    assert not is_stub_policy(object(), "scripted")
    with pytest.raises(AttributeError):
        _ = sink._private


def test_provider_names() -> None:
    loop = SimulationLoop(_config())
    assert (policy_provider_name(loop), telemetry_provider_name(loop)) == ("scripted", "stdout")
    assert policy_provider_name(SimpleNamespace(config=_config(runtime={"policy": "stub"}))) == "stub"
    assert policy_provider_name(object()) == "unknown"


def test_scripted_policies() -> None:
    policy = get_scripted_policy("idle")
    assert policy.trajectory_prefix == "idle"
    adapter = ScriptedPolicyAdapter(policy)
    assert adapter.decide(SimpleNamespace(agents={"a": None}), 3) == {"a": {"kind": "wait"}} == adapter.last_actions
    adapter.post_step({"a": 1.0}, {"a": True})
    assert adapter.last_terminated == {"a": True}
    adapter.set_policy_hash("h")
    adapter.set_anneal_ratio(0.5)
    adapter.enable_anneal_blend(True)
    assert (adapter.active_policy_hash(), adapter.current_anneal_ratio(), adapter.collect_trajectory(clear=False)) == (
        "h",
        0.5,
        [],
    )
    with pytest.raises(ValueError, match="'nobody'"):
        get_scripted_policy("nobody")


def test_schedules_are_cycled_and_others_ask_the_base() -> None:
    base = SimpleNamespace(decide=lambda world, agent_id, dto_world=None: AgentIntent(kind=f"base-{agent_id}"))
    behavior = ScenarioBehavior(base, {"a": [AgentIntent(kind="one"), AgentIntent(kind="two")]})
    assert [behavior.decide(None, "a").kind for _ in range(3)] == ["one", "two", "one"]
    assert behavior.decide(None, "b", dto_world=None).kind == "base-b"


def test_scenarios_and_default_agents_fill_an_empty_world() -> None:
    loop = SimulationLoop(_config())
    assert not has_agents(loop)
    with pytest.raises(ValueError, match="the world has no agents"):
        loop.step()
    seed_default_agents(loop)
    assert list(loop.world.agents) == ["alice", "bob"]
    assert [thing.object_type for thing in loop.world.objects.values()] == ["stove"]
    loop.reset()
    apply_scenario(loop, SHOWER)
    assert list(loop.world.agents) == ["ann", "ben"]
    assert loop.policy.behavior.schedules.keys() == {"ann"}


def test_loop_steps_the_town_and_frames_belong_together() -> None:
    loop = SimulationLoop(_config(scenario=SHOWER))
    apply_scenario(loop, SHOWER)
    seen = []
    for _ in range(8):
        artifacts = loop.step()
        seen.append({agent.agent_id: agent for agent in artifacts.envelope.agents})
        assert artifacts.rewards.keys() == {"ann", "ben"}
        assert loop.telemetry.latest_events() is not loop.telemetry.latest_events()
    frames = loop.policy.collect_trajectory(clear=True)
    assert loop.policy.collect_trajectory(clear=True) == []
    assert [frame["tick"] for frame in frames] == sorted([*range(1, 9)] * 2)
    ann = [frame for frame in frames if frame["agent_id"] == "ann"]
    keys = {
        "tick",
        "agent_id",
        "map",
        "features",
        "metadata",
        "anneal_context",
        "action",
        "action_id",
        "rewards",
        "dones",
    }
    assert all(set(frame) == keys for frame in frames)
    for frame, before in zip(ann, seen, strict=True):
        assert np.array_equal(frame["features"], before["ann"].features)
        assert np.array_equal(frame["map"], before["ann"].map)
    # She walks east by schedule: what a frame shows is where she stood before its action.
    positions = [frame["metadata"]["dto"]["position"] for frame in ann]
    assert positions[:4] == [[3.0, 3.0], [4.0, 3.0], [5.0, 3.0], [6.0, 3.0]]
    names = ann[0]["metadata"]["action_names"]
    assert [names[frame["action_id"]] for frame in ann[:3]] == ["east"] * 3
    metadata = ann[0]["metadata"]
    assert {"identity", "possessed_agents", "option_switch_counts", "anneal_ratio", "feature_names", "dto"} <= set(
        metadata
    )
    assert {"rivalry_max", "rivalry_avoid_count"} <= set(metadata["feature_names"])
    assert loop.tick == 8
    assert str(loop.policy.active_policy_hash()).startswith("scripted-")


def test_the_same_seed_captures_the_same() -> None:
    first, second = (RolloutCaptureService(_config()).capture(15, auto_seed_agents=True) for _ in range(2))
    for agent, sample in first.to_samples().items():
        assert np.array_equal(sample.features, second.to_samples()[agent].features)


def test_capture_writes_the_old_files(tmp_path: Path) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    buffer = orchestrator.capture_rollout(6, auto_seed_agents=True, output_dir=tmp_path, prefix="p", compress=False)
    assert isinstance(buffer, RolloutBuffer)
    assert len(buffer) == 12
    manifest = json.loads((tmp_path / "p_manifest.json").read_text())
    assert [set(entry) for entry in manifest] == [{"sample", "meta", "dto"}] * 2
    assert set(json.loads((tmp_path / "p_metrics.json").read_text())) == {entry["sample"] for entry in manifest}
    dataset = buffer.build_dataset()
    assert (dataset.label, dataset.rollout_ticks) == ("rollout_buffer", 6)
    assert dataset.samples[0].metadata["action_dim"] == 16


def test_capture_error_texts() -> None:
    service = RolloutCaptureService(_config())
    with pytest.raises(ValueError, match="ticks must be positive"):
        service.capture(0)
    with pytest.raises(ValueError, match="No agents available for rollout capture"):
        service.capture(3)


class _OwnersLoop:
    """The least that an owner's loop has."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.world = SimpleNamespace(agents={"alice": object()})
        self.policy: Any = SimpleNamespace(collect_trajectory=self._collect)
        self.telemetry = SimpleNamespace(latest_events=lambda: [{"event": "shared_meal"}])
        self.ticks = 0

    def _collect(self, clear: bool = True) -> list[dict[str, Any]]:
        frame = {
            "agent_id": "alice",
            "map": np.zeros((4, 5, 5)),
            "features": np.zeros(3),
            "action_id": 1,
            "rewards": [1.0],
        }
        return [{**frame, "tick": self.ticks, "dones": [False], "log_prob": -0.5}] if self.ticks else []

    def step(self) -> None:
        self.ticks += 1


def test_an_owners_loop_is_looked_up_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("townlet.core.sim_loop.SimulationLoop", _OwnersLoop)
    buffer = PolicyTrainingOrchestrator(_config()).capture_rollout(4)
    assert len(buffer) == 4
    assert buffer.build_dataset().shared_meal_count == 4
    assert buffer.to_samples()["alice"].old_log_probs.tolist() == [-0.5] * 4


def test_a_stub_policy_captures_nothing_and_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = _config()
    config.runtime.policy = RuntimeProviderConfig(provider="stub")
    monkeypatch.setattr("townlet.core.sim_loop.SimulationLoop", _OwnersLoop)
    with caplog.at_level(logging.WARNING, logger=LOGGER):
        buffer = PolicyTrainingOrchestrator(config).capture_rollout(4)
    assert buffer.is_empty()
    assert [record.name for record in caplog.records if "capture_rollout_stub_policy" in record.getMessage()] == [
        LOGGER
    ]
    with pytest.raises(ValueError, match="contains no frames"):
        buffer.build_dataset()


def test_scenario_helpers_are_looked_up_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("townlet.core.sim_loop.SimulationLoop", _OwnersLoop)
    applied: list[Any] = []
    monkeypatch.setattr("townlet.policy.scenario_utils.apply_scenario", lambda loop, scenario: applied.append(scenario))
    PolicyTrainingOrchestrator(_config(scenario={"ticks": 1})).capture_rollout(1)
    assert applied == [{"ticks": 1}]


def test_social_stages_hold_for_their_cycle_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []

    class Loop(_OwnersLoop):
        def __init__(self, config: Any) -> None:
            stages.append(config.features.stages.social_rewards)
            super().__init__(config)

    monkeypatch.setattr("townlet.core.sim_loop.SimulationLoop", Loop)
    config = _config(training={"social_reward_schedule": [{"cycle": 2, "stage": "C2"}, {"cycle": 1, "stage": "C1"}]})
    service = RolloutCaptureService(config)
    for cycle in range(4):
        service.capture(1, cycle=cycle)
    config.training.social_reward_stage_override = "C3"
    service.capture(1)
    assert stages == ["OFF", "C1", "C2", "C2", "C3"]
    assert config.features.stages.social_rewards == "OFF"


def test_an_owners_world_registers_objects_and_makes_its_own_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = SimpleNamespace(AgentSnapshot=lambda **fields: SimpleNamespace(kind="owners", **fields))
    monkeypatch.setitem(sys.modules, "townlet.world", SimpleNamespace(grid=snapshot))
    monkeypatch.setitem(sys.modules, "townlet.world.grid", snapshot)
    registered: list[dict[str, Any]] = []
    world = SimpleNamespace(agents={}, register_object=lambda **fields: registered.append(fields))
    loop = SimpleNamespace(world=world, policy=SimpleNamespace(behavior="base"))
    seed_default_agents(loop)
    assert registered == [{"object_id": "stove_1", "object_type": "stove", "position": (2, 0)}]
    assert {name: (agent.kind, agent.position) for name, agent in world.agents.items()} == {
        "alice": ("owners", (0, 0)),
        "bob": ("owners", (1, 0)),
    }
    apply_scenario(loop, SHOWER)
    assert world.agents["ben"].wallet == 1.5
    assert loop.policy.behavior.base_behavior == "base"


def test_the_town_takes_the_files_numbers(caplog: pytest.LogCaptureFixture) -> None:
    from townlet_sim.predecessor import town_config

    config = _config(
        world={"grid_size": [30, 20]},
        queue_fairness={"cooldown_ticks": 7},
        jobs={"clerk": {"start_tick": 10, "end_tick": 20, "wage_rate": 0.5}, "never": {"start_tick": 5, "end_tick": 5}},
    )
    with caplog.at_level(logging.WARNING):
        town = town_config(config.model_dump(), agents=3)
    assert (town.agents, town.map_size, town.ticks_per_day, town.queues.cooldown_ticks) == (3, 20, 1440, 7)
    assert [(job.name, job.start, job.end, job.wage) for job in town.jobs] == [("clerk", 10, 20, 0.5)]
    assert (town.needs.hunger_decay, town.rewards.social_stage) == (0.01, "OFF")
    assert "economy does not close" in caplog.text


def test_agents_on_a_taken_tile_stand_beside_it() -> None:
    loop = SimulationLoop(_config())
    apply_scenario(loop, SHOWER)
    loop.step()
    assert loop.world.agents["ben"].position != (3, 3)
    assert loop.world.agents["ben"].wallet <= 1.5


def test_far_objects_are_walked_to_and_impossible_intents_wait() -> None:
    scenario = {
        "objects": SHOWER["objects"],
        "agents": [
            {"id": "ann", "position": [1, 5], "schedule": [{"kind": "request", "object": "shower_1"}]},
            {
                "id": "ben",
                "position": [9, 9],
                "schedule": [{"kind": "chat", "target": "ann"}, {"kind": "wait", "blocked": True}],
            },
        ],
    }
    loop = SimulationLoop(_config())
    apply_scenario(loop, scenario)
    for _ in range(3):
        loop.step()
    assert loop.world.agents["ann"].position == (4, 5)
    frames = [frame for frame in loop.policy.collect_trajectory() if frame["agent_id"] == "ben"]
    assert [frame["action_id"] for frame in frames] == [0, 0, 0]
    assert frames[0]["action"] == {"kind": "chat", "target_agent": "ann"}


@pytest.mark.skipif(not torch_available(), reason="needs torch")
def test_both_orchestrators_train_on_what_they_capture(tmp_path: Path) -> None:
    log = tmp_path / "ppo.jsonl"
    record = TrainingOrchestrator(_config()).run_rollout_ppo(ticks=6, auto_seed_agents=True, log_path=log)
    assert (record.data_mode, record.rollout_ticks, record.transitions) == ("rollout", 6, 12)
    summary = PolicyTrainingOrchestrator(_config()).run_rollout_ppo(
        6, auto_seed_agents=True, output_dir=tmp_path / "out"
    )
    assert (summary["data_mode"], summary["rollout_ticks"], summary["cycle_id"]) == ("rollout", 6, 0)
    assert (tmp_path / "out" / "rollout_sample_manifest.json").is_file()
    assert json.loads(log.read_text())["loss_total"] == summary["loss_total"] == record.loss_total


@pytest.mark.skipif(not torch_available(), reason="needs torch")
def test_a_policy_trained_on_captures_acts_in_the_town() -> None:
    from townlet_training_core.policy.exported import ExportedPolicy

    record = TrainingOrchestrator(_config()).run_rollout_ppo(ticks=6, auto_seed_agents=True)
    policy = ExportedPolicy.load(Path(str(record.checkpoint)))
    loop = SimulationLoop(_config())
    seed_default_agents(loop)
    town = loop.town.batch
    policy.bind(town)
    out = town.allocate()
    town.reset(seed=5, out=out)
    rng = np.random.default_rng(0)
    for _ in range(5):
        step = policy.act({**out.observations, "action_mask": out.action_mask}, rng)
        assert all(out.action_mask[slot, action] for slot, action in enumerate(step.actions))
        town.step(step.actions, out)
