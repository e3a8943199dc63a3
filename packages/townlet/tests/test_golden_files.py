"""Golden files: the JSON that old readers parse, its keys with their types.

Each file below ``golden/`` holds one shape as the real command writes it. Words and file names stay as they are; what
varies from run to run is replaced by what it is: numbers by their type, paths, hashes and times by these words.
Run this file as a program to write the golden files anew, and read the difference before committing it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from townlet.config import load_config
from townlet.policy.models import torch_available
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet_training_core.replay.curation import record_checksums

GOLDEN = Path(__file__).parent / "golden"
WITH_TORCH = ("ppo_log_line", "ppo_log_line_rollout", "run_bc", "anneal_results", "anneal_rehearsal", "anneal_command")
WITHOUT_TORCH = (
    *("rollout_buffer_manifest", "rollout_buffer_metadata", "rollout_buffer_metrics", "rollout_buffer_dto"),
    *("capture_rollout_manifest", "capture_rollout_metadata", "capture_rollout_metrics", "capture_scripted_metadata"),
    *("curated_manifest", "curate_output", "merged_metrics", "audit_report", "bc_metrics_summary", "replay_summary"),
    *("promotion_evaluate", "promotion_drill_summary", "promotion_snapshot", "promotion_log"),
)
CONFIG: dict[str, Any] = {
    "config_id": "base",
    "seed": 7,
    "features": {"stages": {"social_rewards": "C1"}, "systems": {"lifecycle": "on"}, "training": {"curiosity": "off"}},
    "rewards": {},
    "training": {"anneal_schedule": [{"cycle": 0, "mode": "bc"}, {"cycle": 1, "mode": "ppo"}]},
}
SCENARIO = {
    "description": "two wait for one shower",
    "ticks": 12,
    "objects": [{"id": "shower_1", "type": "shower", "position": [5, 5]}],
    "agents": [{"id": "ann", "position": [4, 4]}, {"id": "ben", "position": [4, 5]}],
}


def shape(value: Any) -> Any:
    """Return what stays the same of a JSON value from run to run."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        shapes = [shape(one) for one in value]
        if len(value) > 4 and all(isinstance(one, str) for one in value):
            return ["str"]
        return shapes[:1] if all(one == shapes[0] for one in shapes) else shapes
    if isinstance(value, str):
        for word, pattern in (("time", r"\d{4}-\d\d-\d\dT.*"), ("hash", r".*[0-9a-f]{12,}"), ("path", r".*/.*")):
            if re.fullmatch(pattern, value):
                return word
        return value
    return None if value is None else type(value).__name__


def _call(name: str, arguments: str) -> Any:
    """Run an old script; return its standard output, as JSON where it is JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        importlib.import_module(f"townlet.scripts.{name}").main(shlex.split(arguments))
    try:
        return json.loads(out.getvalue())
    except json.JSONDecodeError:
        return out.getvalue()


def _read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def golden(name: str) -> Any:
    """Read a golden file."""
    return _read(str(GOLDEN / f"{name}.json"))


def _lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def without_torch() -> dict[str, Any]:
    """Run what needs no torch, in the working directory; return the JSON of each shape."""
    Path("base.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    Path("queue.yaml").write_text(yaml.safe_dump({**CONFIG, "config_id": "queue", "scenario": SCENARIO}))
    made: dict[str, Any] = {}
    orchestrator = PolicyTrainingOrchestrator(load_config(Path("queue.yaml")))
    orchestrator.capture_rollout(12, output_dir=Path("buffer"))
    for part, name in (
        ("manifest", "manifest"),
        ("metrics", "metrics"),
        ("ann_001", "metadata"),
        ("ann_001_dto", "dto"),
    ):
        made[f"rollout_buffer_{name}"] = _read(f"buffer/rollout_sample_{part}.json")
    _call("capture_rollout", "queue.yaml --output captures/queue")
    for part, name in (("manifest", "manifest"), ("metrics", "metrics"), ("ann_001", "metadata")):
        made[f"capture_rollout_{name}"] = _read(f"captures/queue/rollout_sample_{part}.json")
    with contextlib.redirect_stdout(io.StringIO()):
        made["replay_summary"] = orchestrator.run_replay(Path("captures/queue/rollout_sample_ann_001.npz"))
    _call("capture_scripted", "base.yaml --scenario idle --ticks 12 --output bc --tags one two")
    made["capture_scripted_metadata"] = _read("bc/idle_alice.json")
    made["curate_output"] = _call("curate_trajectories", "bc --output curated.json")
    made["curated_manifest"] = _read("curated.json")
    _call("merge_rollout_metrics", "captures --golden merged.json")
    made["merged_metrics"] = _read("merged.json")
    record_checksums(Path("versions.json"), "queue", Path("captures/queue"))
    made["audit_report"] = _call("audit_bc_datasets", "--versions versions.json")
    Path("bc.json").write_text('[{"accuracy": 0.5}, {"accuracy": 1.0}]', encoding="utf-8")
    made["bc_metrics_summary"] = _call("bc_metrics_summary", "bc.json")
    stages = [{"cycle": 0, "mode": "bc", "passed": False}, {"cycle": 1, "mode": "ppo", "anneal_loss_flag": True}]
    Path("summary.json").write_text(json.dumps({"status": "FAIL", "results": stages}), encoding="utf-8")
    made["promotion_evaluate"] = _call("promotion_evaluate", "--input summary.json")
    _call("promotion_drill", "--config base.yaml --output drill --checkpoint base.yaml")
    made["promotion_drill_summary"] = _read("drill/promotion_drill_summary.json")
    made["promotion_snapshot"] = orchestrator.promotion.snapshot()
    made["promotion_log"] = _lines("drill/promotion_history.jsonl")
    return made


def with_torch() -> dict[str, Any]:
    """Go on in the same directory with what trains."""
    made: dict[str, Any] = {}
    replay = "base.yaml --mode replay --capture-dir captures/queue --train-ppo"
    _call("run_training", f"{replay} --ppo-log ppo.jsonl")
    made["ppo_log_line"] = _lines("ppo.jsonl")[0]
    _call("run_training", "queue.yaml --mode rollout --rollout-ticks 6 --train-ppo --ppo-log rollout.jsonl")
    made["ppo_log_line_rollout"] = _lines("rollout.jsonl")[0]
    made["run_bc"] = _call("run_training", "base.yaml --mode bc --bc-manifest curated.json")
    made["anneal_rehearsal"] = _call("run_anneal_rehearsal", "--config base.yaml --manifest curated.json --log-dir log")
    made["anneal_results"] = _read("log/anneal_results.json")
    anneal = "base.yaml --mode anneal --bc-manifest curated.json --replay-manifest curated.json"
    made["anneal_command"] = _call("run_training", anneal)
    return made


@pytest.fixture(scope="module")
def produced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with contextlib.chdir(tmp_path_factory.mktemp("golden")):
        made = without_torch()
        yield {**made, **with_torch()} if torch_available() else made


@pytest.mark.parametrize("name", [*WITHOUT_TORCH, *WITH_TORCH])
def test_json_has_the_golden_shape(name: str, produced: dict[str, Any]) -> None:
    if name in WITH_TORCH and not torch_available():
        pytest.skip("needs torch")
    assert shape(produced[name]) == golden(name)


def test_replay_and_analysis_commands_work_without_torch(tmp_path: Path) -> None:
    code = f"""
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torch", "townlet_training_torch"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Block())
        sys.path.insert(0, {str(GOLDEN.parent)!r})
        import test_golden_files as golden
        assert not golden.torch_available()
        made = golden.without_torch()
        wrong = [name for name in golden.WITHOUT_TORCH if golden.shape(made[name]) != golden.golden(name)]
        assert wrong == [], wrong
        assert "torch" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_every_golden_file_is_compared() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted([*WITHOUT_TORCH, *WITH_TORCH])


def test_shapes_keep_words_and_drop_what_varies() -> None:
    value = {"mode": "bc", "at": "2024-01-02T03:04:05", "of": "a/b.npz", "id": "scripted-0123456789abcdef", "n": 3}
    assert shape(value) == {"mode": "bc", "at": "time", "of": "path", "id": "hash", "n": "int"}
    assert shape([[1.0, 2.0], [3.0]]) == [["float"]]
    assert shape([1, 2.0, True, None]) == ["int", "float", "bool", None]
    assert shape(list("abcde")) == ["str"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        for name, payload in {**without_torch(), **with_torch()}.items():
            (GOLDEN / f"{name}.json").write_text(json.dumps(shape(payload), indent=2) + "\n", encoding="utf-8")
