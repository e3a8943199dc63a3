"""Both orchestrators: keys, error texts, log records, state from call to call."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet.config import AnnealStage, SimulationConfig
from townlet.dto.policy import AnnealSummaryDTO, BCTrainingResultDTO, PPOTrainingResultDTO
from townlet.policy.models import torch_available
from townlet.policy.replay import ReplayDatasetConfig, ReplaySample
from townlet.policy.replay_buffer import InMemoryReplayDataset, InMemoryReplayDatasetConfig
from townlet.policy.runner import PolicyRuntime, TrainingHarness
from townlet.policy.training import TrainingOrchestrator, TrainingServices
from townlet.policy.training.contexts import AnnealContext, PPOState, TrainingContext
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet_training_core.replay.npz import save_replay_sample

needs_torch = pytest.mark.skipif(not torch_available(), reason="needs torch")

SUMMARY_KEYS = {
    "epoch",
    "updates",
    "transitions",
    "loss_policy",
    "loss_value",
    "loss_entropy",
    "loss_total",
    "clip_fraction",
    "adv_mean",
    "adv_std",
    "grad_norm",
    "kl_divergence",
    "telemetry_version",
    "lr",
    "steps",
    "adv_zero_std_batches",
    "adv_min_std",
    "clip_triggered_minibatches",
    "clip_fraction_max",
    "epoch_duration_sec",
    "data_mode",
    "cycle_id",
    "batch_entropy_mean",
    "batch_entropy_std",
    "grad_norm_max",
    "kl_divergence_max",
    "reward_advantage_corr",
    "rollout_ticks",
    "log_stream_offset",
    "queue_conflict_events",
    "queue_conflict_intensity_sum",
    "shared_meal_events",
    "late_help_events",
    "shift_takeover_events",
    "chat_success_events",
    "chat_failure_events",
    "chat_quality_mean",
}
CONFLICT_KEYS = {
    f"conflict.{name}_{part}_avg" for name in ("rivalry_max", "rivalry_avoid_count") for part in ("mean", "max")
}
BASELINE_KEYS = {
    f"baseline_{name}" for name in ("sample_count", "reward_mean", "reward_sum", "reward_sum_mean", "log_prob_mean")
}


def _config(**training: Any) -> SimulationConfig:
    features: dict[str, Any] = {"stages": {}, "systems": {}, "training": {}}
    return SimulationConfig.model_validate(
        {"config_id": "c", "features": features, "rewards": {}, "training": training}
    )


def _sample(seed: int = 0, *, steps: int = 12, recorded: bool = True, action_dim: int | None = None) -> ReplaySample:
    rng = np.random.default_rng(seed)
    features = rng.random((steps, 8), dtype=np.float32)
    metadata: dict[str, Any] = {"feature_names": ["rivalry_max", "rivalry_avoid_count", *"abcdef"]}
    if action_dim is not None:
        metadata["action_dim"] = action_dim
    return ReplaySample(
        map=rng.random((steps, 2, 5, 5), dtype=np.float32),
        features=features,
        actions=(features[:, 2] > 0.5).astype(np.int64),
        old_log_probs=np.full(steps, -math.log(2) if recorded else 0.0, np.float32),
        value_preds=np.zeros(steps + 1, np.float32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        dones=np.zeros(steps, np.bool_),
        metadata=metadata,
    )


def _memory(**counts: float) -> InMemoryReplayDataset:
    dataset = InMemoryReplayDataset(
        InMemoryReplayDatasetConfig([_sample(1), _sample(2)], rollout_ticks=12, label="memory")
    )
    for name, value in counts.items():
        setattr(dataset, name, value)
    return dataset


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for number in range(6):
        sample = _sample(number)
        sample.metadata["metrics"] = {"reward_sum": 1.0, "reward_mean": 0.5, "log_prob_mean": -0.1}
        save_replay_sample(sample, tmp_path / f"s{number}.npz")
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps([{"sample": f"s{number}.npz", "meta": f"s{number}.json"} for number in range(6)]))
    return path


def test_construction_and_attributes() -> None:
    config = _config()
    orchestrator = PolicyTrainingOrchestrator(config)
    assert orchestrator.config is config
    assert orchestrator.promotion.snapshot()["state"] == "monitoring"
    assert (orchestrator.transitions, orchestrator.trajectory, orchestrator.last_anneal_status) == ({}, [], None)
    orchestrator.set_anneal_ratio(1.5)
    assert orchestrator.current_anneal_ratio() == 1.0
    orchestrator.set_anneal_ratio(None)
    assert orchestrator.current_anneal_ratio() is None


def test_harness_is_deprecated_and_the_runtime_stands_in() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^TrainingHarness is deprecated; import PolicyTrainingOrchestrator instead\.$"
    ):
        harness = TrainingHarness(_config())
    assert harness.promotion.pass_streak == 0
    with pytest.raises(NotImplementedError, match="belongs to the Townlet simulation"):
        PolicyRuntime(config=None)


@pytest.mark.parametrize("source", ["replay", "rollout", "mixed"])
def test_run_refuses_modes_that_need_data(source: str) -> None:
    for orchestrator in (PolicyTrainingOrchestrator, TrainingOrchestrator):
        with pytest.raises(NotImplementedError, match=r"is not supported via run\(\)"):
            orchestrator(_config(source=source)).run()


def test_services_share_the_configuration_and_evaluation_is_an_extra() -> None:
    config = _config()
    services = TrainingServices.from_config(config)
    assert services.replay.config is config
    assert services.rollout.config is config
    assert services.promotion.config is config
    assert TrainingServices(services.replay, services.rollout, services.promotion).evaluation is None
    assert TrainingOrchestrator(config).context.config is config
    assert TrainingContext(config, services).metadata == {}
    assert TrainingContext.from_config(config).anneal_context is None
    assert PPOState() == PPOState(step=0, learning_rate=1e-3, log_stream_offset=0, cycle_id=-1)


def test_anneal_context_flags() -> None:
    context = AnnealContext(
        1, "ppo", "d", 0.9, 0.8, True, loss_baseline=1.0, queue_events_baseline=10.0, queue_intensity_baseline=10.0
    )
    assert context.evaluate_ppo_flags(1.05, 9, 9) == (False, False, False)
    assert context.evaluate_ppo_flags(1.2, 8, 8.4) == (True, True, True)


def test_replay_summaries(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config(replay_manifest=manifest))
    one = orchestrator.run_replay(manifest.parent / "s0.npz")
    assert "Replay sample loaded: " in capsys.readouterr().out
    conflict = {
        f"conflict.{name}_{part}" for name in ("rivalry_max", "rivalry_avoid_count") for part in ("mean", "max")
    }
    assert set(one) == {"batch", "batch_size", "feature_dim"} | conflict
    assert (one["batch"], one["batch_size"], one["feature_dim"]) == (1, 1, 8)
    dataset = orchestrator.build_replay_dataset()
    assert orchestrator.run_replay_dataset(dataset)["batch"] == len(dataset) == 6
    assert "Replay batch 6: " in capsys.readouterr().out
    pairs = [(manifest.parent / f"s{number}.npz", None) for number in range(3)]
    assert orchestrator.run_replay_batch(pairs)["batch_size"] == 3


def test_a_missing_default_manifest_is_a_file_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="replay_manifest"):
        PolicyTrainingOrchestrator(_config()).build_replay_dataset()
    with pytest.raises(FileNotFoundError):
        PolicyTrainingOrchestrator(_config()).build_replay_dataset("nowhere.json")


@needs_torch
def test_epoch_summary_has_exactly_the_contracts_keys(manifest: Path, tmp_path: Path) -> None:
    log = tmp_path / "out" / "ppo.jsonl"
    orchestrator = PolicyTrainingOrchestrator(_config())
    data = ReplayDatasetConfig.from_manifest(manifest, batch_size=2)
    summary = orchestrator.run_ppo(data, epochs=2, log_path=log)
    assert set(summary) == SUMMARY_KEYS | CONFLICT_KEYS | BASELINE_KEYS
    assert all(math.isfinite(value) for value in summary.values() if not isinstance(value, str))
    assert (summary["epoch"], summary["transitions"], summary["steps"]) == (2, 72, 144)
    assert (summary["telemetry_version"], summary["data_mode"], summary["cycle_id"]) == (1.2, "replay", 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[-1] == summary
    assert summary["updates"] == 4  # 72 transitions, mini-batches of min(32, 72 // 4) = 18


@needs_torch
def test_logs_are_sound_by_the_rules_of_the_version_they_carry(tmp_path: Path) -> None:
    from townlet.policy.training_orchestrator import PPO_TELEMETRY_VERSION
    from townlet.scripts.validate_ppo_telemetry import validate_logs

    log = tmp_path / "ppo.jsonl"
    orchestrator = PolicyTrainingOrchestrator(_config())
    orchestrator.run_ppo(in_memory_dataset=_memory(), epochs=2, log_path=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["telemetry_version"] for line in lines] == [PPO_TELEMETRY_VERSION] * 2
    (report,) = validate_logs([log], None, None, False)
    assert report.records == 2
    # The same keys under version 1.0, which did not know them, are refused; so is a line that lacks one.
    log.write_text(json.dumps({**lines[0], "telemetry_version": 1.0}) + "\n")
    with pytest.raises(ValueError, match=r"must not carry keys of version 1\.1"):
        validate_logs([log], None, None, False)
    log.write_text(json.dumps({key: value for key, value in lines[0].items() if key != "cycle_id"}) + "\n")
    with pytest.raises(ValueError, match="requires numeric keys"):
        validate_logs([log], None, None, False)


@needs_torch
def test_memory_runs_count_cycles_and_carry_events(manifest: Path) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    first = orchestrator.run_ppo(in_memory_dataset=_memory(queue_conflict_count=3.0, chat_quality_mean=0.5))
    assert set(first) == SUMMARY_KEYS | CONFLICT_KEYS
    assert (first["data_mode"], first["rollout_ticks"], first["queue_conflict_events"]) == ("rollout", 12, 3)
    second = orchestrator.run_ppo(in_memory_dataset=_memory())
    replay = orchestrator.run_ppo(ReplayDatasetConfig.from_manifest(manifest))
    mixed = orchestrator.run_ppo(ReplayDatasetConfig.from_manifest(manifest), in_memory_dataset=_memory())
    assert [row["cycle_id"] for row in (first, second, replay, mixed)] == [0, 1, 1, 2]
    assert [row["log_stream_offset"] for row in (first, second, replay, mixed)] == [1, 2, 3, 4]
    assert (mixed["data_mode"], mixed["transitions"]) == ("mixed", 72 + 24)
    assert mixed["steps"] == 24 + 24 + 72 + 96


@needs_torch
def test_log_frequency_and_rotation(tmp_path: Path) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    log = tmp_path / "ppo.jsonl"
    orchestrator.run_ppo(in_memory_dataset=_memory(), epochs=5, log_path=log, log_frequency=2, max_log_entries=1)
    assert [json.loads(path.read_text())["epoch"] for path in (log, tmp_path / "ppo.jsonl.1")] == [2, 4]
    plain = tmp_path / "plain.jsonl"
    orchestrator.run_ppo(in_memory_dataset=_memory(), epochs=2, log_path=plain, log_frequency=0, max_log_entries=0)
    orchestrator.run_ppo(in_memory_dataset=_memory(), log_path=plain)
    assert [json.loads(line)["log_stream_offset"] for line in plain.read_text().splitlines()] == [6, 7, 8]


@needs_torch
def test_unrecorded_log_probs_come_from_the_starting_policy_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = _config()
    orchestrator = PolicyTrainingOrchestrator(config)
    samples = [_sample(number, recorded=False) for number in range(2)]
    config.ppo = None
    data = InMemoryReplayDataset(InMemoryReplayDatasetConfig(samples))
    from townlet.config import PPOConfig

    config.ppo = PPOConfig(mini_batch_size=1000, num_mini_batches=1)
    for _ in range(2):
        summary = orchestrator.run_ppo(in_memory_dataset=data)
        assert summary["clip_fraction"] == 0
        assert abs(summary["kl_divergence"]) < 1e-5
    assert sum("ppo_recompute_log_probs" in record.getMessage() for record in caplog.records) == 1


@needs_torch
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "dataset_config is required when in_memory_dataset is not provided"),
        ({"in_memory_dataset": []}, "Replay dataset yielded no batches"),
        ({"in_memory_dataset": None, "dataset_config": None, "epochs": 1}, "dataset_config is required"),
    ],
)
def test_run_ppo_error_texts(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PolicyTrainingOrchestrator(_config()).run_ppo(**options)


@needs_torch
def test_nan_rewards_are_refused_and_change_nothing() -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    before = orchestrator.run_ppo(in_memory_dataset=_memory())
    dataset = _memory()
    dataset.samples[0].rewards[3] = np.nan
    with pytest.raises(ValueError, match=r"PPO advantages contained NaN/inf \(dataset=memory, batch=1\)"):
        orchestrator.run_ppo(in_memory_dataset=dataset)
    after = orchestrator.run_ppo(in_memory_dataset=_memory())
    assert after["steps"] == 2 * before["steps"]
    assert after["cycle_id"] == before["cycle_id"] + 1


@needs_torch
def test_the_largest_action_space_of_the_data_counts() -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    samples = [_sample(1, action_dim=5), _sample(2, action_dim=7)]
    orchestrator.run_ppo(in_memory_dataset=InMemoryReplayDataset(InMemoryReplayDatasetConfig(samples)))
    network = orchestrator._front.context.state.learner.network
    assert network.policy_head.out_features == 7


@needs_torch
def test_cloned_weights_flow_into_ppo_and_continue(manifest: Path) -> None:
    import torch

    orchestrator = PolicyTrainingOrchestrator(_config())
    result = orchestrator.run_bc_training(manifest=manifest)
    assert set(result) == {"loss", "accuracy", "mode", "manifest"}
    assert (result["mode"], result["manifest"]) == ("bc", str(manifest))
    learner = orchestrator._front.context.state.learner
    cloned = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    orchestrator.run_ppo(in_memory_dataset=_memory())
    moved = learner.network.state_dict()
    assert moved.keys() == cloned.keys()
    distance = max(float((moved[name] - cloned[name]).abs().max()) for name in cloned)
    assert 0 < distance < 0.05  # a few small Adam steps away from the clone, not a fresh network
    assert torch.isfinite(next(iter(moved.values()))).all()


@needs_torch
def test_anneal_runs_records_and_promotes(manifest: Path, tmp_path: Path) -> None:
    config = _config(anneal_accuracy_threshold=0.3)
    config.training.anneal_schedule = [AnnealStage(cycle=1), AnnealStage(cycle=0, mode="bc", epochs=20)]
    orchestrator = PolicyTrainingOrchestrator(config)
    for passes in (1, 2):
        results = orchestrator.run_anneal(
            dataset_config=ReplayDatasetConfig.from_manifest(manifest), log_dir=tmp_path / "log", bc_manifest=manifest
        )
        assert [row["mode"] for row in results] == ["bc", "ppo"]
        assert set(results[0]) == {"cycle", "mode", "accuracy", "loss", "threshold", "passed", "bc_weight"}
        flags = {f"anneal_{name}_flag" for name in ("loss", "queue", "intensity")}
        about = {f"anneal_{name}" for name in ("cycle", "stage", "dataset", "bc_accuracy", "bc_threshold", "bc_passed")}
        later = set() if passes == 1 else {f"anneal_{name}_baseline" for name in ("loss", "queue", "intensity")}
        keys = SUMMARY_KEYS | CONFLICT_KEYS | BASELINE_KEYS | flags | about | later | {"cycle", "mode"}
        assert set(results[1]) == keys
        assert json.loads((tmp_path / "log" / "anneal_results.json").read_text()) == results
        status = orchestrator.evaluate_anneal_results(results)
        assert orchestrator.last_anneal_status == status
        if passes == 1:
            snapshot = orchestrator.promotion.snapshot()
            assert (status, snapshot["last_result"], snapshot["pass_streak"]) == ("PASS", "pass", 1)
            assert snapshot["candidate_ready"] is False
    assert orchestrator.promotion.snapshot()["last_evaluated_tick"] == 2


@needs_torch
def test_a_failed_cloning_stage_rolls_back_and_ends_the_anneal(manifest: Path) -> None:
    config = _config(anneal_accuracy_threshold=1.0)
    config.training.bc.epochs = 1
    config.training.bc.learning_rate = 1e-6
    config.training.anneal_schedule = [AnnealStage(cycle=0, mode="bc"), AnnealStage(cycle=1)]
    orchestrator = PolicyTrainingOrchestrator(config)
    orchestrator.run_ppo(in_memory_dataset=_memory())
    learner = orchestrator._front.context.state.learner
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    results = orchestrator.run_anneal(in_memory_dataset=_memory(), bc_manifest=manifest)
    assert [(row["mode"], row["passed"], row["rolled_back"]) for row in results] == [("bc", False, True)]
    assert orchestrator.last_anneal_status == "FAIL"
    after = orchestrator._front.context.state.learner.network.state_dict()
    assert all(bool((after[name] == before[name]).all()) for name in before)


@needs_torch
def test_anneal_error_texts(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = _config()
    with pytest.raises(ValueError, match="anneal_schedule is empty"):
        PolicyTrainingOrchestrator(config).run_anneal()
    config.training.anneal_schedule = [AnnealStage()]
    with pytest.raises(ValueError, match="Replay manifest required for PPO stages in anneal"):
        PolicyTrainingOrchestrator(config).run_anneal()
    config.training.anneal_schedule = [AnnealStage(mode="bc")]
    with pytest.raises(ValueError, match="BC manifest is required"):
        PolicyTrainingOrchestrator(config).run_anneal()


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([{"mode": "bc", "passed": True}, {"mode": "ppo"}], "PASS"),
        ([{"mode": "bc", "passed": False}, {"mode": "ppo", "anneal_loss_flag": True}], "FAIL"),
        ([{"mode": "bc", "passed": True}, {"mode": "ppo", "anneal_loss_flag": True}], "HOLD"),
        ([{"mode": "ppo", "anneal_queue_flag": True}], "HOLD"),
        ([{"mode": "ppo", "anneal_intensity_flag": True}], "HOLD"),
        ([], "PASS"),
    ],
)
def test_status_of_results(results: list[dict[str, Any]], status: str) -> None:
    assert PolicyTrainingOrchestrator(_config()).evaluate_anneal_results(results) == status


@needs_torch
def test_the_new_surface_returns_records(manifest: Path) -> None:
    config = _config(anneal_accuracy_threshold=0.0)
    config.training.anneal_schedule = [AnnealStage(cycle=0, mode="bc"), AnnealStage(cycle=1)]
    config.training.bc.manifest = manifest
    config.training.source = "anneal"
    config.training.replay_manifest = manifest
    orchestrator = TrainingOrchestrator(config)
    assert isinstance(orchestrator.run_bc(), BCTrainingResultDTO)
    ppo = orchestrator.run_ppo(in_memory_dataset=_memory())
    assert isinstance(ppo, PPOTrainingResultDTO)
    assert set(ppo.__pydantic_extra__ or {}) == CONFLICT_KEYS
    summary = orchestrator.run()
    assert isinstance(summary, AnnealSummaryDTO)
    assert [stage.mode for stage in summary.stages] == ["bc", "ppo"]
    assert (summary.dataset_label, summary.status, summary.promotion_pass_streak) == ("manifest", "PASS", 1)
    assert set(summary.baselines) == {"manifest"}


@needs_torch
def test_nothing_appears_in_the_working_directory_unasked(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    orchestrator = PolicyTrainingOrchestrator(_config())
    orchestrator.run_bc_training(manifest=manifest)
    orchestrator.run_ppo(in_memory_dataset=_memory())
    assert list(empty.iterdir()) == []


@needs_torch
def test_the_same_seed_gives_the_same_numbers() -> None:
    def summaries() -> list[float]:
        orchestrator = PolicyTrainingOrchestrator(_config())
        return [orchestrator.run_ppo(in_memory_dataset=_memory(), epochs=2)["loss_total"] for _ in range(2)]

    assert summaries() == summaries()


@needs_torch
def test_a_configuration_of_the_same_shape_will_do() -> None:
    from types import SimpleNamespace

    training = SimpleNamespace(replay_manifest=None, source="replay")
    orchestrator = PolicyTrainingOrchestrator(SimpleNamespace(config_id="plain", ppo=None, training=training))
    assert orchestrator.run_ppo(in_memory_dataset=_memory())["transitions"] == 24
    assert orchestrator.promotion.snapshot()["initial_release"] == {"config_id": "plain"}


@needs_torch
def test_build_policy_network() -> None:
    import torch

    network = PolicyTrainingOrchestrator(_config()).build_policy_network(8, (4, 11, 11), 6, hidden_dim=32)
    logits, value = network(torch.zeros(3, 4, 11, 11), torch.zeros(3, 8))
    assert (tuple(logits.shape), tuple(value.shape)) == ((3, 6), (3,))
    prefixes = {name.rsplit(".", 1)[0] for name in network.state_dict()}
    assert prefixes == {"map_encoder.1", "feature_encoder.0", "shared.0", "policy_head", "value_head"}


def test_derived_contexts_share_their_state() -> None:
    context = TrainingContext.from_config(_config())
    derived = replace(context, anneal_context=AnnealContext(0, "ppo", "d", None, 0.9, False))
    assert derived.state is context.state


@needs_torch
def test_a_trained_policy_is_kept_and_acts_without_torch(manifest: Path) -> None:
    from townlet_training_core.policy.exported import ExportedPolicy

    orchestrator = TrainingOrchestrator(_config())
    cloned = orchestrator.run_bc(manifest=manifest)
    trained = orchestrator.run_ppo(in_memory_dataset=_memory())
    assert cloned.checkpoint
    assert trained.checkpoint
    assert cloned.checkpoint != trained.checkpoint
    sample = _sample(1)
    policy = ExportedPolicy.load(Path(trained.checkpoint))
    mask = np.ones((sample.timesteps, 2), np.bool_)
    values = policy.values({"map": sample.map, "features": sample.features, "action_mask": mask})
    assert values is not None
    import torch

    learner = orchestrator.context.state.learner
    with torch.inference_mode():
        _, expected = learner.network(torch.from_numpy(sample.map), torch.from_numpy(sample.features))
    assert np.allclose(values, expected.numpy(), atol=1e-5)


@needs_torch
def test_data_of_another_space_starts_anew_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    orchestrator.run_ppo(in_memory_dataset=_memory())
    wide = _sample(3, action_dim=9)
    orchestrator.run_ppo(in_memory_dataset=InMemoryReplayDataset(InMemoryReplayDatasetConfig([wide])), device_str="cpu")
    assert sum("ppo_network_replaced" in record.getMessage() for record in caplog.records) == 1


@needs_torch
def test_data_that_cannot_be_trained_on_is_refused(manifest: Path) -> None:
    orchestrator = PolicyTrainingOrchestrator(_config())
    other = _sample(3)
    other.features = np.concatenate([other.features, other.features], axis=1)
    other.metadata["feature_names"] = other.metadata["feature_names"] * 2
    mixed = InMemoryReplayDataset(InMemoryReplayDatasetConfig([_sample(1), other]))
    with pytest.raises(ValueError, match="differ in shape"):
        orchestrator.run_ppo(in_memory_dataset=mixed)
    broken = _memory()
    broken.samples[1].features[0, 3] = np.inf
    with pytest.raises(ValueError, match=r"PPO observations contained NaN/inf \(dataset=memory, batch=2\)"):
        orchestrator.run_ppo(in_memory_dataset=broken)
    meta = manifest.parent / "s0.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "action_dim": 1}))
    data = ReplayDatasetConfig(entries=[(manifest.parent / "s0.npz", None)])
    with pytest.raises(ValueError, match="outside the 1 actions"):
        orchestrator.run_ppo(data)
    with pytest.raises(ValueError, match="epochs must be positive"):
        orchestrator.run_ppo(data, epochs=0)


def test_services_summarise_datasets(manifest: Path) -> None:
    replay = TrainingServices.from_config(_config()).replay
    dataset = replay.build_dataset(manifest)
    assert replay.build_dataset(dataset) is dataset
    assert replay.summarize_dataset(dataset)["batch"] == 6
    with pytest.raises(ValueError, match="Replay dataset yielded no batches"):
        replay.summarize_dataset([])
