"""The evaluation service plays what it has not played, and nothing twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from townlet_training_core.config.models import EvaluationConfig, SimulationChoice, TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationSuite
from townlet_training_core.errors import ArtifactError
from townlet_training_core.evaluation import EvaluationService, evaluate_policy
from townlet_training_core.evaluation import service as service_module
from townlet_training_core.evaluation.parallel import _shared_cores
from townlet_training_core.evaluation.scoreboard import score_run
from townlet_training_core.registry import make_policy
from townlet_training_core.runs import RunDirectory

SUITE = EvaluationSuite(simulation="fake", options={"noise": 1.0}, seeds=tuple(range(100, 107)))


class Maker:
    """A factory that remembers what it made."""

    def __init__(self, fake_town: Any) -> None:
        self._fake_town = fake_town
        self.made: list[Any] = []

    def __call__(self, choice: SimulationChoice, /, *, num_envs: int) -> Any:
        assert choice.name == "fake"
        self.made.append(self._fake_town(num_envs=num_envs, **choice.options))
        return self.made[-1]

    @property
    def played(self) -> int:
        return sum(len(town.resets) for town in self.made)


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with _shared_cores(4):
        assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("1", "5")
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_the_service_gives_what_a_direct_evaluation_gives(fake_town: Any, dial_policy: Any) -> None:
    policy = dial_policy([0.2, 0.3, 0.5])
    with EvaluationService(Maker(fake_town), SUITE, num_envs=3) as service:
        result = service.evaluate(policy, label="candidate")
    direct = evaluate_policy(fake_town(num_envs=7, noise=1.0), policy, suite=SUITE, label="candidate")
    assert result == direct


def test_a_policy_is_played_once_under_any_label(fake_town: Any, dial_policy: Any) -> None:
    maker = Maker(fake_town)
    service = EvaluationService(maker, SUITE, num_envs=4)
    first = service.evaluate(dial_policy([0.2, 0.3, 0.5]), label="a")
    assert maker.played == 2
    second = service.evaluate(dial_policy([0.2, 0.3, 0.5]), label="b")
    assert maker.played == 2
    assert (second.label, second.returns) == ("b", first.returns)
    service.evaluate(dial_policy([0.3, 0.2, 0.5]), label="c")
    assert maker.played == 4
    service.close()
    service.close()
    assert [town.closed for town in maker.made] == [1]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    fake_town: Any, dial_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = dial_policy([0.2, 0.3, 0.5])
    maker = Maker(fake_town)
    service = EvaluationService(maker, SUITE, num_envs=3, directory=tmp_path)
    town = service.simulation
    original = town.reset

    def stop_at_the_third(**keywords: Any) -> None:
        if maker.played == 2:
            raise KeyboardInterrupt
        original(**keywords)

    monkeypatch.setattr(town, "reset", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        service.evaluate(policy, label="x")
    assert len(list(tmp_path.rglob("*.json"))) == 2

    again = Maker(fake_town)
    result = EvaluationService(again, SUITE, num_envs=3, directory=tmp_path).evaluate(policy, label="x")
    assert again.played == 1
    assert result == evaluate_policy(fake_town(num_envs=1, noise=1.0), policy, suite=SUITE, label="x")


def test_a_corrupt_cache_names_the_file(fake_town: Any, dial_policy: Any, tmp_path: Path) -> None:
    policy = dial_policy([0.2, 0.3, 0.5])
    EvaluationService(Maker(fake_town), SUITE, num_envs=7, directory=tmp_path).evaluate(policy, label="x")
    (path,) = tmp_path.rglob("*.json")
    sound = path.read_text()
    path.write_text(sound[: len(sound) // 2])
    with pytest.raises(ArtifactError, match=path.name):
        EvaluationService(Maker(fake_town), SUITE, num_envs=7, directory=tmp_path).evaluate(policy, label="x")
    path.write_text(sound.replace(policy.content_hash(), "0" * 64))
    with pytest.raises(ArtifactError, match="belongs to something else"):
        EvaluationService(Maker(fake_town), SUITE, num_envs=7, directory=tmp_path).evaluate(policy, label="x")


def test_the_scoreboard_plays_nothing_that_the_run_has_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(
        simulation=SimulationChoice(name="gymnasium", options={"env": "CartPole-v1"}),
        evaluation=EvaluationConfig(episodes=4, num_envs=4, max_steps=20),
    )
    played: list[str] = []

    def spy(*arguments: Any, **keywords: Any) -> Any:
        played.append(arguments[1].name)
        return evaluate_policy(*arguments, **keywords)

    monkeypatch.setattr(service_module, "evaluate_policy", spy)
    with RunDirectory.create(tmp_path, run_id="one") as run:
        run.write_manifest({"strategy": "anneal", "config": config.model_dump(mode="json")})
        assert score_run(run) is None  # nothing was trained
        # A registered name stands where a checkpoint's path does.
        run.write_result("anneal", {"checkpoint": "x", "stages": []})
        monkeypatch.setattr("townlet_training_core.evaluation.scoreboard.make_policy", lambda _: make_policy("random"))
        alone = score_run(run)
        assert played == ["random"]
        service = EvaluationService.from_config(config)
        service.evaluate(make_policy("random"), label="during training")
        assert played == ["random"] * 2
        shared = score_run(run, service=service)
    assert played == ["random"] * 2
    assert alone == shared
    assert shared is not None
    assert [score.label for score in shared.scores] == ["random", "final"]
