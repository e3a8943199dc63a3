"""Check training logs: whole lines, the right keys, finite numbers, and how far from a baseline.

Two formats are known: the run directory's telemetry (objects with a ``kind``), and the flat PPO summaries of format
1.0 to 1.2 that existing tools read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from townlet_training_core.dto.base import Record
from townlet_training_core.errors import DataError
from townlet_training_core.telemetry.jsonl import read_jsonl

__all__ = ["CONFLICT_KEYS", "NUMERIC_KEYS", "REQUIRED_KEYS", "LogReport", "validate_logs"]

REQUIRED_KEYS = (
    "epoch",
    "updates",
    "transitions",
    "loss_policy",
    "loss_value",
    "loss_entropy",
    "loss_total",
    "clip_fraction",
    "adv_mean",
    "adv_std",
    "grad_norm",
    "kl_divergence",
    "telemetry_version",
    "lr",
    "steps",
)
"""Keys of every flat summary."""

CONFLICT_KEYS = tuple(
    f"conflict.{feature}_{part}_avg" for feature in ("rivalry_max", "rivalry_avoid_count") for part in ("mean", "max")
)
"""Conflict keys of every flat summary."""

NUMERIC_KEYS = (
    "epoch_duration_sec",
    "cycle_id",
    "batch_entropy_mean",
    "batch_entropy_std",
    "grad_norm_max",
    "kl_divergence_max",
    "reward_advantage_corr",
    "rollout_ticks",
    "log_stream_offset",
    "queue_conflict_events",
    "queue_conflict_intensity_sum",
)
"""Numbers that a flat summary has from format 1.1 on, and must not have before."""

STRING_KEYS = ("data_mode",)

_DRIFT_KEYS = (
    *(key for key in REQUIRED_KEYS if key.startswith(("loss_", "adv_", "clip_", "grad_", "kl_"))),
    *CONFLICT_KEYS,
)


class LogReport(Record):
    """What a log holds."""

    path: str = Field(description="First file of the log.")
    records: int = Field(ge=0, description="Objects in it.")
    kinds: dict[str, int] = Field(description="Objects by kind; flat summaries count as 'ppo.summary'.")
    drift: dict[str, float] = Field(default_factory=dict, description="Last summary minus baseline, by key.")
    relative_drift: dict[str, float] = Field(default_factory=dict, description="Drift over the baseline's size.")


def validate_logs(
    paths: Sequence[Path],
    baseline_path: Path | None = None,
    drift_threshold: float | None = None,
    include_relative: bool = False,
) -> tuple[LogReport, ...]:
    """Check logs, and the last flat summary of each against a baseline.

    Parameters
    ----------
    baseline_path:
        JSON object with some of the keys, or a log whose last summary is taken.
    drift_threshold:
        Largest absolute difference from the baseline that is tolerated; relative where ``include_relative``.

    Raises
    ------
    DataError
        With file and record, for what is missing, of a wrong type, not finite, or too far from the baseline.
    """
    baseline = None if baseline_path is None else _baseline(Path(baseline_path))
    return tuple(
        _validate(Path(path), baseline, threshold=drift_threshold, relative=include_relative) for path in paths
    )


def _validate(
    path: Path, baseline: Mapping[str, float] | None, *, threshold: float | None, relative: bool
) -> LogReport:
    kinds: dict[str, int] = {}
    last: Mapping[str, Any] | None = None
    count = 0
    for count, record in enumerate(read_jsonl(path), start=1):
        where = f"{str(path)!r}, record {count}"
        kind = record.get("kind")
        if kind is None:
            _check_summary(record, where)
            last, kind = record, "ppo.summary"
        elif not isinstance(kind, str):
            msg = f"{where}: 'kind' is {kind!r}, expected a string"
            raise DataError(msg)
        _check_finite(record, where)
        kinds[kind] = kinds.get(kind, 0) + 1
    if not count:
        msg = f"{str(path)!r} is empty: there is nothing to validate"
        raise DataError(msg)
    drift, shares = _drift(last, baseline)
    judged = shares if relative else drift
    beyond = {key: value for key, value in judged.items() if threshold is not None and abs(value) > threshold}
    if beyond:
        listed = ", ".join(f"{key} {value:+.4g}" for key, value in beyond.items())
        msg = f"{str(path)!r}: Baseline drift exceeds threshold {threshold:g}: {listed}"
        raise DataError(msg)
    return LogReport(path=str(path), records=count, kinds=kinds, drift=drift, relative_drift=shares if relative else {})


def _check_summary(record: Mapping[str, Any], where: str) -> None:
    _require(record, REQUIRED_KEYS, f"{where}: missing required telemetry keys")
    _require(record, CONFLICT_KEYS, f"{where}: missing conflict telemetry keys")
    for key in (*REQUIRED_KEYS, *CONFLICT_KEYS):
        if not _is_number(record[key]):
            msg = f"{where}: {key!r} is {record[key]!r}, expected a number"
            raise DataError(msg)
    version = float(record["telemetry_version"])
    if version < 1.1:
        early = [key for key in (*NUMERIC_KEYS, *STRING_KEYS) if key in record]
        if early:
            msg = f"{where}: telemetry version {version:g} must not carry keys of version 1.1: {early}"
            raise DataError(msg)
        return
    wrong = [key for key in NUMERIC_KEYS if not _is_number(record.get(key))]
    if wrong:
        msg = f"{where}: telemetry version {version:g} requires numeric keys: {wrong}"
        raise DataError(msg)
    wrong = [key for key in STRING_KEYS if not isinstance(record.get(key), str)]
    if wrong:
        msg = f"{where}: telemetry version {version:g} requires string keys: {wrong}"
        raise DataError(msg)


def _check_finite(record: Mapping[str, Any], where: str) -> None:
    for key, value in _flat(record):
        if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, float) and not math.isfinite(value)):
            msg = f"{where}: {key!r} is not finite ({value})"
            raise DataError(msg)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{key}", item) for item in value)
        else:
            yield f"{prefix}{key}", value


def _require(record: Mapping[str, Any], keys: Iterable[str], text: str) -> None:
    missing = sorted(set(keys) - set(record))
    if missing:
        msg = f"{text}: {missing}"
        raise DataError(msg)


def _baseline(path: Path) -> dict[str, float]:
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read baseline {str(path)!r}: {error.strerror}"
        raise DataError(msg) from error
    except ValueError:
        payload = None
    if isinstance(payload, list):
        payload = payload[-1] if payload else None
    if payload is None:
        payload = [*read_jsonl(path)][-1]
    if not isinstance(payload, Mapping):
        msg = f"baseline {str(path)!r}: expected a JSON object of numbers"
        raise DataError(msg)
    return {key: float(payload[key]) for key in _DRIFT_KEYS if _is_number(payload.get(key))}


def _drift(
    last: Mapping[str, Any] | None, baseline: Mapping[str, float] | None
) -> tuple[dict[str, float], dict[str, float]]:
    if last is None or baseline is None:
        return {}, {}
    drift = {key: float(last[key]) - value for key, value in baseline.items() if _is_number(last.get(key))}
    return drift, {key: value / abs(baseline[key]) for key, value in drift.items() if baseline[key] != 0.0}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
