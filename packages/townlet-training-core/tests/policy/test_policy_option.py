"""`--policy PATH` without torch: a policy made of numpy arrays plays the town in every command that takes one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from townlet_training_core.cli.app import app
from townlet_training_core.config.models import SimulationChoice
from townlet_training_core.dto.policy import InputDescription, PolicyDescription
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.forward import expected_shapes
from townlet_training_core.registry import make_simulation
from townlet_training_core.replay.openers import open_transitions

pytest.importorskip("townlet_sim")

SMALL = [
    *("--set", "simulation.name=town", "--set", "simulation.options={episode_ticks: 40}"),
    *("--set", "simulation.num_envs=2", "--set", "evaluation.episodes=6", "--set", "evaluation.num_envs=4"),
    *("--set", "promotion.episodes=4"),
]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, *, recurrent: Any = "none", seed: int = 0) -> Path:
    """Write a small policy for the town as it is."""
    spec = make_simulation(SimulationChoice(name="town", num_envs=1)).spec
    description = PolicyDescription(
        kind="conflict_aware",
        hidden_dim=8,
        recurrent=recurrent,
        inputs={
            name: InputDescription(shape=tuple(item.shape), dtype=np.dtype(item.dtype).name)
            for name, item in spec.observations.items()
            if name in ("map", "features")
        },
        action_names=tuple(spec.action_names),
        feature_names=tuple(spec.feature_names),
        map_channels=tuple(spec.map_channels),
        simulation=spec.name,
        versions=dict(spec.versions),
    )
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in expected_shapes(description).items()
    }
    ExportedPolicy(tensors, description).save(folder)
    return folder


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_it_is_evaluated_and_the_batch_changes_nothing(tmp_path: Path, recurrent: str) -> None:
    policy = write(tmp_path / "policy", recurrent=recurrent)
    results = []
    for batch in (4, 1):
        done = invoke("evaluate", "-p", policy, "--json", *SMALL, "--set", f"evaluation.num_envs={batch}")
        assert done.exit_code == 0, done.output
        results.append(json.loads(done.output)["results"][0]["agent_returns"])
    assert results[0] == results[1]
    assert len(results[0]) == 6


def test_it_is_captured_with_its_log_probabilities_and_values(tmp_path: Path) -> None:
    policy = write(tmp_path / "policy")
    done = invoke("capture", "--policy", policy, "--ticks", 30, "-o", tmp_path / "store", "--json", *SMALL)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["policy"] == "exported"
    table = open_transitions(tmp_path / "store")
    seen = {name: table.column(name) for name in ("map", "features", "action_mask")}
    again = ExportedPolicy.load(policy)
    chances = again.action_probabilities(seen)[np.arange(len(table)), table.column("actions")]
    np.testing.assert_allclose(np.exp(table.column("log_probs")), chances, rtol=1e-4, atol=1e-6)
    values = again.values(seen)
    assert values is not None
    np.testing.assert_allclose(table.column("values"), values, rtol=1e-4, atol=1e-5)


def test_it_goes_through_the_gate_and_into_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = write(tmp_path / "first"), write(tmp_path / "second", seed=1)
    assert invoke("promote", "apply", first, "--initial", *SMALL).exit_code == 0
    asked = invoke("promote", "evaluate", second, "--json", *SMALL)
    assert asked.exit_code in (0, 1), asked.output
    assert json.loads(asked.output)["decision"] in ("promote", "hold")


@pytest.mark.parametrize("command", [["watch", "--ticks", "6", "--every", "3"], ["render", "--ticks", "3"]])
def test_it_can_be_looked_at(tmp_path: Path, command: list[str]) -> None:
    pytest.importorskip("PIL", reason="the town's extra 'watch' is not installed")
    policy = write(tmp_path / "policy", recurrent="lstm")
    out = ["--out", str(tmp_path / "town.png")] if command[0] == "render" else []
    done = invoke("town", *command, *out, "--policy", policy)
    assert done.exit_code == 0, done.output
    in_a_scenario = invoke("town", *command, *out, "--policy", policy, "--scenario", "kitchen_breakfast")
    assert in_a_scenario.exit_code == 0, in_a_scenario.output
    assert invoke("town", *command, *out, "--policy", tmp_path / "nothing").exit_code == 2


def test_onnx_names_its_extra_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = write(tmp_path / "policy")
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = invoke("export", policy, "-o", tmp_path / "graph", "--format", "onnx")
    assert done.exit_code == 3
    assert "pip install 'townlet-training-core[onnx]'" in done.output
    assert not (tmp_path / "graph").exists()
    assert invoke("export", policy, "-o", tmp_path / "copy").exit_code == 0
    assert ExportedPolicy.load(tmp_path / "copy").content_hash() == ExportedPolicy.load(policy).content_hash()
