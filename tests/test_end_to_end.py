"""The main job in small: clone, anneal, evaluate, save; then everything that is promised about what it leaves."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from townlet_training_core.cli.app import app
from townlet_training_core.dto import AnnealSummaryDTO
from townlet_training_core.dto.scoreboard import Scoreboard
from townlet_training_core.telemetry.jsonl import read_jsonl

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="trains, so it needs torch")

CONFIG = """
config_id: small
seed: 3
simulation:
  name: town
  num_envs: 4
  options: {episode_ticks: 64}
training:
  bc: {capture_steps: 64, batch_size: 128}
  anneal_accuracy_threshold: 0.0
  anneal_schedule:
    - {cycle: 0, mode: bc, epochs: 2}
    - {cycle: 1, mode: ppo, epochs: 2, bc_weight: 0.5}
ppo: {rollout_steps: 16, mini_batch_size: 128, num_epochs: 2}
network: {hidden_dim: 32}
compute: {threads: 1}
evaluation: {episodes: 4, num_envs: 4, resamples: 200}
checkpoint: {every: 1}
"""


def townlet(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "townlet_training_core.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and two runs of it, ``one`` and ``two``."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "small.yaml").write_text(CONFIG)
    for name in ("one", "two"):
        townlet("train", "anneal", "--config", "small.yaml", "--run-id", name, cwd=folder)
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def final_checkpoint(run: Path) -> Path:
    summary = json.loads((run / "results" / "anneal.json").read_text())
    return run / str(summary["checkpoint"])


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_the_run_directory_holds_all_that_is_promised(workplace: Path) -> None:
    run = workplace / "runs" / "one"
    manifest = read(run / "run.json")
    assert manifest["status"] == "done"
    assert manifest["packages"].keys() >= {"townlet-training-core", "townlet-training-torch", "townlet-sim", "torch"}
    assert {record["kind"] for record in read_jsonl(run / "telemetry.jsonl")} >= {"bc.epoch", "ppo.iteration"}
    summary = AnnealSummaryDTO.model_validate(read(run / "results" / "anneal.json"))
    assert [stage.mode for stage in summary.stages] == ["bc", "ppo"]
    assert (workplace / "runs" / "latest").read_text().strip() == "two"
    assert (run / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_every_checkpoint_has_a_manifest_of_true_checksums(workplace: Path) -> None:
    manifests = sorted((workplace / "runs" / "one" / "checkpoints").glob("*/MANIFEST.json"))
    assert manifests
    for path in manifests:
        files = read(path)["files"]
        assert {"policy.safetensors", "policy.json", "optimizer.safetensors", "state.json"} <= files.keys()
        assert {name: digest(path.parent / name) for name in files} == files


def test_the_scoreboard_compares_four_policies_on_the_same_seeds(workplace: Path) -> None:
    run = workplace / "runs" / "one"
    scoreboard = Scoreboard.model_validate(read(run / "results" / "scoreboard.json"))
    assert [score.label for score in scoreboard.scores] == ["random", "expert", "bc", "final"]
    assert [comparison.baseline for comparison in scoreboard.comparisons] == ["random", "expert", "bc"]
    suites = {json.dumps(read(run / score.result)["suite"]) for score in scoreboard.scores}
    assert len(suites) == 1


def test_two_runs_with_one_seed_end_in_the_same_bytes(workplace: Path) -> None:
    one, two = (final_checkpoint(workplace / "runs" / name) for name in ("one", "two"))
    for name in ("policy.safetensors", "policy.json", "optimizer.safetensors"):
        assert digest(one / name) == digest(two / name)


def test_a_saved_policy_evaluates_in_a_new_process_to_the_last_digit(workplace: Path) -> None:
    run = workplace / "runs" / "one"
    within = read(run / "results" / "evaluation" / "final.json")
    printed = townlet("evaluate", "--policy", "runs/one", "--config", "small.yaml", "--json", cwd=workplace)
    again = json.loads(printed)
    again = again["results"][0] if "results" in again else again
    assert again["returns"] == within["returns"]
    assert again["policy_hash"] == within["policy_hash"]
    assert again["kpis"] == within["kpis"]


def test_a_saved_policy_acts_where_torch_is_absent(workplace: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from townlet_training_core.cli import main\n"
        "sys.argv = ['townlet', 'evaluate', '--policy', 'runs/one', '--config', 'small.yaml', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=workplace, capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    again = again["results"][0] if "results" in again else again
    assert again["returns"] == read(workplace / "runs" / "one" / "results" / "evaluation" / "final.json")["returns"]


def test_an_exported_policy_decides_and_earns_what_the_checkpoints_network_does(
    workplace: Path, tmp_path: Path
) -> None:
    import numpy as np

    from townlet_training_core.config.loader import load_config
    from townlet_training_core.evaluation.suite import evaluate_policy, suite_from_config
    from townlet_training_core.policy.exported import ExportedPolicy
    from townlet_training_core.registry import make_simulation
    from townlet_training_core.rollout.capture import RolloutCollector
    from townlet_training_core.streams import generator
    from townlet_training_torch.export import load_network
    from townlet_training_torch.policy import TorchPolicy

    townlet("export", "runs/one", "--output", str(tmp_path / "policy"), cwd=workplace)
    exported = ExportedPolicy.load(tmp_path / "policy")
    learned = TorchPolicy(load_network(final_checkpoint(workplace / "runs" / "one")))
    config = load_config(workplace / "small.yaml")
    simulation = make_simulation(config.simulation)
    suite = suite_from_config(config.simulation, config.evaluation)
    results = [evaluate_policy(simulation, policy, suite=suite).summary.mean for policy in (exported, learned)]
    assert results[0].low <= results[1].high
    assert results[1].low <= results[0].high

    # The same action in at least 99.99 % of 12,800 recorded states, by the same uniforms.
    collector = RolloutCollector(simulation, learned, steps=400, seed=11)
    states = collector.collect()
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in states.observations.items()}
    assert states.action_mask is not None
    flat["action_mask"] = states.action_mask.reshape(-1, states.action_mask.shape[-1])
    first, second = (policy.act(flat, generator(5, "same")) for policy in (exported, learned))
    assert first.log_probs is not None
    assert second.log_probs is not None
    assert first.values is not None
    assert second.values is not None
    assert (first.actions == second.actions).mean() >= 0.9999
    same = first.actions == second.actions
    np.testing.assert_allclose(first.log_probs[same], second.log_probs[same], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first.values, second.values, rtol=1e-5, atol=1e-5)


def test_an_exported_policy_is_the_same_policy_and_is_not_written_over_anything(
    workplace: Path, tmp_path: Path
) -> None:
    target = tmp_path / "policy"
    printed = json.loads(townlet("export", "runs/one", "--output", str(target), "--json", cwd=workplace))
    assert printed["policy_hash"] == read(workplace / "runs/one/results/evaluation/final.json")["policy_hash"]
    assert "exists already" in townlet("export", "runs/one", "--output", str(target), cwd=workplace, code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_resume(workplace: Path, number: signal.Signals) -> None:
    name = f"stopped-{number.name}"
    long = ["--set", "training.anneal_schedule=[{cycle: 0, mode: ppo, epochs: 6}]", "--no-evaluate"]
    arguments = ["train", "anneal", "--config", "small.yaml", *long]
    process = subprocess.Popen(
        [sys.executable, "-m", "townlet_training_core.cli", *arguments, "--run-id", name],
        cwd=workplace,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = workplace / "runs" / name / "telemetry.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        select.select([], [], [], 0.02)
    process.send_signal(number)
    _, message = process.communicate(timeout=240)
    assert process.returncode == 75, message
    assert f"resume with: townlet train --resume runs/{name}" in message
    assert read(workplace / "runs" / name / "run.json")["status"] == "interrupted"
    if number == signal.SIGTERM:
        return  # that it goes on as if nothing had happened is seen once
    townlet("train", "--resume", f"runs/{name}", "--no-evaluate", cwd=workplace)
    townlet(*arguments, "--run-id", f"whole-{number.name}", cwd=workplace)
    resumed, whole = (final_checkpoint(workplace / "runs" / run) for run in (name, f"whole-{number.name}"))
    assert digest(resumed / "policy.safetensors") == digest(whole / "policy.safetensors")


def test_a_truncated_or_tampered_checkpoint_is_refused(workplace: Path, tmp_path: Path) -> None:
    whole = (final_checkpoint(workplace / "runs" / "one") / "policy.safetensors").read_bytes()
    for number, damaged in enumerate((whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]))):
        copy = tmp_path / str(number)
        shutil.copytree(final_checkpoint(workplace / "runs" / "one"), copy)
        (copy / "policy.safetensors").write_bytes(damaged)
        message = townlet("evaluate", "--policy", str(copy), "--config", "small.yaml", cwd=workplace, code=2)
        assert "policy.safetensors" in message


def test_a_policy_of_another_observation_shape_is_refused(workplace: Path) -> None:
    message = townlet(
        *("evaluate", "--policy", "runs/one", "--config", "small.yaml", "--set", "simulation.name=corridor"),
        *("--set", "simulation.options={}"),
        cwd=workplace,
        code=2,
    )
    assert message.startswith("error: ")


def test_an_empty_schedule_fails_before_a_run_is_made(workplace: Path, tmp_path: Path) -> None:
    message = townlet(
        *("train", "anneal", "--config", "small.yaml", "--set", "training.anneal_schedule=[]"),
        *("--runs-dir", str(tmp_path / "runs")),
        cwd=workplace,
        code=2,
    )
    assert "anneal_schedule" in message
    assert not (tmp_path / "runs").exists()


def test_capture_evaluate_runs_and_doctor_work_without_torch(workplace: Path, tmp_path: Path) -> None:
    commands = (
        ["capture", "--config", "small.yaml", "--policy", "scripted", "--output", str(tmp_path / "captured")],
        ["evaluate", "--policy", "scripted", "--config", "small.yaml", "--json"],
        ["evaluate", "--policy", "random", "--config", "small.yaml", "--json"],
        ["runs", "--json"],
    )
    for arguments in commands:
        script = (
            "import sys; sys.modules['torch'] = None\n"
            "from townlet_training_core.cli import main\n"
            f"sys.argv = ['townlet', *{arguments!r}]\n"
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=workplace, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert any((tmp_path / "captured").iterdir())


def test_the_command_line_is_importable_as_a_module() -> None:
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
