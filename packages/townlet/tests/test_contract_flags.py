"""Flags of the old scripts: what each parses to, with its default and what it requires."""

from __future__ import annotations

import argparse
import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest

from townlet_training_core.cli import flags

C = Path("c.yaml")
TRAINING_NONE = """mode replay_sample replay_meta replay_manifest capture_dir replay_seed bc_manifest anneal_log_dir
    rollout_save_dir rollout_ticks ppo_log ppo_log_max_entries device ppo_learning_rate ppo_clip_param
    ppo_value_loss_coef ppo_entropy_coef ppo_num_epochs ppo_mini_batch_size ppo_num_mini_batches ppo_gae_lambda
    ppo_gamma ppo_max_grad_norm ppo_value_clip ppo_normalize_advantages"""
TRAINING_OFF = """replay_shuffle replay_drop_last replay_streaming anneal_exit_on_failure train_ppo
    rollout_auto_seed_agents"""

# The shortest command line of each script, and everything that comes of it.
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "run_training": (
        "c.yaml",
        {
            "config": C,
            **dict.fromkeys(TRAINING_NONE.split()),
            **dict.fromkeys(TRAINING_OFF.split(), False),
            "replay_batch_size": 1,
            "epochs": 1,
            "ppo_log_frequency": 1,
        },
    ),
    "capture_rollout": (
        "c.yaml --output o",
        {
            "config": C,
            "output": Path("o"),
            "ticks": 100,
            "prefix": "rollout_sample",
            "auto_seed_agents": False,
            "agent_id": None,
            "compress": False,
        },
    ),
    "capture_rollout_suite": (
        "c.yaml d.yaml",
        {
            "configs": [C, Path("d.yaml")],
            "ticks": None,
            "output_root": Path("captures"),
            "auto_seed_agents": False,
            "agent_filter": None,
            "compress": False,
            "retries": 1,
        },
    ),
    "merge_rollout_metrics": (
        "captures",
        {
            "input_root": Path("captures"),
            "golden": Path("docs/samples/rollout_scenario_stats.json"),
            "output": None,
            "include": None,
            "allow_template": False,
            "dry_run": False,
        },
    ),
    "capture_scripted": (
        "c.yaml --output o",
        {"config": C, "scenario": "idle", "ticks": 50, "output": Path("o"), "tags": None},
    ),
    "curate_trajectories": (
        "i --output o",
        {"input": Path("i"), "output": Path("o"), "min_timesteps": 10, "min_reward": None},
    ),
    "run_anneal_rehearsal": (
        "",
        {
            "config": Path("artifacts/m5/acceptance/config_idle_v1.yaml"),
            "manifest": Path("data/bc_datasets/manifests/idle_v1.json"),
            "log_dir": None,
        },
    ),
    "promotion_evaluate": ("", {"input": None, "summary": None, "format": "json", "dry_run": False}),
    "promotion_drill": (
        "--config c.yaml --output o --checkpoint p",
        {"config": C, "output": Path("o"), "checkpoint": Path("p")},
    ),
    "run_mixed_soak": (
        "c.yaml --baseline-dir b --output-dir o",
        {
            "config": C,
            "baseline_dir": Path("b"),
            "output_dir": Path("o"),
            "cycles": 12,
            "epochs": 1,
            "rollout_ticks": 40,
            "replay_batch_size": 1,
            "rollout_batch_size": 2,
            "log_frequency": 1,
        },
    ),
    "run_replay": ("s.npz", {"sample": Path("s.npz"), "meta": None, "telemetry": None, "validate": False}),
    "validate_ppo_telemetry": (
        "a.jsonl b.jsonl",
        {"logs": [Path("a.jsonl"), Path("b.jsonl")], "baseline": None, "drift_threshold": None, "relative": False},
    ),
    "ppo_telemetry_plot": ("", {"log": Path("docs/samples/ppo_epoch_log.jsonl"), "show": False, "output": None}),
    "audit_bc_datasets": ("", {"versions": Path("data/bc_datasets/versions.json"), "exit_on_failure": False}),
    "bc_metrics_summary": ("m.json", {"metrics": Path("m.json"), "format": "json"}),
}
CHOICES = [
    ("run_training", "c.yaml --mode {}", "replay rollout mixed bc anneal"),
    ("promotion_evaluate", "--format {}", "json human"),
    ("bc_metrics_summary", "m.json --format {}", "json markdown"),
]


class _ParsedError(Exception):
    """Carries what a script parsed, so that it goes no further."""


def _parsed(name: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    build = flags.parser

    class Stop:
        def __init__(self, parser: argparse.ArgumentParser) -> None:
            self.parser = parser

        def parse_args(self, argv: list[str]) -> argparse.Namespace:
            raise _ParsedError(vars(self.parser.parse_args(argv)))

    with monkeypatch.context() as patched:
        patched.setattr(flags, "parser", lambda *args, **options: Stop(build(*args, **options)))
        with pytest.raises(_ParsedError) as caught:
            importlib.import_module(f"townlet.scripts.{name}").main(shlex.split(arguments))
    found: dict[str, Any] = caught.value.args[0]
    return found


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, expected = DEFAULTS[name]
    assert _parsed(name, arguments, monkeypatch) == expected


@pytest.mark.parametrize("name", [name for name, (arguments, _) in DEFAULTS.items() if arguments])
def test_what_is_required(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parsed(name, "", monkeypatch)
    assert ended.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "arguments", "choices"), CHOICES)
def test_choices(name: str, arguments: str, choices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = arguments.split()[-2].strip("-")
    for choice in choices.split():
        assert _parsed(name, arguments.format(choice), monkeypatch)[flag] == choice
    with pytest.raises(SystemExit):
        _parsed(name, arguments.format("another"), monkeypatch)


def test_values_are_parsed_to_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = "--ppo-learning-rate 0.1 --ppo-num-epochs 2 --replay-seed 3 --rollout-ticks 4 --ppo-normalize-advantages"
    found = _parsed("run_training", f"c.yaml {numbers}", monkeypatch)
    assert (found["ppo_learning_rate"], found["ppo_num_epochs"], found["replay_seed"]) == (0.1, 2, 3)
    assert (found["rollout_ticks"], found["ppo_normalize_advantages"]) == (4, True)
    assert _parsed("merge_rollout_metrics", "c --include a b", monkeypatch)["include"] == ["a", "b"]
    assert _parsed("curate_trajectories", "i --output o --min-reward -1.5", monkeypatch)["min_reward"] == -1.5


def test_every_script_is_in_the_table() -> None:
    from townlet.scripts.cli import script_names

    assert sorted(DEFAULTS) == script_names()


def test_a_mode_that_no_script_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from townlet.scripts import run_training

    config = SimpleNamespace(config_id="c", ppo=None, training=SimpleNamespace(source="dreaming"))
    monkeypatch.setattr(run_training, "load_config", lambda path: config)
    with pytest.raises(ValueError, match="Unsupported training mode: dreaming"):
        run_training.main(["c.yaml"])
