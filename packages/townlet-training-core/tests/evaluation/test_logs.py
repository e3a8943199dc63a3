"""Training logs: what is refused, and what drifts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from townlet_training_core.cli.analysis import app
from townlet_training_core.errors import DataError
from townlet_training_core.evaluation.logs import CONFLICT_KEYS, NUMERIC_KEYS, REQUIRED_KEYS, validate_logs


def summary(version: float = 1.2, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys((*REQUIRED_KEYS, *CONFLICT_KEYS), 1.0)
    if version >= 1.1:
        record |= dict.fromkeys(NUMERIC_KEYS, 0.5) | {"data_mode": "rollout"}
    record["telemetry_version"] = version
    return {key: value for key, value in (record | changes).items() if value is not ...}


def log(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("version", [1.0, 1.1, 1.2])
def test_sound_summaries_of_every_format_pass(tmp_path: Path, version: float) -> None:
    (report,) = validate_logs([log(tmp_path / "a.jsonl", summary(version), summary(version))])
    assert (report.records, report.kinds) == (2, {"ppo.summary": 2})


def test_telemetry_of_a_run_passes(tmp_path: Path) -> None:
    path = log(tmp_path / "telemetry.jsonl", {"kind": "bc.epoch", "loss": 1.0}, {"kind": "ppo.iteration", "a": [1.0]})
    assert validate_logs([path])[0].kinds == {"bc.epoch": 1, "ppo.iteration": 1}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (summary(loss_total=...), r"record 2: missing required telemetry keys: \['loss_total'\]"),
        ({k: v for k, v in summary().items() if k != CONFLICT_KEYS[0]}, "missing conflict telemetry keys"),
        (summary(cycle_id="no"), r"version 1.2 requires numeric keys: \['cycle_id'\]"),
        (summary(data_mode=3), "requires string keys"),
        (summary(1.0, cycle_id=1.0), "must not carry keys of version 1.1"),
        (summary(lr="fast"), "'lr' is 'fast', expected a number"),
        (summary(extra="NaN"), "'extra' is not finite"),
        ({"kind": "x", "deep": {"value": [1.0, "Infinity"]}}, "'deep.value' is not finite"),
        ({"kind": 3}, "'kind' is 3"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        validate_logs([log(tmp_path / "a.jsonl", summary(), record)])


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        validate_logs([log(tmp_path / "a.jsonl")])


def test_drift_from_a_baseline(tmp_path: Path) -> None:
    path = log(tmp_path / "a.jsonl", summary(loss_total=9.0), summary(loss_total=1.5))
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"loss_total": 2.0, "kl_divergence": 1.0, "adv_mean": 0.0}))
    (report,) = validate_logs([path], baseline, 1.0)
    assert report.drift == {"loss_total": -0.5, "adv_mean": 1.0, "kl_divergence": 0.0}
    with pytest.raises(DataError, match=r"Baseline drift exceeds threshold 0.4: loss_total -0.5"):
        validate_logs([path], baseline, 0.4)
    (relative,) = validate_logs([path], baseline, 0.3, include_relative=True)
    assert relative.relative_drift == {"loss_total": -0.25, "kl_divergence": 0.0}
    for text in (json.dumps([summary(loss_total=2.0)]), json.dumps(summary(1.0)) + "\n" + json.dumps(summary())):
        baseline.write_text(text)
        assert "loss_total" in validate_logs([path], baseline)[0].drift
    baseline.write_text("3")
    with pytest.raises(DataError, match="expected a JSON object"):
        validate_logs([path], baseline)
    with pytest.raises(DataError, match="cannot read baseline"):
        validate_logs([path], tmp_path / "absent.json")


def test_the_command(tmp_path: Path) -> None:
    path = log(tmp_path / "a.jsonl", summary())
    shown = CliRunner().invoke(app, ["validate-log", str(path), "--baseline", str(path)])
    assert "1 records (1 ppo.summary)" in shown.output
    assert "loss_total: +0" in shown.output
    printed = CliRunner().invoke(app, ["validate-log", str(path), "--json"])
    assert json.loads(printed.output)[0]["records"] == 1
