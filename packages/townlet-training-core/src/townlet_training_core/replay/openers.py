"""Open whatever holds replay data, and convert between the forms.

A path may be a shard store, a manifest, a capture directory or a single npz file; a URL (``s3://...``, ``memory://...``)
names a store behind fsspec, whose shards are fetched once into a local folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from townlet_training_core.errors import ConfigurationError, DataError, MissingDependencyError, MissingFileError
from townlet_training_core.files import atomic_open, atomic_write_bytes, atomic_write_json, sha256_file
from townlet_training_core.replay.convert import samples_from_transitions, survey_samples, transitions_from_samples
from townlet_training_core.replay.curated import CuratedStores, is_curation
from townlet_training_core.replay.manifest import load_manifest, write_manifest
from townlet_training_core.replay.metrics import compute_sample_metrics
from townlet_training_core.replay.npz import load_replay_sample, save_replay_sample
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.shards import STORE_FILE, ShardStore
from townlet_training_core.replay.shardwriter import SHARD_BYTES, ShardWriter
from townlet_training_core.replay.transitions import TransitionDataset, Transitions

__all__ = ["SAMPLES_A_BLOCK", "as_url", "convert", "fetch_store", "open_transitions", "replay_kind", "write_samples"]

SAMPLES_A_BLOCK = 32
"""Samples that are held in memory at once while converting."""

Kind = Literal["store", "curation", "manifest", "npz"]

_CAPTURE_MANIFEST = "rollout_sample_manifest.json"


def replay_kind(path: Path) -> tuple[Kind, Path]:
    """Tell what a path holds, and which file to read (the manifest of a capture directory).

    Raises
    ------
    MissingFileError
        When the path does not exist, or is a folder without replay data.
    """
    if not path.exists():
        msg = f"replay data {str(path)!r} does not exist"
        raise MissingFileError(msg)
    if path.is_dir():
        if (path / STORE_FILE).exists():
            return "store", path
        manifests = sorted(path.glob("*_manifest.json"))
        if (path / _CAPTURE_MANIFEST).exists():
            return "manifest", path / _CAPTURE_MANIFEST
        if len(manifests) == 1:
            return ("curation" if is_curation(manifests[0]) else "manifest"), manifests[0]
        msg = (
            f"folder {str(path)!r} holds no replay data: expected {STORE_FILE} or one *_manifest.json, "
            f"found {len(manifests)} manifests"
        )
        raise MissingFileError(msg)
    if path.name == STORE_FILE:
        return "store", path.parent
    return ("npz" if path.suffix == ".npz" else "curation" if is_curation(path) else "manifest"), path


def _samples(kind: Kind, path: Path) -> Iterator[ReplaySample]:
    if kind == "npz":
        yield load_replay_sample(path, require_conflict_features=False)
        return
    for entry in load_manifest(path).entries:
        yield load_replay_sample(entry.sample, entry.meta, require_conflict_features=False)


def open_transitions(source: Path | str) -> TransitionDataset:
    """Open replay data as a table of transitions.

    Stores, and the accepted trajectories of curated stores, are mapped, whatever their size; npz files are read into
    memory.

    Raises
    ------
    MissingFileError, DataError
        When the data does not exist or is unsound.
    MissingDependencyError
        When a URL is given and fsspec is not installed.
    """
    url = as_url(source)
    if url is not None:
        return ShardStore.open(fetch_store(url))
    kind, path = replay_kind(Path(source))
    if kind == "store":
        return ShardStore.open(path)
    if kind == "curation":
        return CuratedStores.open(path)
    return transitions_from_samples(_samples(kind, path), label=path.stem)


def as_url(source: Path | str) -> str | None:
    """Return the URL that is meant, or ``None`` for a local path; a path has lost one of a URL's two slashes."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)", str(source))
    return f"{found[1]}://{found[2]}" if found else None


def fetch_store(url: str, *, cache: Path | None = None) -> Path:
    """Copy a store from an fsspec URL into a local folder and return it; shards that are there are not fetched again.

    Raises
    ------
    MissingDependencyError
        When fsspec is not installed.
    DataError
        When the store cannot be fetched, or a shard differs from its checksum.
    """
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        install = "pip install 'townlet-training-core[remote]'"
        raise MissingDependencyError(f"replay data behind a URL ({url!r})", install=install) from error
    folder = cache or Path(tempfile.gettempdir()) / "townlet-stores"
    local = folder / hashlib.sha256(url.encode()).hexdigest()[:24]
    try:
        local.mkdir(parents=True, exist_ok=True)
        with fsspec.open(f"{url.rstrip('/')}/{STORE_FILE}", "rb") as stream:
            index = stream.read()
        shards = json.loads(index)["shards"]
        for shard in shards:
            target = local / Path(str(shard["file"])).name
            if target.exists() and sha256_file(target) == shard["sha256"]:
                continue
            with fsspec.open(f"{url.rstrip('/')}/{target.name}", "rb") as stream, atomic_open(target) as copy:
                while chunk := stream.read(2**22):
                    copy.write(chunk)
            if sha256_file(target) != shard["sha256"]:
                target.unlink()
                msg = f"shard {target.name!r} of {url!r} differs from its checksum"
                raise DataError(msg)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        msg = f"store {url!r} cannot be fetched: {type(error).__name__}: {error}"
        raise DataError(msg) from error
    atomic_write_bytes(local / STORE_FILE, index)
    return local


def convert(
    source: Path, target: Path, *, to: Literal["shards", "npz"], shard_bytes: int | None = None, compress: bool = True
) -> int:
    """Convert replay data between npz files with a manifest and a shard store, without loss.

    Parameters
    ----------
    source:
        Anything that :func:`open_transitions` takes.
    target:
        Folder to write; it must not hold a store or a manifest.
    to:
        Form to write.
    shard_bytes:
        Size at which a shard is sealed.
    compress:
        Deflate npz files.

    Returns
    -------
    int
        Trajectories written.

    Raises
    ------
    DataError
        When the source is unsound.
    ConfigurationError
        When the target is taken.
    """
    kind, path = replay_kind(Path(source))
    if to == "shards":
        blocks: Iterable[Transitions]
        if kind == "store":
            store = ShardStore.open(path)
            blocks, metadata = store.blocks(), store.metadata
        elif kind == "curation":
            blocks, metadata = CuratedStores.open(path).blocks(), {"converted_from": path.name}
        else:
            blocks, metadata = _sample_blocks(kind, path), {"converted_from": path.name}
        return _write_store(blocks, target, metadata=metadata, shard_bytes=shard_bytes)
    stored = kind in ("store", "curation")
    samples = samples_from_transitions(open_transitions(path)) if stored else _samples(kind, path)
    return write_samples(samples, target, metadata={"converted_from": path.name}, compress=compress)


def _sample_blocks(kind: Kind, path: Path) -> Iterator[Transitions]:
    """Yield samples in blocks of bounded size; the files are read twice, once to learn the action space."""
    survey = survey_samples(_samples(kind, path), label=path.stem)
    held: list[ReplaySample] = []
    for sample in _samples(kind, path):
        held.append(sample)
        if len(held) == SAMPLES_A_BLOCK:
            yield transitions_from_samples(held, label=path.stem, survey=survey)
            held = []
    if held:
        yield transitions_from_samples(held, label=path.stem, survey=survey)


def _write_store(
    blocks: Iterable[Transitions], target: Path, *, metadata: Mapping[str, Any], shard_bytes: int | None
) -> int:
    writer: ShardWriter | None = None
    count = 0
    for block in blocks:
        if writer is None:
            writer = ShardWriter(target, block.spec, metadata=metadata, shard_bytes=shard_bytes or SHARD_BYTES)
        writer.add(block)
        count += len(block.slots)
    if writer is None:
        msg = "there is nothing to convert: the source holds no trajectories"
        raise DataError(msg)
    writer.close()
    return count


def write_samples(
    samples: Iterable[ReplaySample],
    target: Path,
    *,
    metadata: Mapping[str, Any],
    prefix: str = "rollout_sample",
    compress: bool = True,
) -> int:
    """Write samples as npz files with manifest and metrics, the layout of a capture directory.

    Returns
    -------
    int
        Samples written.

    Raises
    ------
    ConfigurationError
        When the folder holds a capture of that prefix already, or cannot be made.
    """
    manifest = target / f"{prefix}_manifest.json"
    if manifest.exists():
        msg = f"{str(manifest)!r} exists; choose another folder"
        raise ConfigurationError(msg)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"folder {str(target)!r} cannot be made: {error.strerror or error}"
        raise ConfigurationError(msg) from error
    entries: list[dict[str, Any]] = []
    metrics: dict[str, dict[str, float]] = {}
    for number, sample in enumerate(samples):
        agent = str(sample.metadata.get("agent_id") or sample.metadata.get("slot", "agent"))
        stem = f"{prefix}_{_file_safe(agent)}_{number:03d}"
        save_replay_sample(sample, target / f"{stem}.npz", compress=compress)
        metrics[f"{stem}.npz"] = compute_sample_metrics(sample)
        entries.append(
            {"sample": f"{stem}.npz", "meta": f"{stem}.json", "agent_id": agent, "frame_count": sample.timesteps}
        )
    atomic_write_json(target / f"{prefix}_metrics.json", {"metadata": dict(metadata), "samples": metrics})
    write_manifest(manifest, entries, metadata=metadata)
    return len(entries)


def _file_safe(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)[:80]
