"""Accepting, rejecting, joining and auditing trajectories of shard stores; the stores stay as they are."""

from __future__ import annotations

import fnmatch
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.dto.analysis import AuditFinding, CurationReport
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.files import sha256_file
from townlet_training_core.replay.curated import (
    CuratedStores,
    Curation,
    StoreCuration,
    agent_of_trajectory,
    index_digest,
    is_curation,
    open_curated,
    read_curation,
    write_curation,
)
from townlet_training_core.replay.shards import STORE_FILE, ShardStore
from townlet_training_core.replay.transitions import Transitions

__all__ = [
    "Criteria",
    "compare_files",
    "curate_stores",
    "merge_stores",
    "require_stores",
    "store_curations",
    "store_files",
]

Criteria = Mapping[str, Any]
"""``min_timesteps``, ``min_reward``, ``min_actions``, ``reject``, ``accept``: see ``curation.curate``."""


def store_curations(path: Path) -> Curation | None:
    """Return what a path says about stores: a curation, or a store with all accepted; ``None`` for anything else."""
    folder = path.parent if path.name == STORE_FILE else path
    if (folder / STORE_FILE).is_file():
        store = ShardStore.open(folder)
        entries = tuple({"trajectory": number} for number in range(len(store.slots)))
        return Curation(
            path=folder,
            stores=(StoreCuration(store=folder, digest=index_digest(store), trajectories=entries),),
            metadata=store.metadata,
        )
    return read_curation(path) if is_curation(path) else None


def curate_stores(source: Curation, output: Path, criteria: Criteria) -> CurationReport:
    """Write a curation that says of every trajectory whether it is good enough; what is rejected already stays so."""
    reasons, stores = Counter[str](), []
    for item in source.stores:
        store = open_curated(item, source=source.path)
        entries: list[Mapping[str, Any]] = []
        for before, found in zip(item.trajectories, _examine(store, criteria), strict=True):
            if before.get("accepted") is False:
                entries.append(before)
                continue
            entries.append(found)
            for reason in found["reasons"]:
                reasons[reason.partition(":")[0]] += 1
        stores.append(StoreCuration(store=item.store, digest=item.digest, trajectories=tuple(entries)))
    metadata = {**source.metadata, "curated_from": str(source.path), "criteria": dict(criteria)}
    written = write_curation(output, stores, metadata=metadata)
    return CurationReport(
        output=str(output),
        total=source.accepted,
        accepted=written.accepted,
        rejected=source.accepted - written.accepted,
        reasons=dict(sorted(reasons.items())),
    )


def merge_stores(sources: Sequence[Curation], output: Path) -> CurationReport:
    """Join what several curations accept into one; a trajectory that two of them accept counts once.

    Raises
    ------
    SpaceMismatchError
        When the stores do not belong together. Nothing is written then.
    """
    joined: dict[Path, StoreCuration] = {}
    for source in sources:
        for item in source.stores:
            key = item.store.resolve()
            known = joined.setdefault(key, item)
            if known.digest != item.digest:
                msg = f"store {str(item.store)!r} was changed between its curations; curate again"
                raise DataError(msg)
            kept = [
                second if first.get("accepted") is False else first
                for first, second in zip(known.trajectories, item.trajectories, strict=True)
            ]
            joined[key] = StoreCuration(store=item.store, digest=item.digest, trajectories=tuple(kept))
    stores = list(joined.values())
    parts = [(open_curated(item, source=output), item.accepted) for item in stores]
    CuratedStores(parts, label=output.stem)  # says whether they belong together
    metadata = {"merged_from": [str(source.path) for source in sources]}
    accepted = write_curation(output, stores, metadata=metadata).accepted
    total = sum(source.accepted for source in sources)
    return CurationReport(
        output=str(output),
        total=total,
        accepted=accepted,
        rejected=total - accepted,
        reasons={"listed more than once": total - accepted} if total > accepted else {},
    )


def store_files(source: Curation) -> dict[str, Path]:
    """List every file that a store or a curation consists of, by its path seen from the file or folder itself."""
    folder = source.path if source.path.is_dir() else source.path.parent
    files = {} if source.path.is_dir() else {source.path.name: source.path}
    for item in source.stores:
        for name in (STORE_FILE, *(shard.file for shard in ShardStore.open(item.store).shards)):
            path = item.store / name
            files[Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()] = path
    return files


def compare_files(source: Curation, expected: Mapping[str, str]) -> list[AuditFinding]:
    """Compare the files of a store or a curation with their recorded checksums."""
    findings = []
    files = store_files(source)
    for name, path in files.items():
        if name not in expected:
            findings.append(AuditFinding(level="failure", message=f"{name}: has no checksum"))
        elif (found := sha256_file(path)) != expected[name]:
            text = f"{name}: was changed (sha256 {found[:12]}, expected {expected[name][:12]})"
            findings.append(AuditFinding(level="failure", message=text))
    for name in sorted(set(expected) - set(files)):
        findings.append(AuditFinding(level="warning", message=f"{name}: has a checksum but belongs to no store"))
    return findings


def require_stores(sources: Sequence[tuple[Path, Curation | None]]) -> list[Curation] | None:
    """Return the curations when all sources are stores, ``None`` when none is.

    Raises
    ------
    ConfigurationError
        When some are and some are not.
    """
    stores = [curation for _, curation in sources if curation is not None]
    if stores and len(stores) < len(sources):
        other = next(path for path, curation in sources if curation is None)
        msg = (
            f"{str(other)!r} holds npz files and {str(stores[0].path)!r} is a shard store; bring both into one form "
            "with `townlet replay convert`"
        )
        raise ConfigurationError(msg)
    return stores or None


# -- parts ----------------------------------------------------------------------------------------------------


def _examine(store: ShardStore, criteria: Criteria) -> Iterator[dict[str, Any]]:
    """Say of each trajectory why it is rejected, with its metrics under the names that manifests use."""
    number = 0
    for block in store.blocks():
        odd = _unsound_rows(block)
        rewards, actions = block.column("rewards"), block.column("actions")
        ended = block.column("terminated") | block.column("truncated")
        for at, (begin, end) in enumerate(pairwise(block.offsets.tolist())):
            name = f"{agent_of_trajectory(block, at).replace(' ', '-')}/{number:06d}"
            entry: dict[str, Any] = {"trajectory": number, "name": name}
            if odd[begin:end].any():
                entry |= {"metrics": {}, "accepted": False, "reasons": ["unreadable: NaN, infinity or unknown actions"]}
            else:
                total = math.fsum(rewards[begin:end].reshape(-1).tolist())
                metrics = {
                    "timesteps": float(end - begin),
                    "reward_sum": total,
                    "mean_reward": total / max(1, end - begin),
                    "done_count": float(ended[begin:end].sum()),
                }
                found = _reasons(name, metrics, len(np.unique(actions[begin:end])), criteria)
                entry |= {"metrics": metrics, "accepted": not found, "reasons": found}
            yield entry
            number += 1


def _reasons(name: str, metrics: Mapping[str, float], different: int, criteria: Criteria) -> list[str]:
    if any(fnmatch.fnmatch(name, pattern) for pattern in criteria["reject"]):
        return ["rejected by name"]
    if any(fnmatch.fnmatch(name, pattern) for pattern in criteria["accept"]):
        return []
    found = []
    if metrics["timesteps"] < criteria["min_timesteps"]:
        found.append(f"too short: {metrics['timesteps']:g} of {criteria['min_timesteps']} steps")
    if criteria["min_reward"] is not None and metrics["reward_sum"] < criteria["min_reward"]:
        found.append(f"too little reward: {metrics['reward_sum']:g} of {criteria['min_reward']:g}")
    if different < criteria["min_actions"]:
        found.append(f"too few actions: {different} of {criteria['min_actions']}")
    return found


def _unsound_rows(block: Transitions) -> NDArray[np.bool_]:
    """Say of each row whether a loader could not use it."""
    actions = block.column("actions").reshape(len(block), -1)
    odd = ((actions < 0) | (actions >= block.spec.action_dim)).any(axis=1)
    for column in block.data.values():
        if column.dtype.kind == "f":
            odd |= ~np.isfinite(column.reshape(len(block), -1)).all(axis=1)
    return np.asarray(odd)
