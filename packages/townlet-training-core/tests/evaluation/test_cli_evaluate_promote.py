"""Evaluating, deciding and releasing from the command line, on CartPole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from townlet_training_core.cli.app import app
from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.policy import InputDescription, PolicyDescription
from townlet_training_core.policy.exported import ExportedPolicy

POLE = [
    *("--set", "simulation.name=gymnasium", "--set", "simulation.options={env: CartPole-v1}"),
    *("--set", "evaluation.max_steps=80", "--set", "evaluation.episodes=6", "--set", "evaluation.num_envs=4"),
    *("--set", "promotion.episodes=8"),
]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def export(folder: Path, gain: float, *, actions: tuple[str, ...] = ("action_0", "action_1")) -> Path:
    """Write a policy that pushes towards where the pole falls, the more surely the larger ``gain``."""
    description = PolicyDescription(
        kind="conflict_aware",
        hidden_dim=2,
        inputs={"features": InputDescription(shape=(4,), dtype="float32")},
        action_names=actions,
        feature_names=tuple(f"observation_{index}" for index in range(4)),
        simulation="gymnasium:CartPole-v1",
    )
    falling = np.array([0.0, 0.1, 1.0, 0.5]) * gain
    tensors: dict[str, Any] = {
        "feature_encoder.0.weight": np.stack([falling, -falling]),
        "feature_encoder.0.bias": np.zeros(2),
        "shared.0.weight": np.eye(2),
        "shared.0.bias": np.zeros(2),
        "policy_head.weight": np.array([[-1.0, 1.0], [1.0, -1.0]] + [[0.0, 0.0]] * (len(actions) - 2)),
        "policy_head.bias": np.zeros(len(actions)),
        "value_head.weight": np.zeros((1, 2)),
        "value_head.bias": np.zeros(1),
    }
    ExportedPolicy({name: array.astype(np.float32) for name, array in tensors.items()}, description).save(folder)
    return folder


def test_policies_are_evaluated_on_the_same_seeds(tmp_path: Path) -> None:
    strong = export(tmp_path / "strong", 30.0)
    done = invoke(
        *("evaluate", "-p", "random", "-p", strong, "--against", "random", *POLE),
        *("--output", tmp_path / "out", "--plot", tmp_path / "returns.png", "--cache", tmp_path / "cache"),
    )
    assert done.exit_code == 0, done.output
    assert "strong minus random" in done.output
    stored = EvaluationResult.model_validate_json((tmp_path / "out" / "strong.json").read_bytes())
    assert len(stored.returns) == 6
    assert (tmp_path / "returns.png").read_bytes()[:4] == b"\x89PNG"
    again = invoke("evaluate", "-p", strong, *POLE, "--cache", tmp_path / "cache", "--json")
    assert json.loads(again.output)["results"][0]["returns"] == list(stored.returns)


def test_processes_change_nothing(tmp_path: Path) -> None:
    policy = export(tmp_path / "p", 3.0)
    one = invoke("evaluate", "-p", policy, *POLE, "--json")
    two = invoke("evaluate", "-p", policy, *POLE, "--json", "--workers", "2")
    assert one.exit_code == two.exit_code == 0, two.output
    assert json.loads(one.output) == json.loads(two.output)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["evaluate", "-p", "nobody"], "unknown policy 'nobody'"),
        (["evaluate", "-p", "random", "--workers", "0"], "workers must be at least 1"),
        (["evaluate", "-p", "random", "--episodes", "1"], "evaluation.episodes"),
        (["evaluate", "-p", "random", "-p", "a/random", "-p", "a/random/"], "cannot be told apart"),
        (["promote", "evaluate", "random"], "has no release to compare with"),
        (["promote", "evaluate", "random", "--baseline", "nobody"], "unknown policy 'nobody'"),
        (["promote", "apply", "nowhere"], "give one of --verdict FILE, --initial or --force"),
        (["promote", "apply", "nowhere", "--initial"], "'nowhere' holds no policy"),
        (["promote", "apply", "nowhere", "--force"], "give a --reason"),
        (["promote", "rollback"], "no earlier release"),
        (["promote", "rollback", "--to", "abcdef"], "names no release"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    takes_config = arguments[0] == "evaluate" or arguments[1] in ("evaluate", "apply")
    done = invoke(*arguments, *(POLE if takes_config else []))
    assert done.exit_code == 2
    assert text in done.output
    assert "Traceback" not in done.output


def test_a_policy_of_another_action_space_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "other", 0.0, actions=("action_0", "action_1", "jump"))
    for command in (["evaluate", "-p"], ["promote", "evaluate", "--baseline", "random"]):
        done = invoke(*command, "other", *POLE)
        assert done.exit_code == 2
        assert "does not fit simulation 'gymnasium:CartPole-v1'" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_afternoon_of_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weak, strong = export(tmp_path / "weak", 0.0), export(tmp_path / "strong", 30.0)
    assert "no release in releases" in invoke("promote", "status").output
    assert invoke("promote", "status", "--json").output.strip() == "null"
    assert "no releases" in invoke("promote", "history").output

    first = invoke("promote", "apply", weak, "--initial", *POLE)
    assert first.exit_code == 0, first.output
    assert invoke("promote", "apply", strong, "--initial", *POLE).exit_code == 2

    # A candidate that is better: two passes, a verdict, and it goes in.
    decided = invoke("promote", "evaluate", strong, *POLE, "--output", "verdict.json")
    assert decided.exit_code == 0, decided.output
    assert "promote: " in decided.output
    assert invoke("promote", "apply", weak, "--verdict", "verdict.json", *POLE).exit_code == 2
    applied = invoke("promote", "apply", strong, "--verdict", "verdict.json", *POLE, "--json")
    assert applied.exit_code == 0, applied.output
    release = json.loads(applied.output)["release"]
    assert json.loads(invoke("promote", "status", "--json").output)["release"] == release
    assert release[:12] in invoke("promote", "history").output

    # The same verdict is stale now, and a candidate that is worse is held with exit code 1.
    stale = invoke("promote", "apply", strong, "--verdict", "verdict.json", *POLE)
    assert stale.exit_code == 2
    assert "was not taken against the current release" in stale.output
    held = invoke("promote", "evaluate", weak, *POLE, "--json", "--output", "held.json")
    assert held.exit_code == 1
    verdict = json.loads(held.output)
    assert verdict["decision"] == "hold"
    assert any("forgotten" in blocker for blocker in verdict["blockers"])
    refused = invoke("promote", "apply", weak, "--verdict", "held.json", *POLE)
    assert refused.exit_code == 1
    assert "not applied: hold" in refused.output

    # Taken back, byte for byte; and forced in again by hand.
    assert invoke("promote", "rollback", "--reason", "queues").exit_code == 0
    status = json.loads(invoke("promote", "status", "--json").output)
    assert Path(status["path"], "policy.safetensors").read_bytes() == (weak / "policy.safetensors").read_bytes()
    assert invoke("promote", "apply", strong, "--force", "--reason", "demo").exit_code == 0
    history = json.loads(invoke("promote", "history", "--json", "--repair").output)
    assert [entry["event"] for entry in history] == ["promoted", "promoted", "rollback", "policy_swap"]
    assert "demo" in invoke("promote", "status").output


def test_legacy_flags_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stages = [{"mode": "bc", "passed": True}, {"mode": "ppo", "anneal_loss_flag": True}]
    Path("anneal_results.json").write_text(json.dumps(stages))
    strong = export(tmp_path / "strong", 30.0)
    arguments = ["promote", "evaluate", strong, "--baseline", "random", *POLE, "--legacy-results"]
    done = invoke(*arguments, "anneal_results.json")
    assert done.exit_code == 0, done.output
    assert "legacy flags would have said HOLD" in done.output
    Path("wrong.json").write_text("3")
    assert invoke(*arguments, "wrong.json").exit_code == 2
    assert invoke(*arguments, "absent.json").exit_code == 2


def test_corrupt_verdicts_and_registries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weak = export(tmp_path / "weak", 0.0)
    Path("verdict.json").write_text("{}")
    for name in ("verdict.json", "absent.json"):
        assert invoke("promote", "apply", weak, "--verdict", name, *POLE).exit_code == 2
    assert not Path("releases").exists()
    assert invoke("promote", "apply", weak, "--initial", "--no-golden", *POLE).exit_code == 0
    Path("releases/current").write_text("?")
    broken = invoke("promote", "status")
    assert broken.exit_code == 2
    assert "--repair" in broken.output
    assert invoke("promote", "history", "--repair").exit_code == 0
    assert invoke("promote", "status").exit_code == 0


def test_scenarios_are_played_one_by_one_and_judged_together(tmp_path: Path) -> None:
    strong = export(tmp_path / "strong", 30.0)
    suites = tmp_path / "suites.yaml"
    suites.write_text("- {name: short, max_steps: 20}\n- {name: long, first_seed: 7, episodes: 5, max_steps: 60}\n")
    arguments = ["-p", strong, "--against", "random", "--suites", suites, *POLE]
    shown = invoke("evaluate", *arguments, "--output", tmp_path / "out", "--plot", tmp_path / "p.png")
    assert shown.exit_code == 0, shown.output
    assert "strong over 2 suites: mean" in shown.output
    assert "long: strong minus random" in shown.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["random-long.json", "random-short.json", "strong-long.json", "strong-short.json"]
    printed = json.loads(invoke("evaluate", *arguments, "--json").output)
    assert [len(result["returns"]) for result in printed["results"]] == [6, 5, 6, 5]
    both, other = printed["aggregates"]
    assert both["episodes"] == 11
    assert both["probability_of_improvement"]["estimate"] > 0.8
    assert other["probability_of_improvement"] is None
    decided = invoke(
        *("promote", "evaluate", strong, "--baseline", "random", "--suites", suites, *POLE),
        *("--releases", tmp_path / "releases", "--json"),
    )
    assert decided.exit_code == 0, decided.output
    assert len(json.loads(decided.output)["comparisons"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid YAML"),
        ("[]", "expected a list"),
        ("- 3", "item 0: expected a mapping with 'name'"),
        ("- {name: a, episodes: many}", "must be whole numbers"),
        ("- {name: a, episodes: 0}", "must be whole numbers"),
        ("- {name: a, options: 3}", "options: expected a mapping"),
        ("- {name: a, length: 3}", "length: Extra inputs"),
        ("- {name: a}\n- {name: a}", "two of them have one name"),
    ],
)
def test_suites_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    suites = tmp_path / "suites.yaml"
    suites.write_text(text)
    done = invoke("evaluate", "-p", "random", "--suites", suites, *POLE)
    assert done.exit_code == 2
    assert message in done.output
    assert invoke("evaluate", "-p", "random", "--suites", tmp_path / "absent", *POLE).exit_code == 2


def test_an_interruption_is_neither_a_verdict_nor_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("townlet_training_core.evaluation.parallel._play_piece", interrupted)
    monkeypatch.setattr("townlet_training_core.promotion.gate.evaluate_policy", interrupted)
    stopped = invoke("evaluate", "-p", "random", *POLE)
    assert (stopped.exit_code, "give --cache" in stopped.output) == (75, True)
    assert "run it again to go on" in invoke("evaluate", "-p", "random", *POLE, "--cache", "kept").output
    asked = invoke("promote", "evaluate", "random", "--baseline", "random", *POLE)
    assert (asked.exit_code, "counts as spent" in asked.output) == (75, True)
    book = json.loads((tmp_path / "releases" / "gate.json").read_text())
    assert [look["passed"] for looks in book["looks"].values() for look in looks] == [None]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["evaluate", "-p", "random", "-o", "file.txt"], "--output: 'file.txt' is a file"),
        (["evaluate", "-p", "random", "--plot", "file.txt/x.png"], "--plot: 'file.txt' is a file"),
        (["evaluate", "-p", "random", "--plot", "x.txt"], "expected a name that ends with .png"),
        (["evaluate", "-p", "random", "--cache", "file.txt/cache"], "is a file, not a folder"),
        (["promote", "evaluate", "random", "--baseline", "random", "-o", "file.txt/x.json"], "'file.txt' is a file"),
        (
            ["promote", "evaluate", "random", "--baseline", "random", "-o", "folder"],
            "'folder' is a folder; name a file",
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("mine")
    Path("folder").mkdir()
    done = invoke(*arguments, *POLE)
    assert done.exit_code == 2
    assert text in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder"]  # no look was spent
    assert Path("file.txt").read_text() == "mine"


def test_a_misfit_on_either_side_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "three", 3.0, actions=("left", "right", "jump"))
    for arguments in (
        ["evaluate", "-p", "three", "-o", "out"],
        ["promote", "evaluate", "three", "--baseline", "random"],
        ["promote", "evaluate", "random", "--baseline", "three"],
        ["promote", "apply", "three", "--initial"],
    ):
        done = invoke(*arguments, *POLE)
        assert done.exit_code == 2, arguments
        assert "action" in done.output.splitlines()[-1]
        assert "Traceback" not in done.output
    assert [path.name for path in tmp_path.iterdir() if path.name != "three"] == []


def test_a_corrupt_registry_is_named_by_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weak, strong = export(tmp_path / "weak", 0.5), export(tmp_path / "strong", 30.0)
    assert invoke("promote", "apply", weak, "--initial", "--no-golden", *POLE).exit_code == 0
    log = Path("releases/audit.jsonl")
    sound = log.read_bytes()
    log.write_bytes(b"garbage\n" + sound)
    before = {path: path.read_bytes() for path in Path("releases").rglob("*") if path.is_file()}
    for arguments in (
        ["promote", "history"],
        ["promote", "rollback"],
        ["promote", "apply", strong, "--force", "--reason", "try"],
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2, arguments
        assert "line 1 is corrupt" in done.output
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(Path("releases/objects").iterdir())) == 1
    log.write_bytes(sound)
    assert invoke("promote", "history", "--repair").exit_code == 0


def test_a_look_over_processes_gives_the_same_digits(tmp_path: Path) -> None:
    strong = export(tmp_path / "strong", 30.0)
    arguments = ["promote", "evaluate", strong, "--baseline", "random", *POLE, "--json", "--looks", "1"]
    one = invoke(*arguments, "--releases", tmp_path / "a")
    two = invoke(*arguments, "--releases", tmp_path / "b", "--workers", "2")
    assert one.exit_code == two.exit_code == 1, two.output  # one pass of two
    assert json.loads(one.output) == json.loads(two.output)


def test_a_rollback_of_nothing_makes_no_registry(tmp_path: Path) -> None:
    assert invoke("promote", "rollback", "--releases", tmp_path / "releases").exit_code == 2
    assert not (tmp_path / "releases").exists()
