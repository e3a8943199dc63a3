"""``townlet capture`` and ``townlet replay`` as a user meets them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from townlet_training_core.cli.app import app
from townlet_training_core.errors import DataError, MissingDependencyError
from townlet_training_core.replay import parquet as parquet_module
from townlet_training_core.replay.openers import open_transitions
from townlet_training_core.replay.parquet import export_parquet

runner = CliRunner()


def run(*arguments: str | Path, code: int = 0) -> str:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture
def pole(tmp_path: Path) -> Path:
    pytest.importorskip("gymnasium")
    capture(tmp_path / "pole")
    return tmp_path / "pole"


def capture(output: Path, *more: str, code: int = 0) -> str:
    arguments = ["--simulation", "gymnasium", "--policy", "random", "--ticks", "40", "--num-envs", "2"]
    options = ["--set", "simulation.options={env: CartPole-v1}", "--output", str(output)]
    return run("capture", *arguments, *options, *more, code=code)


def test_capture_says_what_it_did(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    told = json.loads(capture(tmp_path / "a", "--json", "--seed", "3"))
    assert told["transitions"] == 80
    assert told["seed"] == 3
    assert told["policy"] == "random"
    assert "mean return" in capture(tmp_path / "b", "--form", "npz")
    assert "exists" in capture(tmp_path / "a", code=2)
    assert "no expert_actions()" in capture(tmp_path / "c", "--label-expert", code=2)
    assert not (tmp_path / "c").exists()


def test_inspect(pole: Path) -> None:
    told = json.loads(run("replay", "inspect", pole, "--json", "--verify"))
    assert told["kind"] == "store"
    assert told["simulation"] == "gymnasium:CartPole-v1"
    assert told["transitions"] == 80
    assert told["observations"] == {"features": {"shape": [4], "dtype": "float32"}}
    assert told["complete"] is True
    assert "trajectories" in run("replay", "inspect", pole)
    assert "does not exist" in run("replay", "inspect", pole / "none", code=2)


def test_convert_there_and_back(pole: Path, tmp_path: Path) -> None:
    count = json.loads(run("replay", "convert", pole, tmp_path / "npz", "--to", "npz", "--json"))["trajectories"]
    assert f"{count} trajectories" in run("replay", "convert", tmp_path / "npz", tmp_path / "again")
    first, last = open_transitions(pole), open_transitions(tmp_path / "again")
    np.testing.assert_array_equal(first.column("features"), last.column("features"))
    told = json.loads(run("replay", "inspect", tmp_path / "npz", "--json"))
    assert told["kind"] == "manifest"
    assert told["trajectories"] == count


def test_parquet_is_read_by_duckdb(pole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet_module, "_ROWS", 32)  # several pieces
    target = tmp_path / "pole.parquet"
    assert json.loads(run("replay", "export", pole, target, "--json"))["rows"] == 80
    table = open_transitions(pole)
    query = f"select sum(reward), count(distinct trajectory), max(observation_2), max(step) from '{target}'"
    total, trajectories, angle, step = duckdb.sql(query).fetchall()[0]
    assert total == table.column("rewards").sum()
    assert trajectories == len(table.offsets) - 1
    assert angle == pytest.approx(table.column("features")[:, 2].max())
    assert step == np.diff(table.offsets).max() - 1
    names = duckdb.sql(f"select distinct action_name from '{target}' order by 1").fetchall()
    assert names == [("action_0",), ("action_1",)]
    assert "80 rows" in run("replay", "export", pole, target, "--no-observations")
    assert "observation_2" not in [row[0] for row in duckdb.sql(f"describe select * from '{target}'").fetchall()]


def test_export_that_cannot_be(pole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_transitions(pole)
    with pytest.raises(DataError, match="cannot be written"):
        export_parquet(table, tmp_path / "none" / "x.parquet")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"townlet-training-core\[parquet\]"):
        export_parquet(table, tmp_path / "x.parquet")
