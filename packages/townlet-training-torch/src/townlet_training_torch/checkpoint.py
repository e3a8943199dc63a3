"""Checkpoints: folders that are whole, verified by checksum, or ignored.

A checkpoint is written under a temporary name, flushed and renamed; ``latest`` is updated last::

    checkpoints/
      latest                   name of the newest checkpoint
      00000010-01-ppo/
        policy.safetensors     weights and observation moments
        policy.json            what core needs to act with them
        optimizer.safetensors  moments of the optimiser, and weights in training where they differ from the policy
        rollout.safetensors    simulation, streams, generators, running returns
        state.json             counters, versions
        MANIFEST.json          format version, SHA-256 of every file
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_core.errors import CheckpointError
from townlet_training_core.files import atomic_write_text, sha256_file, sync_directory
from townlet_training_core.policy.exported import DESCRIPTION_FILE, WEIGHTS_FILE, find_policy

__all__ = [
    "CHECKPOINT_FORMAT_VERSION",
    "CheckpointStore",
    "Snapshot",
    "find_checkpoint",
    "point_latest",
    "read_snapshot",
]

CHECKPOINT_FORMAT_VERSION = 1

_MANIFEST = "MANIFEST.json"
_TEMPORARY = ".writing-"
_OPTIMIZER, _ROLLOUT, _STATE = "optimizer.safetensors", "rollout.safetensors", "state.json"
_COMPONENTS = ("townlet-training-core", "townlet-training-torch", "torch", "numpy")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a run goes on from, as numpy arrays and plain JSON; it shares no memory with the run."""

    step: int
    tensors: Mapping[str, NDArray[Any]]
    description: PolicyDescription
    optimizer: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    rollout: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder meant by ``path``: itself, or the latest of a run.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    return find_policy(path)


def point_latest(folder: Path) -> None:
    """Let ``latest`` beside a checkpoint name it: after a rollback the newest is not the one to use."""
    atomic_write_text(folder.parent / "latest", folder.name + "\n")


def read_snapshot(folder: Path, *, weights_only: bool = False) -> Snapshot:
    """Read and verify a checkpoint; ``weights_only`` also accepts an exported policy.

    Raises
    ------
    CheckpointError
        When anything is missing, torn, changed, or of a newer format.
    """
    manifest = folder / _MANIFEST
    try:
        if manifest.is_file() or not weights_only:
            _verify(folder, json.loads(manifest.read_bytes()))
        description = PolicyDescription.model_validate_json((folder / DESCRIPTION_FILE).read_bytes())
        tensors = load_tensors((folder / WEIGHTS_FILE).read_bytes())
        if weights_only:
            return Snapshot(step=0, tensors=tensors, description=description)
        state = json.loads((folder / _STATE).read_bytes())
        return Snapshot(
            step=int(state["step"]),
            tensors=tensors,
            description=description,
            optimizer=load_tensors((folder / _OPTIMIZER).read_bytes()),
            rollout=load_tensors((folder / _ROLLOUT).read_bytes()),
            state=state,
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError, SafetensorError) as error:
        msg = f"checkpoint {str(folder)!r} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
        raise CheckpointError(msg) from error


def _verify(folder: Path, manifest: Any) -> None:
    found = manifest["format_version"]
    if found != CHECKPOINT_FORMAT_VERSION:
        msg = f"checkpoint {str(folder)!r} has format {found!r}, this version reads {CHECKPOINT_FORMAT_VERSION}"
        raise CheckpointError(msg)
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE, _OPTIMIZER, _ROLLOUT, _STATE):
        if sha256_file(folder / name) != manifest["files"][name]:
            msg = f"checkpoint {str(folder)!r}: {name} differs from its checksum; it is torn or was changed"
            raise CheckpointError(msg)


class CheckpointStore:
    """The checkpoints of one run, or of one stage of an anneal.

    Parameters
    ----------
    folder:
        ``checkpoints`` of the run directory.
    stage:
        Suffix of the folders; stages neither see nor prune one another's checkpoints.
    keep_last, keep_best:
        How many newest, and how many of the highest score, are kept.
    """

    def __init__(self, folder: Path, *, stage: str = "", keep_last: int = 3, keep_best: int = 1) -> None:
        self.folder, self.stage = folder, stage
        self._keep_last, self._keep_best = keep_last, keep_best

    def save(self, snapshot: Snapshot, *, score: float | None = None) -> Path:
        """Write a checkpoint and return its folder; one of the same step that is sound already is kept.

        ``score`` decides what is best; higher is better.
        """
        target = self.folder / (f"{snapshot.step:08d}-{self.stage}" if self.stage else f"{snapshot.step:08d}")
        if not self._sound(target):
            self._discard(target)
            temporary = self.folder / f"{_TEMPORARY}{target.name}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._write(temporary, snapshot, score)
            sync_directory(temporary)
            temporary.rename(target)
            sync_directory(self.folder)
        point_latest(target)
        self._prune()
        return target

    def newest(self) -> Snapshot | None:
        """Return the newest sound checkpoint of this stage; each torn one before it is named in a warning."""
        for folder in reversed(self.folders()):
            try:
                return read_snapshot(folder)
            except CheckpointError as error:
                _log.warning("%s; trying the one before", error)
        return None

    def folders(self) -> list[Path]:
        """Return this stage's checkpoint folders in order of step, sound or not."""
        if not self.folder.is_dir():
            return []
        found = []
        for path in self.folder.iterdir():
            step, _, stage = path.name.partition("-")
            if path.is_dir() and step.isdigit() and stage == self.stage:
                found.append((int(step), path))
        return [path for _, path in sorted(found)]

    def _write(self, folder: Path, snapshot: Snapshot, score: float | None) -> None:
        state = {**snapshot.state, "step": snapshot.step, "stage": self.stage}
        payloads = {
            WEIGHTS_FILE: _pack(snapshot.tensors),
            DESCRIPTION_FILE: (snapshot.description.model_dump_json(indent=2) + "\n").encode(),
            _OPTIMIZER: _pack(snapshot.optimizer),
            _ROLLOUT: _pack(snapshot.rollout),
            _STATE: (json.dumps(state, indent=2) + "\n").encode(),
        }
        for name, payload in payloads.items():
            _write_flushed(folder / name, payload)
        manifest = {
            "format": "townlet-checkpoint",
            "format_version": CHECKPOINT_FORMAT_VERSION,
            "step": snapshot.step,
            "stage": self.stage,
            "score": score,
            "versions": {name: _version(name) for name in _COMPONENTS},
            "files": {name: sha256_file(folder / name) for name in payloads},
        }
        _write_flushed(folder / _MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())

    def _sound(self, folder: Path) -> bool:
        try:
            _verify(folder, json.loads((folder / _MANIFEST).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _prune(self) -> None:
        folders = self.folders()
        scored = [(score, path) for path in folders if (score := _score(path)) is not None]
        best = {path for _, path in sorted(scored, key=lambda item: item[0])[-self._keep_best :]}
        for path in folders[: -self._keep_last]:
            if path not in best or not self._keep_best:
                self._discard(path)

    def _discard(self, folder: Path) -> None:
        """Remove a folder; renamed first, so that a kill leaves no half checkpoint."""
        if folder.exists():
            doomed = folder.with_name(f"{_TEMPORARY}discard-{folder.name}")
            shutil.rmtree(doomed, ignore_errors=True)
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    packed: bytes = save_tensors({name: np.array(array, order="C") for name, array in arrays.items()})
    return packed


def _write_flushed(path: Path, payload: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(payload)
        stream.flush()
        os.fsync(stream.fileno())


def _score(folder: Path) -> float | None:
    try:
        score = json.loads((folder / _MANIFEST).read_bytes())["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if score is None else float(score)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
