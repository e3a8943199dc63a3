"""Curations of shard stores: which trajectories loaders use, written beside the stores instead of into them.

A curation is a JSON file that lists one or several stores with all of their trajectories, each accepted or rejected
with reasons; the stores themselves stay as they were sealed. Loaders that are given the file see the accepted
trajectories as one table. A store that was changed since its curation is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import IntArray
from townlet_training_core.errors import DataError, MissingFileError, SpaceMismatchError
from townlet_training_core.files import atomic_write_json
from townlet_training_core.replay.npz import to_builtins
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions

__all__ = [
    "CuratedStores",
    "Curation",
    "StoreCuration",
    "agent_of_trajectory",
    "index_digest",
    "is_curation",
    "open_curated",
    "read_curation",
    "write_curation",
]

_KIND = "townlet store curation"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCuration:
    """One store of a curation: ``trajectories`` has an entry for each of its K, in their order."""

    store: Path
    digest: str
    """:func:`index_digest` of the store that was looked at."""
    trajectories: tuple[Mapping[str, Any], ...]

    @property
    def accepted(self) -> IntArray:
        """Numbers of the trajectories that loaders use."""
        chosen = [number for number, entry in enumerate(self.trajectories) if entry.get("accepted") is not False]
        return np.array(chosen, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """A curation file."""

    path: Path
    stores: tuple[StoreCuration, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Trajectories listed."""
        return sum(len(item.trajectories) for item in self.stores)

    @property
    def accepted(self) -> int:
        """Trajectories that loaders use."""
        return sum(len(item.accepted) for item in self.stores)


def index_digest(store: ShardStore) -> str:
    """Return the SHA-256 over the checksums of a store's shards."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in store.shards).encode()).hexdigest()


def is_curation(path: Path) -> bool:
    """Say whether a file is a curation of stores, by its first bytes."""
    try:
        with path.open("rb") as stream:
            return re.match(rb'\s*\{\s*"kind":\s*"' + _KIND.encode() + rb'"', stream.read(200)) is not None
    except OSError:
        return False


def write_curation(
    path: Path, stores: Sequence[StoreCuration], *, metadata: Mapping[str, Any] | None = None
) -> Curation:
    """Write a curation; paths of stores in it are relative to its folder."""
    folder = path.parent.resolve()
    listed = [
        {
            "store": Path(os.path.relpath(item.store.resolve(), folder)).as_posix(),
            "digest": item.digest,
            "trajectories": list(item.trajectories),
        }
        for item in stores
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = {"kind": _KIND, "schema_version": _VERSION, "metadata": metadata or {}, "stores": listed}
    atomic_write_json(path, to_builtins(payload))
    return Curation(path=path, stores=tuple(stores), metadata=metadata or {})


def read_curation(path: Path) -> Curation:
    """Read a curation file; the stores are not opened.

    Raises
    ------
    MissingFileError
        When there is no such file.
    DataError
        When it is no curation.
    """
    try:
        payload = json.loads(path.read_bytes())
        if (payload["kind"], payload["schema_version"]) != (_KIND, _VERSION):
            msg = f"kind {payload['kind']!r} of version {payload['schema_version']!r} is not known here"
            raise ValueError(msg)
        stores = tuple(
            StoreCuration(
                store=path.parent / str(item["store"]),
                digest=str(item["digest"]),
                trajectories=tuple(dict(entry) for entry in item["trajectories"]),
            )
            for item in payload["stores"]
        )
        if not stores:
            msg = "it lists no store"
            raise ValueError(msg)
        return Curation(path=path, stores=stores, metadata=dict(payload["metadata"]))
    except FileNotFoundError as error:
        raise MissingFileError(str(path)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{str(path)!r} is not a sound curation of stores: {type(error).__name__}: {error}"
        raise DataError(msg) from error


class CuratedStores:
    """The accepted trajectories of one or several stores, mapped.

    A :class:`~townlet_training_core.replay.transitions.TransitionDataset` like a store itself: rows come in the order
    of the stores and their trajectories, without the rejected ones. Columns are those that all stores have.
    """

    def __init__(self, parts: Sequence[tuple[ShardStore, IntArray]], *, label: str) -> None:
        self.label = label
        self._stores = tuple(store for store, _ in parts)
        self._chosen = tuple(chosen for _, chosen in parts)
        self.spec = _joint_spec(self._stores)
        first, *others = self._stores
        self.columns: tuple[str, ...] = tuple(
            name for name in first.column_specs if all(name in store.column_specs for store in others)
        )
        for store in others:
            for name in self.columns:
                if store.column_specs[name] != first.column_specs[name]:
                    msg = (
                        f"column {name!r} of store {str(store.path)!r} has another shape or type than in "
                        f"{str(first.path)!r}; they cannot be joined"
                    )
                    raise SpaceMismatchError(msg)
        lengths = [np.diff(store.offsets)[chosen] for store, chosen in parts]
        self.offsets: IntArray = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        # Where each trajectory begins in its store.
        self._begins = np.concatenate([store.offsets[:-1][chosen] for store, chosen in parts])
        self._firsts = np.cumsum([0, *(len(chosen) for chosen in self._chosen)])

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> CuratedStores:
        """Open the stores of a curation file.

        Parameters
        ----------
        verify:
            Compare every shard with its checksum, which reads everything.

        Raises
        ------
        MissingFileError, DataError
            When file or stores do not exist, are unsound, or a store was changed since it was curated.
        SpaceMismatchError
            When the stores do not belong together.
        """
        curation = read_curation(path)
        parts = [(open_curated(item, source=path, verify=verify), item.accepted) for item in curation.stores]
        if not curation.accepted:
            msg = f"{str(path)!r} contains no trajectories that are accepted ({curation.total} are rejected)"
            raise DataError(msg)
        return cls(parts, label=path.stem)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def trajectory_ids(self) -> IntArray:
        """Trajectory of each row, ``(n,)``."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def slots(self) -> IntArray:
        """Slot of each trajectory, -1 where unknown."""
        return np.concatenate([store.slots[chosen] for store, chosen in self._parts()])

    @cached_property
    def records(self) -> tuple[Mapping[str, Any], ...]:
        """What is needed to write trajectories that came from files back unchanged; empty unless all stores have it."""
        if not all(store.records for store in self._stores):
            return ()
        return tuple(store.records[item] for store, chosen in self._parts() for item in chosen)

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column, which is a copy.

        Raises
        ------
        DataError
            When there is none of that name.
        """
        return self.gather(np.arange(len(self)), [name])[name]

    def gather(self, indices: NDArray[Any], names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the rows ``indices`` of the named columns, in that order; fastest when they ascend.

        Raises
        ------
        DataError
            When a column or a row does not exist.
        """
        indices = np.asarray(indices, np.int64)
        wanted = tuple(self.columns if names is None else names)
        unknown = [name for name in wanted if name not in self.columns]
        if unknown:
            msg = f"dataset {self.label!r} has no column {unknown[0]!r}; it has {sorted(self.columns)}"
            raise DataError(msg)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            msg = f"dataset {self.label!r} has {len(self)} rows; asked for rows up to {int(indices.max())}"
            raise DataError(msg)
        trajectories = np.searchsorted(self.offsets, indices, side="right") - 1
        rows = indices - self.offsets[trajectories] + self._begins[trajectories]
        owners = np.searchsorted(self._firsts, trajectories, side="right") - 1
        pieces = [store.gather(rows[owners == number], wanted) for number, store in enumerate(self._stores)]
        if len(pieces) == 1:
            return pieces[0]
        out = {}
        for name in wanted:
            # Where one store keeps a map as bytes and another does not, as it was written.
            dtypes = {piece[name].dtype for piece in pieces}
            spec = self._stores[0].column_specs[name]
            out[name] = np.empty((len(indices), *spec.shape), dtypes.pop() if len(dtypes) == 1 else spec.dtype)
            for number, piece in enumerate(pieces):
                out[name][owners == number] = piece[name]
        return out

    def final_observations(self, trajectories: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what was seen after the last step of each trajectory; empty when it was not kept."""
        wanted = np.asarray(trajectories, np.int64)
        owners = np.searchsorted(self._firsts, wanted, side="right") - 1
        found = [
            store.final_observations(chosen[wanted[owners == number] - self._firsts[number]])
            for number, (store, chosen) in enumerate(self._parts())
        ]
        if not all(found):
            return {}
        out = {}
        for name, spec in self.spec.observations.items():
            out[name] = np.empty((len(wanted), *spec.shape), spec.dtype)
            for number, piece in enumerate(found):
                out[name][owners == number] = piece[name]
        return out

    def blocks(self) -> Iterator[Transitions]:
        """Yield the accepted trajectories shard by shard, copied."""
        for store, chosen in self._parts():
            begin = 0
            for block in store.blocks():
                count = len(block.slots)
                local = chosen[(chosen >= begin) & (chosen < begin + count)] - begin
                begin += count
                if not len(local):
                    continue
                kept = block.select(local.tolist())
                data = {
                    name: np.asarray(kept.data[name], store.column_specs[name].dtype) for name in self.columns
                }  # a packed map is unpacked: other shards may not be packed
                yield replace(kept, spec=self.spec, data=data)

    def _parts(self) -> Iterator[tuple[ShardStore, IntArray]]:
        return zip(self._stores, self._chosen, strict=True)


def agent_of_trajectory(block: Transitions, at: int) -> str:
    """Name the agent of a trajectory: as the file did that it came from, else by its slot, else unknown."""
    metadata = block.records[at].get("metadata") if block.records else None
    agent = metadata.get("agent_id") if isinstance(metadata, Mapping) else None
    if agent is not None:
        return str(agent)
    return f"slot {int(block.slots[at]):03d}" if block.slots[at] >= 0 else "unknown"


def open_curated(item: StoreCuration, *, source: Path, verify: bool = False) -> ShardStore:
    """Open a store of a curation, checking that it is the one that was curated."""
    store = ShardStore.open(item.store, verify=verify)
    count = len(store.slots)
    if index_digest(store) != item.digest or count != len(item.trajectories):
        msg = (
            f"store {str(item.store)!r} was changed since {str(source)!r} was written ({count} trajectories, "
            f"{len(item.trajectories)} listed); curate again"
        )
        raise DataError(msg)
    return store


def _joint_spec(stores: Sequence[ShardStore]) -> DataSpec:
    """Join the descriptions of stores; where they come from is kept only where it is the same."""
    first = stores[0].spec
    alike = ("observations", "action_names", "feature_names", "map_channels", "masked")
    for store in stores[1:]:
        for name in alike:
            if getattr(store.spec, name) != getattr(first, name):
                msg = (
                    f"{str(store.path)!r} has other {name.replace('_', ' ')} than {str(stores[0].path)!r}; "
                    "they cannot be merged"
                )
                raise SpaceMismatchError(msg)
    origin = ("simulation", "rules_hash", "versions", "event_kinds")
    unknown: dict[str, Any] = {"simulation": None, "rules_hash": None, "versions": {}, "event_kinds": ()}
    differing = {name for name in origin if any(getattr(s.spec, name) != getattr(first, name) for s in stores)}
    return replace(first, **{name: unknown[name] for name in differing})
