"""The façade: checks first, a run directory with everything in it, state nowhere else."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from townlet_training_core import TrainingConfig, TrainingOrchestrator
from townlet_training_core.config.requests import TrainingRequest
from townlet_training_core.dto.results import TrainingResultBase
from townlet_training_core.errors import ConfigurationError, InterruptedRunError, PluginError
from townlet_training_core.runs import RunDirectory
from townlet_training_core.strategy import PreparationContext, TrainingContext, TrainingStrategy
from townlet_training_core.telemetry.jsonl import read_jsonl

CONFIG = TrainingConfig.model_validate({"seed": 5, "simulation": {"name": "corridor", "num_envs": 4}})


class Interruptible:
    """Stops when asked, goes on when resumed; what it did stands in the run directory."""

    name: ClassVar[str] = "interruptible"
    requires_torch: ClassVar[bool] = False
    request_type: ClassVar[type[TrainingRequest]] = TrainingRequest

    def prepare(self, context: PreparationContext, request: TrainingRequest) -> None:
        del context, request

    def run(self, context: TrainingContext, request: TrainingRequest) -> TrainingResultBase:
        done = context.run.read_result("steps") or {"steps": 0}
        while done["steps"] < 3:
            done["steps"] += 1
            context.run.write_result("steps", done)
            if context.stop.is_set():
                raise InterruptedRunError(f"stopped after step {done['steps']}")
        return TrainingResultBase(run_id=context.run.run_id)


def test_a_run_leaves_manifest_result_and_telemetry(tmp_path: Path) -> None:
    result = TrainingOrchestrator(CONFIG, runs_dir=tmp_path).run("counting", run_id="one", steps=8)
    run = RunDirectory.read(tmp_path)
    manifest = run.manifest()
    assert (manifest["status"], manifest["strategy"], manifest["seed"]) == ("done", "counting", 5)
    assert manifest["request"]["steps"] == 8
    assert TrainingConfig.model_validate(manifest["config"]) == CONFIG
    assert "townlet-training-core" in manifest["packages"]
    assert run.read_result("counting") == json.loads(result.model_dump_json())
    assert [record["kind"] for record in read_jsonl(run.telemetry)] == ["counting"]
    assert result.model_dump()["transitions"] == 8 * 4 * 2


def test_the_same_seed_gives_the_same_result_and_another_seed_another(tmp_path: Path) -> None:
    def reward(seed: int, name: str) -> float:
        config = CONFIG.model_copy(update={"seed": seed})
        result = TrainingOrchestrator(config, runs_dir=tmp_path).run("counting", run_id=name, steps=64)
        return float(result.model_dump()["reward_sum"])

    assert reward(1, "a") == reward(1, "b") != reward(2, "c")


@pytest.mark.parametrize(
    ("config", "strategy", "fields", "error", "text"),
    [
        (
            CONFIG,
            "counting",
            {"steps": 0},
            ConfigurationError,
            r"request of 'counting': steps: .*greater than or equal",
        ),
        (CONFIG, "counting", {"speed": 1}, ConfigurationError, "speed: unknown key"),
        (CONFIG, "no-such", {}, PluginError, "unknown strategy 'no-such'; installed: .*counting"),
        (
            TrainingConfig.model_validate({"simulation": {"name": "corridor", "options": {"length": 0}}}),
            "counting",
            {},
            ConfigurationError,
            r"simulation\.options: length",
        ),
        (CONFIG, "counting", {"init_from": "no/where"}, ConfigurationError, "init_from='no/where' does not exist"),
    ],
)
def test_what_can_fail_early_fails_before_a_directory_is_made(
    tmp_path: Path, config: TrainingConfig, strategy: str, fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        TrainingOrchestrator(config, runs_dir=tmp_path / "runs").run(strategy, **fields)
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_run_says_so_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    trainer = TrainingOrchestrator(CONFIG, runs_dir=tmp_path, stop=stop)
    with pytest.raises(InterruptedRunError, match="after step 1"):
        trainer.run(Interruptible(), run_id="one")
    assert RunDirectory.read(tmp_path).manifest()["status"] == "interrupted"
    monkeypatch.setattr("townlet_training_core.orchestrator.make_strategy", lambda _: Interruptible())
    run, _ = TrainingOrchestrator.resume(tmp_path)
    assert run.read_result("steps") == {"steps": 3}
    assert run.manifest()["status"] == "done"


def test_a_failing_run_is_marked_and_unlocked(tmp_path: Path) -> None:
    class Failing(Interruptible):
        def run(self, context: TrainingContext, request: TrainingRequest) -> TrainingResultBase:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TrainingOrchestrator(CONFIG, runs_dir=tmp_path).run(Failing(), run_id="one")
    with RunDirectory.resume(tmp_path / "one") as run:
        assert run.manifest()["status"] == "failed"


def test_a_plugins_strategy_satisfies_the_protocol() -> None:
    assert isinstance(Interruptible(), TrainingStrategy)


def test_starting_from_a_runs_folder_means_the_run_that_was_latest_before(tmp_path: Path) -> None:
    trainer = TrainingOrchestrator(CONFIG, runs_dir=tmp_path)
    trainer.run("counting", run_id="one", steps=4)
    trainer.run("counting", run_id="two", steps=4, init_from=tmp_path)
    assert RunDirectory.read(tmp_path).run_id == "two"
    assert RunDirectory.read(tmp_path / "two").manifest()["parent"] == str(tmp_path / "one")
