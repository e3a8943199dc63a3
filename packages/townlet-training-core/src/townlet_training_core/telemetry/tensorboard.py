"""TensorBoard events beside the JSON Lines, written without torch (extra ``tensorboard``)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import MissingDependencyError
from townlet_training_core.runs import RunDirectory
from townlet_training_core.telemetry.events import TelemetrySink
from townlet_training_core.telemetry.jsonl import JsonlTelemetry

__all__ = ["Sinks", "TensorBoardTelemetry", "open_telemetry", "require_tensorboard"]

_STEP_KEYS = ("steps", "iteration", "epoch")
"""Where a record says how far it is, in order of preference."""


def require_tensorboard() -> None:
    """Check that event files can be written.

    Raises
    ------
    MissingDependencyError
        When tensorboardX is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        install = "pip install 'townlet-training-core[tensorboard]'"
        raise MissingDependencyError("telemetry.tensorboard", install=install)


class TensorBoardTelemetry:
    """A telemetry sink that writes every number of a record as a scalar ``<kind>/<name>``.

    The step of a record is its ``steps``, ``iteration`` or ``epoch``, else how many records of its kind there were.

    Parameters
    ----------
    folder:
        Folder of the event files.

    Raises
    ------
    MissingDependencyError
        When tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        require_tensorboard()
        self._writer: Any = importlib.import_module("tensorboardX").SummaryWriter(str(folder))
        self._counts: dict[str, int] = {}

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record; nested sections are named by their path."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        step = next((int(record[key]) for key in _STEP_KEYS if isinstance(record.get(key), int | float)), count)
        prefix = f"{kind}/{record['stage']}" if record.get("stage") else kind
        for name, value in _numbers(record):
            if name not in _STEP_KEYS:
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


@dataclass(frozen=True, slots=True)
class Sinks:
    """Several sinks as one."""

    sinks: tuple[TelemetrySink, ...] = field(default_factory=tuple)

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write to each."""
        for sink in self.sinks:
            sink.log(kind, record)

    def close(self) -> None:
        """Close each."""
        for sink in self.sinks:
            sink.close()


def open_telemetry(run: RunDirectory, config: TrainingConfig) -> TelemetrySink:
    """Open what a configuration asks for: ``telemetry.jsonl``, and ``tensorboard/`` beside it."""
    lines = JsonlTelemetry.for_run(run, config)
    if not config.telemetry.tensorboard:
        return lines
    return Sinks((lines, TensorBoardTelemetry(run.path / "tensorboard")))
