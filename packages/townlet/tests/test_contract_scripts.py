"""The old scripts: flags, functions, files, exit codes; and the old workflow from end to end."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from townlet.config import SimulationConfig
from townlet.policy.models import torch_available
from townlet.policy.replay import ReplayDataset, ReplayDatasetConfig
from townlet.scripts import promotion_evaluate, run_anneal_rehearsal, run_training
from townlet.scripts.cli import app, script_names
from townlet.scripts.validate_ppo_telemetry import validate_logs
from townlet_training_core.cli.flags import parser, run

needs_torch = pytest.mark.skipif(not torch_available(), reason="needs torch")

SCRIPTS = [
    *("audit_bc_datasets", "bc_metrics_summary", "capture_rollout", "capture_rollout_suite", "capture_scripted"),
    *("curate_trajectories", "merge_rollout_metrics", "ppo_telemetry_plot", "promotion_drill", "promotion_evaluate"),
    *("run_anneal_rehearsal", "run_mixed_soak", "run_replay", "run_training", "validate_ppo_telemetry"),
]

FLAGS = {
    "run_training": """--mode --replay-sample --replay-meta --replay-manifest --capture-dir --replay-batch-size
    --replay-shuffle --replay-seed --replay-drop-last --replay-streaming --bc-manifest --anneal-log-dir
    --anneal-exit-on-failure --train-ppo --rollout-save-dir --rollout-ticks --rollout-auto-seed-agents --epochs
    --ppo-log --ppo-log-frequency --ppo-log-max-entries --device --ppo-learning-rate --ppo-clip-param
    --ppo-value-loss-coef --ppo-entropy-coef --ppo-num-epochs --ppo-mini-batch-size --ppo-num-mini-batches
    --ppo-gae-lambda --ppo-gamma --ppo-max-grad-norm --ppo-value-clip --ppo-normalize-advantages
    --ppo-no-normalize-advantages""",
    "capture_rollout": "--output --ticks --prefix --auto-seed-agents --agent-id --compress",
    "capture_rollout_suite": "--ticks --output-root --auto-seed-agents --agent-filter --compress --retries",
    "merge_rollout_metrics": "--golden --output --include --allow-template --dry-run",
    "capture_scripted": "--scenario --ticks --output --tags",
    "curate_trajectories": "--output --min-timesteps --min-reward",
    "promotion_evaluate": "--input --summary --format --dry-run",
    "promotion_drill": "--config --output --checkpoint",
    "run_mixed_soak": """--baseline-dir --output-dir --cycles --epochs --rollout-ticks --replay-batch-size
    --rollout-batch-size --log-frequency""",
    "run_replay": "--meta --telemetry --validate",
    "ppo_telemetry_plot": "--show --output",
    "audit_bc_datasets": "--versions --exit-on-failure",
    "bc_metrics_summary": "--format",
}

CONFIG: dict[str, Any] = {
    "config_id": "base",
    "seed": 7,
    "features": {"stages": {"social_rewards": "C1"}, "systems": {"lifecycle": "on"}, "training": {"curiosity": "off"}},
    "rewards": {},
    "training": {"anneal_schedule": [{"cycle": 0, "mode": "bc"}, {"cycle": 1, "mode": "ppo", "epochs": 2}]},
}
SCENARIO = {
    "description": "queue",
    "ticks": 12,
    "objects": [{"id": "shower_1", "type": "shower", "position": [5, 5]}],
    "agents": [{"id": "ann", "position": [4, 4]}, {"id": "ben", "position": [4, 5]}],
}


def _call(name: str, arguments: str) -> int:
    return int(importlib.import_module(f"townlet.scripts.{name}").main(shlex.split(arguments)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "queue.yaml").write_text(yaml.safe_dump({**CONFIG, "config_id": "queue", "scenario": SCENARIO}))
    return tmp_path


def test_every_script_is_a_module_and_a_command() -> None:
    assert script_names() == SCRIPTS
    names = {command.name for command in app.registered_commands}
    assert names == {name.replace("_", "-") for name in SCRIPTS}


def test_the_package_registers_the_scripts_as_a_command() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["townlet.commands"]["legacy"].partition(":")
    assert getattr(importlib.import_module(module), name) is app


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _call(name, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [flag for flag in FLAGS[name].split() if flag not in shown] == []


def test_the_flag_language() -> None:
    made = parser(
        "", "config:path extra:str? --ticks:int=100 --output:path! --tags:str* --fast --mode:a|b=a --on/--off"
    )
    args = made.parse_args(["c.yaml", "--output", "o", "--tags", "x", "y"])
    assert vars(args) == {
        "config": Path("c.yaml"),
        "extra": None,
        "ticks": 100,
        "output": Path("o"),
        "tags": ["x", "y"],
        "fast": False,
        "mode": "a",
        "on": None,
    }
    assert made.parse_args(["c.yaml", "--output", "o", "--off"]).on is False
    with pytest.raises(SystemExit):
        made.parse_args(["c.yaml"])


def test_ppo_overrides() -> None:
    flags = "--ppo-learning-rate 0.01 --ppo-gamma 0.5 --ppo-mini-batch-size 8 --ppo-no-normalize-advantages"
    args = parser("", run_training._FLAGS).parse_args(["c.yaml", *flags.split()])
    overrides = run_training._collect_ppo_overrides(args)
    assert overrides == {
        "learning_rate": 0.01,
        "gamma": 0.5,
        "mini_batch_size": 8,
        "advantage_normalization": False,
    }
    config: Any = SimulationConfig.model_validate(CONFIG)
    run_training._apply_ppo_overrides(config, {})
    assert config.ppo is None
    run_training._apply_ppo_overrides(config, overrides)
    before: Any = config.ppo
    run_training._apply_ppo_overrides(config, {"gamma": 0.6})
    after: Any = config.ppo
    assert (after.gamma, after.learning_rate, before.gamma) == (0.6, 0.01, 0.5)
    assert run_training._collect_ppo_overrides(argparse.Namespace(ppo_clip_param=0.3)) == {"clip_param": 0.3}


def test_run_training_refuses_two_sources_and_an_empty_world(place: Path) -> None:
    with pytest.raises(ValueError, match="Specify either --capture-dir or --replay-manifest, not both"):
        _call("run_training", "base.yaml --mode replay --capture-dir a --replay-manifest b")
    with pytest.raises(ValueError, match="--rollout-auto-seed-agents"):
        _call("run_training", "base.yaml --mode rollout --rollout-ticks 3")


def test_without_torch_the_script_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("townlet.policy.models.torch_available", lambda: False)
    for start in (run_training.main, lambda argv: run(run_training.main, argv)):
        with pytest.raises(SystemExit, match=r"PyTorch not installed: .*install"):
            start(["base.yaml", "--mode", "bc"])
    with pytest.raises(SystemExit, match="error: "):
        run(run_training.main, ["base.yaml", "--mode", "replay"])


ANNEAL_PASS = [{"cycle": 0, "mode": "bc", "passed": True}, {"cycle": 1, "mode": "ppo"}]
ANNEAL_FLAGS = [
    {"cycle": 0, "mode": "bc", "passed": False},
    {"cycle": 1, "mode": "ppo", "anneal_loss_flag": True, "anneal_queue_flag": True, "anneal_intensity_flag": True},
]


@pytest.mark.parametrize(
    ("payload", "status", "decision", "reasons", "code"),
    [
        ({"bc_accuracy": 0.95, "bc_threshold": 0.9, "bc_passed": True}, "pass", "PROMOTE", [], 0),
        ({"bc_accuracy": 0.5, "bc_threshold": 0.9, "bc_passed": False}, "fail", "HOLD", ["bc_stage_failed_cycle_0"], 1),
        ({"status": "PASS", "promotion": {"candidate_ready": True}, "results": ANNEAL_PASS}, "pass", "PROMOTE", [], 0),
        ({"status": "PASS", "promotion": {}, "results": ANNEAL_PASS}, "pass", "HOLD", ["candidate_not_ready"], 1),
        (
            {"status": "FAIL", "promotion": {}, "results": ANNEAL_FLAGS},
            "fail",
            "FAIL",
            [
                "bc_stage_failed_cycle_0",
                "loss_flag_cycle_1",
                "queue_flag_cycle_1",
                "intensity_flag_cycle_1",
                "candidate_not_ready",
            ],
            2,
        ),
        (ANNEAL_PASS, "pass", "HOLD", ["candidate_not_ready"], 1),
    ],
)
def test_promotion_evaluate(
    payload: Any,
    status: str,
    decision: str,
    reasons: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = promotion_evaluate.evaluate(payload)
    assert set(outcome) == {"status", "decision", "candidate_ready", "promotion", "results", "reasons"}
    assert (outcome["status"], outcome["decision"], outcome["reasons"]) == (status, decision, reasons)
    source = tmp_path / "summary.json"
    source.write_text(json.dumps(payload))
    assert _call("promotion_evaluate", f"--input {source}") == code
    assert json.loads(capsys.readouterr().out) == outcome
    monkeypatch.setattr(sys, "stdin", io.StringIO(source.read_text()))
    assert _call("promotion_evaluate", "--format human --dry-run") == 0
    assert f"Decision: {decision}" in capsys.readouterr().out
    assert _call("promotion_evaluate", f"--input {source} --summary {source}") == 2


def test_evaluate_summary_speaks_in_upper_case() -> None:
    summary = {"status": "PASS", "results": ANNEAL_PASS, "promotion": {"candidate_ready": True}, "bc_passed": True}
    merged = run_anneal_rehearsal.evaluate_summary(summary)
    assert (merged["status"], merged["decision"], merged["bc_passed"]) == ("PASS", "PROMOTE", True)


def test_bc_metrics_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps([{"accuracy": 0.5}, {"accuracy": 1.0}]))
    assert _call("bc_metrics_summary", str(path)) == 0
    assert json.loads(capsys.readouterr().out) == {"count": 2, "mean_accuracy": 0.75, "min_accuracy": 0.5}
    assert _call("bc_metrics_summary", f"{path} --format markdown") == 0
    assert "| mean_accuracy | 0.7500 |" in capsys.readouterr().out


def test_promotion_drill(place: Path) -> None:
    assert _call("promotion_drill", "--config base.yaml --output drill --checkpoint base.yaml") == 0
    summary = json.loads((place / "drill" / "promotion_drill_summary.json").read_text())
    assert set(summary) == {"config", "checkpoint", "initial", "promote", "rollback", "history"}
    assert summary["promote"]["promoted"] is True
    assert summary["rollback"]["rolled_back"] is True
    assert [event["event"] for event in summary["history"]] == ["promoted", "rollback"]


def test_torch_free_half_of_the_old_workflow(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("capture_scripted", "base.yaml --scenario idle --ticks 12 --output bc --tags one two") == 0
    assert sorted(path.name for path in (place / "bc").iterdir()) == [
        "idle_alice.json",
        "idle_alice.npz",
        "idle_bob.json",
        "idle_bob.npz",
    ]
    metadata = json.loads((place / "bc" / "idle_alice.json").read_text())
    assert (metadata["tags"], metadata["scenario"], metadata["agent_id"]) == (["one", "two"], "idle", "alice")
    assert set(metadata["quality_metrics"]) == {"reward_sum", "timesteps"}
    assert {"trajectory_id", "map_shape"} <= set(metadata)
    capsys.readouterr()
    assert _call("curate_trajectories", "bc --output curated.json --min-timesteps 10") == 0
    assert json.loads(capsys.readouterr().out) == {"total": 2, "accepted": 2, "rejected": 0}
    assert _call("curate_trajectories", "curated.json --output strict.json --min-timesteps 13") == 0
    rejected = json.loads((place / "strict.json").read_text())
    assert [set(entry) for entry in rejected] == [{"sample", "meta", "metrics", "accepted"}] * 2
    assert [entry["accepted"] for entry in rejected] == [False, False]
    assert set(rejected[0]["metrics"]) == {"timesteps", "reward_sum", "mean_reward", "done_count"}
    assert _call("capture_rollout", "queue.yaml --output captures/queue --ticks 99 --compress") == 0
    manifest = json.loads((place / "captures/queue/rollout_sample_manifest.json").read_text())
    assert set(manifest["metadata"]) == {
        "config_path",
        "config_id",
        "scenario_name",
        "scenario_description",
        "ticks",
        "seed",
        "policy_hash",
        "capture_timestamp",
    }
    assert (manifest["metadata"]["ticks"], manifest["metadata"]["scenario_name"]) == (12, "queue")
    assert [set(entry) for entry in manifest["samples"]] == [{"sample", "meta", "agent_id", "frame_count"}] * 2
    metrics = json.loads((place / "captures/queue/rollout_sample_metrics.json").read_text())
    assert set(metrics) == {"metadata", "samples"}
    sidecar = json.loads((place / "captures/queue" / manifest["samples"][0]["meta"]).read_text())
    assert {"agent_id", "frame_count", "capture_metadata", "metrics"} <= set(sidecar)
    assert _call("merge_rollout_metrics", "captures --golden golden.json") == 0
    assert json.loads((place / "golden.json").read_text()) == {"queue": metrics["samples"]}
    capsys.readouterr()
    assert _call("run_replay", "captures/queue/rollout_sample_ann_001.npz --validate") == 0
    assert "Sample validation successful." in capsys.readouterr().out
    assert (
        _call("run_training", "base.yaml --mode replay --replay-sample captures/queue/rollout_sample_ann_001.npz") == 0
    )
    assert "Replay sample loaded: " in capsys.readouterr().out
    assert _call("run_training", "base.yaml --mode replay --capture-dir captures/queue") == 0
    assert "Replay batch 2: " in capsys.readouterr().out
    dataset = ReplayDataset(ReplayDatasetConfig.from_capture_dir(place / "captures/queue"))
    assert dataset.baseline_metrics["sample_count"] == 2


@needs_torch
def test_training_half_of_the_old_workflow(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _call("capture_scripted", "base.yaml --ticks 12 --output bc")
    _call("curate_trajectories", "bc --output curated.json")
    _call("capture_rollout", "queue.yaml --output captures/queue")
    capsys.readouterr()
    assert _call("run_training", "base.yaml --mode bc --bc-manifest curated.json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"loss", "accuracy", "mode", "manifest"}
    ppo = "base.yaml --mode replay --capture-dir captures/queue --train-ppo --epochs 3 --ppo-gamma 0.9"
    assert _call("run_training", f"{ppo} --ppo-log ppo.jsonl --ppo-log-max-entries 2") == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 3
    assert [len((place / name).read_text().splitlines()) for name in ("ppo.jsonl", "ppo.jsonl.1")] == [2, 1]
    assert (
        _call("run_training", "queue.yaml --mode mixed --capture-dir captures/queue --train-ppo --rollout-ticks 5") == 0
    )
    assert json.loads(capsys.readouterr().out)["data_mode"] == "mixed"
    soak = "queue.yaml --baseline-dir captures/queue --output-dir soak --cycles 3 --rollout-ticks 5"
    assert _call("run_mixed_soak", soak) == 0
    lines = [json.loads(line) for line in (place / "soak/ppo_soak.jsonl").read_text().splitlines()]
    assert [line["data_mode"] for line in lines] == ["replay", "rollout", "replay"]
    assert [line["log_stream_offset"] for line in lines] == [1, 2, 3]
    assert validate_logs([place / "soak/ppo_soak.jsonl"], None, None, False)[0].records == 3
    capsys.readouterr()
    assert _call("run_anneal_rehearsal", "--config base.yaml --manifest curated.json --log-dir log") == 0
    rehearsal = json.loads(capsys.readouterr().out)
    parts = {"status", "results", "promotion", "bc", "ppo", "bc_passed", "loss_flag", "queue_flag", "intensity_flag"}
    assert parts | {"decision", "candidate_ready", "reasons"} == set(rehearsal)
    assert (rehearsal["status"], rehearsal["bc_passed"]) == ("PASS", True)
    assert (place / "log/anneal_results.json").is_file()
    anneal = (
        "base.yaml --mode anneal --bc-manifest curated.json --replay-manifest curated.json --anneal-exit-on-failure"
    )
    assert _call("run_training", anneal) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"status", "promotion", "results"}
    assert _call("validate_ppo_telemetry", "ppo.jsonl --baseline ppo.jsonl --relative") == 0
    assert _call("ppo_telemetry_plot", "ppo.jsonl") == 0


@needs_torch
def test_old_captures_of_other_widths_train(place: Path) -> None:
    from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator

    for width in (36, 41, 68, 81, 89):
        rng = np.random.default_rng(width)
        arrays = {
            "map": rng.random((6, 4, 11, 11)).astype(np.float32),
            "features": rng.random((6, width)).astype(np.float32),
            "actions": np.array([0, 1, 2, 0, 1, 2]),
            "old_log_probs": np.zeros(6, np.float32),
            "value_preds": np.zeros(6, np.float32),
            "rewards": rng.random(6).astype(np.float32),
            "dones": np.zeros(6, np.bool_),
        }
        np.savez(place / f"s{width}.npz", **arrays)  # type: ignore[arg-type]  # arrays by name
        names = ["rivalry_max", "rivalry_avoid_count", *(f"f{number}" for number in range(width - 2))]
        (place / f"s{width}.json").write_text(json.dumps({"feature_names": names}))
        orchestrator = PolicyTrainingOrchestrator(SimulationConfig.model_validate(CONFIG))
        data = ReplayDatasetConfig(entries=[(place / f"s{width}.npz", None)])
        assert orchestrator.run_ppo(data)["transitions"] == 6


def test_a_suite_captures_each_scenario_in_a_process(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from townlet.scripts.capture_rollout_suite import run_capture

    assert _call("capture_rollout_suite", "queue.yaml --output-root suite --agent-filter ann") == 0
    assert sorted(path.name for path in (place / "suite/queue").glob("*.npz")) == ["rollout_sample_ann_001.npz"]
    with pytest.raises(RuntimeError, match="failed with exit code 1"):
        run_capture(
            place / "base.yaml", 3, place / "none", auto_seed=False, agent_filter=None, compress=True, retries=0
        )


def test_audit_reports_what_it_finds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from townlet_training_core.replay.curation import record_checksums

    _call("capture_rollout", "queue.yaml --output captures/queue")
    record_checksums(place / "versions.json", "queue", place / "captures/queue")
    capsys.readouterr()
    assert _call("audit_bc_datasets", "--versions versions.json --exit-on-failure") == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"versions_path", "datasets", "failures", "warnings", "timestamp"}
    row = {"name", "status", "manifest", "checksums", "captures", "findings", "sample_count"}
    assert (set(report["datasets"][0]), report["datasets"][0]["status"]) == (row, "PASS")
    (place / "captures/queue/rollout_sample_ann_001.json").write_text("{}")
    assert _call("audit_bc_datasets", "--versions versions.json --exit-on-failure") == 1
    assert _call("audit_bc_datasets", "--versions versions.json") == 0


def test_merging_refuses_what_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "captures/one").mkdir(parents=True)
    with pytest.raises(ValueError, match="no rollout_sample_metrics"):
        _call("merge_rollout_metrics", "captures --golden golden.json")
    metrics = place / "captures/one/rollout_sample_metrics.json"
    metrics.write_text(json.dumps({"samples": {}}))
    with pytest.raises(ValueError, match="--allow-template"):
        _call("merge_rollout_metrics", "captures --golden golden.json")
    with pytest.raises(ValueError, match="no rollout_sample_metrics"):
        _call("merge_rollout_metrics", "captures --golden golden.json --include two")
    capsys.readouterr()
    assert _call("merge_rollout_metrics", "captures --golden golden.json --allow-template --dry-run") == 0
    assert json.loads(capsys.readouterr().out) == {"one": {}}
    assert not (place / "golden.json").exists()


def test_small_scripts_show_and_refuse(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "empty.jsonl").write_text('{"loss": 1}\n\n{"loss": 2}\n')
    with pytest.raises(ValueError, match="holds no 'accuracy'"):
        _call("bc_metrics_summary", "empty.jsonl")
    (place / "none").mkdir()
    with pytest.raises(ValueError, match="no captures"):
        _call("curate_trajectories", "none --output out.json")
    _call("capture_rollout", "queue.yaml --output captures")
    with pytest.raises(ValueError, match="no frames of agent 'nobody'"):
        _call("capture_rollout", "queue.yaml --output captures --agent-id nobody")
    (place / "telemetry.json").write_text('{"tick": 1}')
    capsys.readouterr()
    assert _call("run_replay", "captures/rollout_sample_ann_001.npz --telemetry telemetry.json") == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Metadata:", "Map shape: (12, 4, 11, 11)", "rivalry_max: mean", '"tick": 1'))
    line = {"epoch": 1.0, "loss_total": 0.5, "kl_divergence": 0.01}
    (place / "ppo.jsonl").write_text(json.dumps(line) + "\n")
    assert _call("ppo_telemetry_plot", "ppo.jsonl") == 0
    assert "epoch 1.0: loss_total 0.500000, kl_divergence 0.010000" in capsys.readouterr().out


def test_ppo_telemetry_plot_draws(place: Path) -> None:
    pytest.importorskip("matplotlib")
    line = {"epoch": 1.0, "loss_total": 0.5, "kl_divergence": 0.01}
    (place / "ppo.jsonl").write_text(json.dumps(line) + "\n")
    assert _call("ppo_telemetry_plot", "ppo.jsonl --output plot.png") == 0
    assert (place / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_commands_end_as_their_scripts_do(place: Path) -> None:
    from typer.testing import CliRunner

    (place / "metrics.json").write_text('[{"accuracy": 0.5}]')
    done = CliRunner().invoke(app, ["bc-metrics-summary", "metrics.json"])
    assert (done.exit_code, json.loads(done.output)["count"]) == (0, 1)
    failed = CliRunner().invoke(app, ["run-replay", "nowhere.npz"])
    assert (failed.exit_code, "error: nowhere.npz" in failed.output) == (1, True)
