"""Keeping datasets honest: accept and reject samples, join datasets, check that files are what they were.

A rejected sample stays in its manifest, marked ``accepted: false`` with the reasons, so that a curation can be read and
taken back; loaders leave it out. Trajectories of shard stores are treated alike
(:mod:`~townlet_training_core.replay.storecuration`).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from townlet_training_core.dto.analysis import AuditedDataset, AuditFinding, AuditReport, CurationReport
from townlet_training_core.errors import ConfigurationError, DataError, MissingFileError, SpaceMismatchError
from townlet_training_core.files import atomic_write_json, sha256_file
from townlet_training_core.replay.analysis import find_manifest
from townlet_training_core.replay.curated import Curation
from townlet_training_core.replay.manifest import ManifestEntry, load_manifest, write_manifest
from townlet_training_core.replay.npz import load_replay_sample, sidecar
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.shards import STORE_FILE
from townlet_training_core.replay.storecuration import (
    compare_files,
    curate_stores,
    merge_stores,
    require_stores,
    store_curations,
    store_files,
)

__all__ = ["audit", "curate", "merge", "record_checksums", "sample_checksum"]


def curate(
    source: Path,
    output: Path,
    *,
    min_timesteps: int = 10,
    min_reward: float | None = None,
    min_actions: int = 1,
    reject: Sequence[str] = (),
    accept: Sequence[str] = (),
) -> CurationReport:
    """Write a manifest that says of every sample whether it is good enough to train on.

    Parameters
    ----------
    source:
        A manifest, a folder with one, a shard store, or a curation of stores. What it rejects already is left out.
    output:
        The manifest to write; paths in it are relative to its folder where possible.
    min_timesteps:
        Fewer steps are rejected.
    min_reward:
        A smaller summed reward is rejected; ``None`` accepts any.
    min_actions:
        Fewer different actions are rejected; 2 throws out agents that only ever stood still.
    reject, accept:
        Shell patterns of file names; a match of either decides, and ``reject`` wins. Samples that cannot be read,
        or hold NaN, are rejected whatever matches. A trajectory of a store has the name ``slot-003/000012``: its agent
        (or slot) and its number in the store.
    """
    criteria = {
        "min_timesteps": min_timesteps,
        "min_reward": min_reward,
        "min_actions": min_actions,
        "reject": list(reject),
        "accept": list(accept),
    }
    stores = _stores(source, output)
    if stores is not None:
        return curate_stores(stores, output, criteria)
    _require_new(output, source)
    manifest = load_manifest(find_manifest(source), require_files=False)
    entries, reasons = [], Counter[str]()
    for entry in manifest.entries:
        found, metrics = _examine(entry, min_timesteps, min_reward, min_actions)
        name = entry.sample.name
        if not any(reason.startswith("unreadable") for reason in found):
            if any(fnmatch.fnmatch(name, pattern) for pattern in accept):
                found = []
            if any(fnmatch.fnmatch(name, pattern) for pattern in reject):
                found = ["rejected by name"]
        for reason in found:
            reasons[reason.partition(":")[0]] += 1
        entries.append({**_located(entry, output.parent), "metrics": metrics, "accepted": not found, "reasons": found})
    accepted = sum(entry["accepted"] for entry in entries)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(output, entries, metadata={**manifest.metadata, "curated_from": str(source), "criteria": criteria})
    return CurationReport(
        output=str(output),
        total=len(entries),
        accepted=accepted,
        rejected=len(entries) - accepted,
        reasons=dict(sorted(reasons.items())),
    )


def merge(sources: Sequence[Path], output: Path) -> CurationReport:
    """Join the accepted samples of several datasets into one manifest; a sample listed twice counts once.

    The datasets are manifests of npz files, or shard stores and their curations, but not both.

    Raises
    ------
    ConfigurationError
        When there are fewer than two, or they have different forms.
    SpaceMismatchError
        When they have different features or actions. Nothing is written then.
    """
    if len(sources) < 2:
        msg = f"merging needs at least two datasets, found {len(sources)}"
        raise ConfigurationError(msg)
    stores = require_stores([(source, _stores(source, output)) for source in sources])
    if stores is not None:
        return merge_stores(stores, output)
    entries: dict[Path, dict[str, Any]] = {}
    total, space, owner = 0, None, sources[0]
    for source in sources:
        _require_new(output, source)
        for entry in load_manifest(find_manifest(source)).entries:
            total += 1
            here = _space(load_replay_sample(entry.sample, entry.meta, require_conflict_features=False))
            if space is None:
                space = here
            elif here != space:
                msg = f"{str(source)!r} has other features, actions or maps than {str(owner)!r}; they cannot be merged"
                raise SpaceMismatchError(msg)
            entries.setdefault(entry.sample.resolve(), {**entry.fields, **_located(entry, output.parent)})
    output.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(output, list(entries.values()), metadata={"merged_from": [str(source) for source in sources]})
    return CurationReport(
        output=str(output),
        total=total,
        accepted=len(entries),
        rejected=total - len(entries),
        reasons={"listed more than once": total - len(entries)} if total > len(entries) else {},
    )


def sample_checksum(sample: Path, meta: Path | None = None) -> str:
    """Return the SHA-256 of a sample's bytes followed by those of its metadata."""
    digest = hashlib.sha256()
    for path in (sample, meta if meta is not None else sidecar(sample)):
        if not path.is_file():
            raise MissingFileError(str(path))
        digest.update(path.read_bytes())
    return digest.hexdigest()


def record_checksums(versions: Path, name: str, source: Path) -> int:
    """Write the checksums of a dataset beside its manifest and enter it into a versions file; return the samples.

    The versions file is made when it does not exist; an entry of the same name is replaced. Of a store, or a curation
    of stores, every file is recorded; the number of trajectories is returned.
    """
    stores = store_curations(source)
    if stores is not None:
        count = stores.total
        path = stores.path / STORE_FILE if stores.path.is_dir() else stores.path
        checksums = {name: sha256_file(file) for name, file in store_files(stores).items()}
    else:
        manifest = load_manifest(find_manifest(source))
        path = manifest.path
        checksums = {entry.sample.name: sample_checksum(entry.sample, entry.meta) for entry in manifest.entries}
        count = len(checksums)
        if count != len({entry.sample.resolve() for entry in manifest.entries}):
            msg = f"{str(path)!r} lists different files of one name; rename them before recording checksums"
            raise DataError(msg)
    target = path.with_name(f"{path.stem}.checksums.json")
    known = _read_mapping(versions) if versions.exists() else {}
    folder = versions.parent
    entry = {
        "manifest": _relative(path, folder),
        "checksums": _relative(target, folder),
        "captures_dir": _relative(path.parent, folder),
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_json(target, checksums)
    atomic_write_json(versions, {**known, name: entry})
    return count


def audit(versions: Path) -> AuditReport:
    """Check the files of every dataset of a versions file against their checksums.

    The versions file maps names to ``manifest``, ``checksums`` and ``captures_dir``, paths relative to it or to the
    working directory. Changed, missing and unlisted samples are failures; checksums of samples that no manifest
    lists, and captures that nothing lists, are warnings.

    Raises
    ------
    DataError
        When the versions file itself cannot be used.
    """
    if not versions.is_file():
        msg = f"versions file {str(versions)!r} does not exist; `--record NAME=DATASET` begins one"
        raise MissingFileError(msg)
    payload = _read_mapping(versions)
    listed = payload.get("datasets", payload)
    if isinstance(listed, list):
        listed = {str(item.get("name")): item for item in listed if isinstance(item, Mapping)}
    if not isinstance(listed, Mapping) or not listed:
        msg = f"{str(versions)!r}: expected a mapping of dataset names to their files"
        raise DataError(msg)
    datasets = tuple(_audit_dataset(str(name), entry, versions.parent) for name, entry in listed.items())
    return AuditReport(
        versions_path=str(versions),
        datasets=datasets,
        failures=sum(dataset.status == "FAIL" for dataset in datasets),
        warnings=sum(dataset.status == "WARN" for dataset in datasets),
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
    )


# -- parts ----------------------------------------------------------------------------------------------------


def _examine(
    entry: ManifestEntry, min_timesteps: int, min_reward: float | None, min_actions: int
) -> tuple[list[str], dict[str, float]]:
    """Return why a sample is rejected, and its metrics under the names that existing tools read."""
    try:
        sample = load_replay_sample(entry.sample, entry.meta, require_conflict_features=False, require_finite=True)
    except DataError as error:
        return [f"unreadable: {error}"], {}
    rewards = sample.rewards.reshape(-1)
    total = math.fsum(rewards.tolist())
    metrics = {
        "timesteps": float(sample.timesteps),
        "reward_sum": total,
        "mean_reward": total / max(1, sample.timesteps),
        "done_count": float(sample.dones.sum()),
    }
    found = []
    if sample.timesteps < min_timesteps:
        found.append(f"too short: {sample.timesteps} of {min_timesteps} steps")
    if min_reward is not None and total < min_reward:
        found.append(f"too little reward: {total:g} of {min_reward:g}")
    different = len(set(sample.actions.reshape(-1).tolist()))
    if different < min_actions:
        found.append(f"too few actions: {different} of {min_actions}")
    return found, metrics


def _space(sample: ReplaySample) -> tuple[Any, ...]:
    names = sample.metadata.get("action_names")
    return (tuple(sample.feature_names), sample.map.shape[1:], tuple(names) if isinstance(names, list) else None)


def _audit_dataset(name: str, entry: Any, folder: Path) -> AuditedDataset:
    findings: list[AuditFinding] = []
    given = {key: str(entry.get(key) or "") for key in ("manifest", "checksums", "captures_dir")} if isinstance(
        entry, Mapping
    ) else dict.fromkeys(("manifest", "checksums", "captures_dir"), "")  # fmt: skip
    missing = [key for key in ("manifest", "checksums") if not given[key]]
    count = 0
    if missing:
        findings.append(AuditFinding(level="failure", message=f"the entry names no {' and no '.join(missing)}"))
    else:
        try:
            listed = _find(given["manifest"], folder)
            stores = store_curations(listed)
            if stores is not None:
                count = stores.total
                findings += compare_files(stores, _checksums(_find(given["checksums"], folder)))
            else:
                manifest = load_manifest(listed, require_files=False)
                expected = _checksums(_find(given["checksums"], folder))
                count = len(manifest.entries) + manifest.rejected
                findings += _compare(manifest.entries, expected, complete=not manifest.rejected)
                if given["captures_dir"]:
                    findings += _unlisted(manifest.entries, _find(given["captures_dir"], folder), manifest.rejected)
        except DataError as error:
            findings.append(AuditFinding(level="failure", message=str(error)))
    levels = {finding.level for finding in findings}
    status: Literal["PASS", "WARN", "FAIL"] = "FAIL" if "failure" in levels else "WARN" if levels else "PASS"
    return AuditedDataset(
        name=name,
        status=status,
        manifest=given["manifest"],
        checksums=given["checksums"],
        captures=given["captures_dir"],
        findings=tuple(finding.message for finding in findings),
        sample_count=count,
    )


def _compare(entries: Sequence[ManifestEntry], expected: Mapping[str, str], *, complete: bool) -> list[AuditFinding]:
    findings, used = [], set()
    for entry in entries:
        keys = (str(entry.fields["sample"]), entry.sample.name, entry.sample.stem)
        key = next((candidate for candidate in keys if candidate in expected), None)
        if key is None:
            findings.append(AuditFinding(level="failure", message=f"{entry.sample.name}: has no checksum"))
            continue
        used.add(key)
        try:
            found = sample_checksum(entry.sample, entry.meta)
        except MissingFileError as error:
            findings.append(AuditFinding(level="failure", message=f"{entry.sample.name}: missing file {error}"))
            continue
        if found != expected[key]:
            text = f"{entry.sample.name}: was changed (sha256 {found[:12]}, expected {expected[key][:12]})"
            findings.append(AuditFinding(level="failure", message=text))
    for key in sorted(set(expected) - used) if complete else ():
        findings.append(AuditFinding(level="warning", message=f"{key}: has a checksum but is not in the manifest"))
    return findings


def _unlisted(entries: Sequence[ManifestEntry], captures: Path, rejected: int) -> list[AuditFinding]:
    if rejected or not captures.is_dir():
        return [] if rejected else [AuditFinding(level="failure", message=f"{str(captures)!r} is no folder")]
    listed = {entry.sample.resolve() for entry in entries}
    return [
        AuditFinding(level="warning", message=f"{path.name}: is in the folder but not in the manifest")
        for path in sorted(captures.rglob("*.npz"))
        if path.resolve() not in listed
    ]


def _checksums(path: Path) -> dict[str, str]:
    payload = _read_mapping(path)
    for key in ("samples", "checksums", "files"):
        if isinstance(payload.get(key), Mapping | list):
            payload = payload[key]
            break
    if isinstance(payload, list):
        payload = {str(item.get("sample")): item for item in payload if isinstance(item, Mapping)}
    found = {str(name): value.get("sha256") if isinstance(value, Mapping) else value for name, value in payload.items()}
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        msg = f"checksum file {str(path)!r}: {wrong[0]!r} has no checksum"
        raise DataError(msg)
    return {name: str(value) for name, value in found.items()}


def _read_mapping(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(str(path))
    try:
        text = path.read_text(encoding="utf-8")
        payload = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        msg = f"{str(path)!r} cannot be read: {error}"
        raise DataError(msg) from error
    if not isinstance(payload, Mapping):
        msg = f"{str(path)!r} holds {type(payload).__name__}, expected a mapping"
        raise DataError(msg)
    return dict(payload)


def _find(text: str, folder: Path) -> Path:
    path = Path(text)
    return folder / path if not path.is_absolute() and (folder / path).exists() else path


def _located(entry: ManifestEntry, folder: Path) -> dict[str, Any]:
    """Keep what an entry says, with paths that are right seen from another folder."""
    located = {**entry.fields, "sample": _relative(entry.sample, folder)}
    if entry.meta is not None:
        located["meta"] = _relative(entry.meta, folder)
    return located


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _stores(source: Path, output: Path) -> Curation | None:
    """Read a store or a curation of stores; ``None`` for npz files."""
    stores = store_curations(source)
    if stores is not None and (output.resolve() == stores.path.resolve() or output.name == STORE_FILE):
        msg = f"{str(output)!r} is what is read, or the name of a store's index; write to another file"
        raise ConfigurationError(msg)
    return stores


def _require_new(output: Path, source: Path) -> None:
    if output.resolve() == find_manifest(source).resolve():
        msg = f"{str(output)!r} is the manifest that is read; write to another file"
        raise ConfigurationError(msg)
