"""Read what a run directory knows, leniently: what is missing is left out, what is corrupt is an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.release import PromotionVerdict
from townlet_training_core.errors import ArtifactError
from townlet_training_core.evaluation.service import read_result
from townlet_training_core.runs import RunDirectory
from townlet_training_core.telemetry.jsonl import log_files, read_jsonl

__all__ = ["Confusion", "RunRecord", "Series", "gather", "gather_folder"]

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True)
class Series:
    """The numbers of one kind of telemetry, in order.

    ``columns`` maps names to values, NaN where a record has none; ``stages`` names the anneal stage of each record.
    """

    kind: str
    columns: Mapping[str, Sequence[float]]
    stages: Sequence[str]

    def __len__(self) -> int:
        return len(self.stages)


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix of cloning: ``counts[i][j]`` decisions that should have been ``names[i]`` and were ``[j]``."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    accuracy: float
    samples: int
    vacuous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that a report shows of one run."""

    name: str
    manifest: Mapping[str, Any]
    series: Mapping[str, Series]
    results: Mapping[str, Mapping[str, Any]]
    evaluations: Sequence[EvaluationResult]
    confusions: Sequence[Confusion]
    stages: Sequence[Mapping[str, Any]]
    verdicts: Sequence[PromotionVerdict] = field(default_factory=tuple)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that was run."""
        found = self.manifest.get("config")
        return found if isinstance(found, Mapping) else {}


def gather(run: RunDirectory, *, verdicts: Sequence[Path] = ()) -> RunRecord:
    """Read a run.

    Parameters
    ----------
    verdicts:
        Files that ``townlet promote evaluate --output`` wrote, beside those among the run's results.

    Raises
    ------
    ArtifactError
        When a file is corrupt; the message names it.
    """
    return _collect(run.results, name=run.run_id, manifest=run.manifest(), series=_series(run), verdicts=verdicts)


def gather_folder(path: Path, *, verdicts: Sequence[Path] = ()) -> RunRecord:
    """Read a folder of results without a run: what ``townlet evaluate --output`` wrote.

    Raises
    ------
    ArtifactError
        When there is no result in it, or a file is corrupt.
    """
    record = _collect(path, name=path.resolve().name, manifest={}, series={}, verdicts=verdicts)
    if not record.evaluations and not record.verdicts:
        msg = f"{str(path)!r} is neither a run directory nor a folder of evaluation results"
        raise ArtifactError(msg)
    return record


def _collect(
    folder: Path,
    *,
    name: str,
    manifest: Mapping[str, Any],
    series: Mapping[str, Series],
    verdicts: Sequence[Path],
) -> RunRecord:
    results: dict[str, Mapping[str, Any]] = {}
    evaluations, confusions, judged = [], [], []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        key = path.relative_to(folder).with_suffix("").as_posix()
        payload = _json(path)
        if isinstance(payload, list):
            continue  # the predecessor's list of stages; anneal.json has them too
        if not isinstance(payload, dict):
            msg = f"{str(path)!r} holds {type(payload).__name__}, expected an object"
            raise ArtifactError(msg)
        if "policy_hash" in payload and "returns" in payload:
            evaluations.append(read_result(path))
        elif "pass_streak" in payload and "lower_bound" in payload:
            judged.append(_record(PromotionVerdict, path))
        elif "confusion" in payload:
            confusions.append(_confusion(key, payload, path))
        else:
            results[key] = payload
    judged += [_record(PromotionVerdict, path) for path in verdicts]
    stages = results.get("anneal", {}).get("stages")
    return RunRecord(
        name=name,
        manifest=manifest,
        series=series,
        results=results,
        evaluations=_in_order(evaluations),
        confusions=confusions,
        stages=[stage for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list) else [],
        verdicts=judged,
    )


def _series(run: RunDirectory) -> dict[str, Series]:
    records: dict[str, dict[Any, dict[str, Any]]] = {}
    if log_files(run.telemetry):
        for record in read_jsonl(run.telemetry):
            rows = records.setdefault(str(record.get("kind", "ppo.summary")), {})
            # A resumed run may write an epoch again; the later record counts.
            rows[record.get("stage", ""), record.get("epoch", len(rows))] = _flat(record)
    series = {}
    for kind, found in records.items():
        listed = list(found.values())
        names = dict.fromkeys(name for row in listed for name, value in row.items() if _number(value) is not None)
        columns = {name: [_value(row.get(name)) for row in listed] for name in names}
        series[kind] = Series(kind, columns, [str(row.get("stage") or "") for row in listed])
    return series


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {key: value}
    return flat


def _value(value: Any) -> float:
    number = _number(value)
    return math.nan if number is None else number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _confusion(name: str, payload: Mapping[str, Any], path: Path) -> Confusion:
    try:
        counts = [[int(cell) for cell in row] for row in payload["confusion"]]
        kept = [i for i in range(len(counts)) if any(counts[i]) or any(row[i] for row in counts)]
        names = [str(action) for action in payload["actions"]]
        if len(names) != len(kept):
            names = [f"action {i}" for i in kept]
        return Confusion(
            title=name,
            names=names,
            counts=[[counts[i][j] for j in kept] for i in kept],
            accuracy=float(payload["accuracy"]),
            samples=int(payload["samples"]),
            vacuous=bool(payload.get("vacuous", False)),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"{str(path)!r} is not a sound classification report: {error!r}"
        raise ArtifactError(msg) from error


def _in_order(found: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    known = ["random", "expert", "bc", "final"]
    return sorted(found, key=lambda result: (known.index(result.label) if result.label in known else 2.5, result.label))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"cannot read {str(path)!r}: {error}"
        raise ArtifactError(msg) from error


def _record(model: type[RecordT], path: Path) -> RecordT:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"cannot read {str(path)!r}: {error.strerror}"
        raise ArtifactError(msg) from error
    except ValidationError as error:
        msg = f"{str(path)!r} is not a sound {model.__name__}: {error.errors()[0]['msg']}"
        raise ArtifactError(msg) from error
