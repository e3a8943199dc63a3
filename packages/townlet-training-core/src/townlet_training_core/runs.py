"""The run directory: one folder per run, locked while it is written.

::

    runs/<run-id>/
      run.json             what was run
      telemetry.jsonl      one object per epoch, iteration or stage
      checkpoints/<step>/  see the torch package
      results/*.json       result records
    runs/latest            the name of the newest run, updated last
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from townlet_training_core.errors import ArtifactError, RunDirectoryError
from townlet_training_core.files import atomic_write_json, atomic_write_text

__all__ = ["RUN_SCHEMA_VERSION", "RunDirectory", "describe_environment", "latest_run", "list_runs", "new_run_id"]

RUN_SCHEMA_VERSION = 1

_PACKAGES = ("townlet-training-core", "townlet-training-torch", "townlet-sim", "townlet", "torch", "numpy", "numba")


def new_run_id(strategy: str) -> str:
    """Make a run id that sorts by time: ``<UTC time>-<strategy>-<random>``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{strategy}-{secrets.token_hex(2)}"


def describe_environment() -> dict[str, Any]:
    """Return the versions and the platform that a run depends on, for ``run.json``; imports none of the packages."""
    return {
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "platform": {"python": sys.version.split()[0], "system": platform.platform(), "machine": platform.machine()},
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


class RunDirectory:
    """An open run directory; a context manager that holds the write lock.

    Use :meth:`create` for a new run, :meth:`resume` to go on writing one, and :meth:`read` to look at one.
    """

    def __init__(self, path: Path, *, lock: IO[bytes] | None) -> None:
        self.path = path
        self._lock = lock

    @property
    def run_id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """Folder of result records."""
        return self.path / "results"

    @property
    def telemetry(self) -> Path:
        """The telemetry log."""
        return self.path / "telemetry.jsonl"

    @classmethod
    def create(cls, root: Path, *, run_id: str) -> RunDirectory:
        """Make ``root/run_id`` and lock it.

        Raises
        ------
        RunDirectoryError
            When it exists, or ``root`` cannot be written.
        """
        path = root / run_id
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            (path / "checkpoints").mkdir()
            (path / "results").mkdir()
        except FileExistsError as error:
            msg = f"run directory {str(path)!r} exists already; resume it or choose another --run-id"
            raise RunDirectoryError(msg) from error
        except OSError as error:
            msg = f"cannot make run directory {str(path)!r}: {error.strerror or error}"
            raise RunDirectoryError(msg) from error
        return cls(path, lock=_lock(path))

    @classmethod
    def resume(cls, path: Path) -> RunDirectory:
        """Open an existing run for writing and lock it."""
        run = cls.read(path)
        return cls(run.path, lock=_lock(run.path))

    @classmethod
    def read(cls, path: Path) -> RunDirectory:
        """Open an existing run for reading; ``path`` may be a runs folder, which means its latest run."""
        path = latest_run(path)
        if not (path / "run.json").is_file():
            msg = f"{str(path)!r} is not a run directory: it has no run.json"
            raise RunDirectoryError(msg)
        return cls(path, lock=None)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; safe to call twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write ``run.json`` and let ``latest`` point here."""
        atomic_write_json(self.path / "run.json", {"schema_version": RUN_SCHEMA_VERSION, **manifest})
        atomic_write_text(self.path.parent / "latest", self.run_id + "\n")

    def manifest(self) -> dict[str, Any]:
        """Read ``run.json``."""
        return _read_object(self.path / "run.json")

    def write_result(self, name: str, payload: Mapping[str, Any]) -> str:
        """Write ``results/<name>.json`` and return its path relative to the run directory."""
        target = self.results / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_json(target, payload)
        return target.relative_to(self.path).as_posix()

    def read_result(self, name: str) -> dict[str, Any] | None:
        """Read ``results/<name>.json``, or return ``None`` when it is not there."""
        target = self.results / f"{name}.json"
        return _read_object(target) if target.is_file() else None


def latest_run(path: Path) -> Path:
    """Return the latest run of a runs folder, or ``path`` itself when it is none."""
    pointer = path / "latest"
    return path / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else path


def list_runs(root: Path) -> Iterator[RunDirectory]:
    """Yield the runs below ``root`` in order of name, which is order of time."""
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if (path / "run.json").is_file():
                yield RunDirectory(path, lock=None)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"cannot read {str(path)!r}: {error}"
        raise ArtifactError(msg) from error
    if not isinstance(payload, dict):
        msg = f"{str(path)!r} holds {type(payload).__name__}, expected an object"
        raise ArtifactError(msg)
    return payload


def _lock(path: Path) -> IO[bytes]:
    """Take the write lock of a run; the kernel drops it when the process ends, however it ends."""
    try:
        handle = (path / ".lock").open("a+b")
    except OSError as error:
        msg = f"cannot write in run directory {str(path)!r}: {error.strerror or error}"
        raise RunDirectoryError(msg) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.read().decode(errors="replace").strip() or "unknown"
        handle.close()
        msg = f"run directory {str(path)!r} is being written by process {owner}; wait for it or stop it"
        raise RunDirectoryError(msg) from error
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n".encode())
    handle.flush()
    return handle
