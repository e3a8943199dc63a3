"""JSON Lines telemetry: appended line by line, continued in numbered files, readable after a crash.

``telemetry.jsonl`` is continued in ``telemetry.jsonl.1``, ``.2``, ... when a limit is reached. A line that
was written is never moved or rewritten, so that a reader may follow along.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.runs import RunDirectory

__all__ = ["TELEMETRY_VERSION", "JsonlTelemetry", "JsonlWriter", "log_files", "read_jsonl"]

TELEMETRY_VERSION = 2.0
"""Version of the envelope ``{"kind": ..., ...record}`` of a run's telemetry."""

_log = logging.getLogger(__name__)


def log_files(path: Path) -> list[Path]:
    """Return ``path`` and its continuations, in the order in which they were written."""
    numbered = []
    for candidate in path.parent.glob(f"{path.name}.*"):
        suffix = candidate.name.removeprefix(f"{path.name}.")
        if suffix.isdecimal():
            numbered.append((int(suffix), candidate))
    return [*([path] if path.exists() else []), *(candidate for _, candidate in sorted(numbered))]


class JsonlWriter:
    """Appends JSON objects to a file and its continuations.

    Parameters
    ----------
    path:
        First file. Existing lines are kept; a torn last line (no newline) is closed off first.
    max_entries, max_bytes:
        Lines and bytes after which the next file is begun; ``None`` or anything below 1 never rotates.

    Raises
    ------
    ConfigurationError
        When the file cannot be opened.
    """

    def __init__(self, path: Path, *, max_entries: int | None = None, max_bytes: int | None = None) -> None:
        self.path = path
        self._max_entries = max_entries if max_entries is not None and max_entries > 0 else None
        self._max_bytes = max_bytes if max_bytes is not None and max_bytes > 0 else None
        existing = log_files(path)
        self._index = int(existing[-1].name.rpartition(".")[2]) if existing and existing[-1] != path else 0
        self._stream = self._open(existing[-1] if existing else path)

    def _open(self, path: Path) -> IO[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+b")
        except OSError as error:
            msg = f"cannot write log {str(path)!r}: {error.strerror or error}"
            raise ConfigurationError(msg) from error
        stream.seek(0)
        self._entries = sum(1 for _ in stream)
        self._bytes = stream.seek(0, os.SEEK_END)
        if self._bytes:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
                self._bytes += 1
        return stream

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object; it is handed to the operating system whole before this returns."""
        line = json.dumps(_finite(record), ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
        full = (self._max_entries is not None and self._entries >= self._max_entries) or (
            self._max_bytes is not None and self._entries > 0 and self._bytes + len(line) > self._max_bytes
        )
        if full:
            self._stream.close()
            self._index += 1
            self._stream = self._open(self.path.with_name(f"{self.path.name}.{self._index}"))
        self._stream.write(line)
        self._stream.flush()
        self._entries += 1
        self._bytes += len(line)

    def close(self) -> None:
        """Flush to disk and close; safe to call twice."""
        if not self._stream.closed:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class JsonlTelemetry:
    """A telemetry sink that writes one line per record: ``{"kind": kind, ...record}``."""

    writer: JsonlWriter

    @classmethod
    def for_run(cls, run: RunDirectory, config: TrainingConfig) -> JsonlTelemetry:
        """Open ``telemetry.jsonl`` of a run with the limits of the configuration."""
        limits = config.telemetry
        return cls(JsonlWriter(run.telemetry, max_entries=limits.max_log_entries, max_bytes=limits.max_log_bytes))

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write a record."""
        self.writer.write({"kind": kind, **record})

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a log and its continuations.

    A torn last line of a file is skipped with one warning; anything else that is not an object is an error.

    Raises
    ------
    DataError
        With file and line number.
    """
    files = log_files(path)
    if not files:
        msg = f"log {str(path)!r} does not exist"
        raise DataError(msg)
    for file in files:
        lines = file.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                if number == len(lines):
                    _log.warning("skipping the torn last line %d of %s", number, file)
                    continue
                msg = f"{str(file)!r}, line {number}: not valid JSON: {error}"
                raise DataError(msg) from error
            if not isinstance(record, dict):
                msg = f"{str(file)!r}, line {number}: expected an object, found {type(record).__name__}"
                raise DataError(msg)
            yield record


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for: NaN and infinities become strings, as in the result records."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, bool | int | float | str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
