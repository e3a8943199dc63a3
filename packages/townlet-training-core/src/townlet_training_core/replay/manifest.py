"""Manifests: lists of samples, in JSON or YAML, in either of the two shapes that exist.

A manifest is a list of entries, or a mapping with the list under ``samples``. An entry is a path, or a mapping with
``sample`` and optionally ``meta``, ``metrics``, ``accepted``. Relative paths are looked for beside the manifest, then
in the working directory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from townlet_training_core.errors import DataError, MissingFileError
from townlet_training_core.files import atomic_write_json
from townlet_training_core.replay.npz import load_replay_sample, to_builtins
from townlet_training_core.replay.sample import ReplaySample

__all__ = ["Manifest", "ManifestEntry", "load_bc_samples", "load_manifest", "write_manifest"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One sample of a manifest, its paths resolved."""

    sample: Path
    meta: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The entry as it stands in the file (``metrics``, ``agent_id``, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The accepted entries of a manifest.

    ``rejected`` counts entries marked ``accepted: false``, which are left out.
    """

    path: Path
    entries: tuple[ManifestEntry, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rejected: int = 0

    def pairs(self) -> list[tuple[Path, Path | None]]:
        """Return ``(sample, meta)`` of every entry."""
        return [(entry.sample, entry.meta) for entry in self.entries]


def load_manifest(path: Path, *, require_files: bool = True) -> Manifest:
    """Read a manifest of either shape.

    Parameters
    ----------
    require_files:
        Refuse entries whose files do not exist; otherwise their path beside the manifest is returned.

    Raises
    ------
    MissingFileError
        When the manifest or a listed file does not exist.
    DataError
        When it cannot be parsed, has neither shape, or lists nothing that is accepted.
    """
    path = Path(path)
    payload = _parse(path)
    metadata: Mapping[str, Any] = {}
    if isinstance(payload, Mapping):
        found = payload.get("metadata")
        metadata = found if isinstance(found, Mapping) else {}
        payload = payload.get("samples")
        if not isinstance(payload, list):
            msg = f"Manifest {str(path)!r} is missing 'samples' list"
            raise DataError(msg)
    if not isinstance(payload, list):
        msg = (
            f"Manifest {str(path)!r} must be a list or a mapping (it is missing 'samples' list), "
            f"not {type(payload).__name__}"
        )
        raise DataError(msg)
    if not payload:
        msg = f"Manifest {str(path)!r} contains no entries"
        raise DataError(msg)
    accepted = [entry for entry in payload if not (isinstance(entry, Mapping) and entry.get("accepted") is False)]
    rejected = len(payload) - len(accepted)
    if rejected:
        _log.info("%s: skipping %d of %d entries, which are marked accepted: false", path, rejected, len(payload))
    if not accepted:
        msg = f"Manifest {str(path)!r} contains no entries that are accepted ({rejected} are rejected)"
        raise DataError(msg)
    entries = tuple(_entry(item, path, number, require_files) for number, item in enumerate(accepted))
    repeated = len(entries) - len({entry.sample for entry in entries})
    if repeated:
        _log.warning("%s lists %d sample(s) more than once; they count as often as they are listed", path, repeated)
    return Manifest(path=path, entries=entries, metadata=metadata, rejected=rejected)


def _parse(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(str(path))
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix not in (".json", ".jsonl"):
            return yaml.safe_load(text)
        try:
            return json.loads(text)
        except ValueError:
            if path.suffix != ".jsonl":
                raise
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        msg = f"Manifest {str(path)!r} cannot be read: {error}"
        raise DataError(msg) from error


def _entry(item: Any, path: Path, number: int, require_files: bool) -> ManifestEntry:
    fields: Mapping[str, Any] = {"sample": item} if isinstance(item, str) else item
    if not isinstance(fields, Mapping) or not fields.get("sample"):
        msg = f"Manifest entry missing 'sample' field: entry {number} of {str(path)!r}"
        raise DataError(msg)
    meta = fields.get("meta")
    for key, value in (("sample", fields["sample"]), ("meta", meta)):
        if value is not None and (not isinstance(value, str) or "\0" in value):
            msg = f"Manifest {str(path)!r}, entry {number}: {key!r} is {value!r}, expected a path"
            raise DataError(msg)
    return ManifestEntry(
        sample=_resolve(str(fields["sample"]), path, number, require_files),
        meta=None if not meta else _resolve(str(meta), path, number, require_files),
        fields=fields,
    )


def _resolve(text: str, manifest: Path, number: int, require_files: bool) -> Path:
    given = Path(text)
    tried = [given] if given.is_absolute() else [manifest.parent / given, Path.cwd() / given]
    try:
        for candidate in tried:
            if candidate.exists():
                return candidate.resolve() if ".." in candidate.parts else candidate
    except OSError as error:  # a name that the file system cannot hold
        msg = f"Manifest {str(manifest)!r}, entry {number}: {text!r} is no usable path: {error.strerror}"
        raise DataError(msg) from error
    if not require_files:
        return tried[0]
    msg = (
        f"Manifest {str(manifest)!r}, entry {number}: {text!r} does not exist; looked for "
        f"{' and '.join(str(candidate) for candidate in tried)}"
    )
    raise MissingFileError(msg)


def write_manifest(
    path: Path, entries: Sequence[Mapping[str, Any]], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the mapping shape: ``{"metadata": ..., "samples": [...]}``."""
    atomic_write_json(path, to_builtins({"metadata": metadata or {}, "samples": list(entries)}))


def load_bc_samples(manifest_path: Path) -> list[ReplaySample]:
    """Load the samples of a behaviour-cloning manifest.

    Entries marked ``accepted: false`` are left out; a sample that cannot be loaded is skipped with a warning.

    Raises
    ------
    MissingFileError
        When the manifest does not exist.
    DataError
        When the manifest has neither shape, or nothing in it can be loaded.
    """
    try:
        manifest = load_manifest(Path(manifest_path), require_files=False)
    except MissingFileError:
        raise
    except DataError as error:
        if "contains no entries" in str(error):
            msg = f"BC manifest contained no valid samples: {error}"
        else:
            msg = f"BC manifest must be a list (or a mapping with a list 'samples'): {error}"
        raise DataError(msg) from error
    samples: list[ReplaySample] = []
    for entry in manifest.entries:
        try:
            samples.append(load_replay_sample(entry.sample, entry.meta, require_conflict_features=False))
        except DataError as error:
            _log.warning("%s: skipping a sample: %s", manifest.path, error)
    if not samples:
        msg = f"BC manifest contained no valid samples ({str(manifest_path)!r})"
        raise DataError(msg)
    return samples
