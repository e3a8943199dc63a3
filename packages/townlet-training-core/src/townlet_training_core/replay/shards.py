"""A store for size: shards of whole trajectories in safetensors, read through memory maps.

``store.json`` names the shards with their checksums and says what the data is; each ``shard-NNNNN.safetensors``
holds one tensor per column (the rows of its trajectories, one after the other), ``offsets`` and ``slots`` of the
trajectories, and ``final/<name>``: what was seen after their last steps. Any safetensors reader can read a shard.

A shard is written to a temporary name, flushed, renamed, and only then listed: whatever kills the writer, the
sealed shards survive. Maps whose values are whole numbers from 0 to 255 are kept as uint8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import ArraySpec, IntArray
from townlet_training_core.errors import DataError, MissingFileError
from townlet_training_core.files import sha256_file
from townlet_training_core.replay.spec import DataSpec, read_array_spec
from townlet_training_core.replay.tensorfile import map_tensors
from townlet_training_core.replay.transitions import Transitions

__all__ = ["COLUMN_PREFIX", "FINAL_PREFIX", "STORE_FILE", "STORE_VERSION", "ShardEntry", "ShardStore"]

STORE_FILE = "store.json"
STORE_VERSION = 1

COLUMN_PREFIX = "column/"
"""Before the name of a column's tensor in a shard."""
FINAL_PREFIX = "final/"
"""Before the name of a tensor of last observations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """A sealed shard as ``store.json`` lists it."""

    file: str
    transitions: int
    trajectories: int
    bytes: int
    sha256: str


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**48:
        msg = f"{value!r} is no count"
        raise ValueError(msg)
    return value


class _Shard:
    """The mapped arrays of one shard."""

    __slots__ = ("_path", "_records", "columns", "final", "offsets", "slots")

    def __init__(self, path: Path, entry: ShardEntry, columns: Mapping[str, ArraySpec]) -> None:
        tensors, metadata = map_tensors(path)
        nothing = np.empty(0, np.int64)
        self.offsets: IntArray = tensors.get("offsets", nothing)
        self.slots: IntArray = tensors.get("slots", nothing)
        self.columns = {
            name: tensors[f"{COLUMN_PREFIX}{name}"] for name in columns if f"{COLUMN_PREFIX}{name}" in tensors
        }
        self.final = {
            key.removeprefix(FINAL_PREFIX): array for key, array in tensors.items() if key.startswith(FINAL_PREFIX)
        }
        sound = (
            self.offsets.dtype == self.slots.dtype == np.int64
            and self.offsets.shape == (entry.trajectories + 1,)
            and self.slots.shape == (entry.trajectories,)
            and self.offsets[0] == 0
            and self.offsets[-1] == entry.transitions
            and not (np.diff(self.offsets) < 0).any()
            and set(self.columns) == set(columns)
            and all(_as_listed(name, array, columns[name], entry) for name, array in self.columns.items())
        )
        if not sound:
            msg = f"shard {str(path)!r} does not hold what {STORE_FILE} says; it is torn or belongs to another store"
            raise DataError(msg)
        self._path, self._records = path, metadata.get("records", "[]")

    def records(self) -> tuple[Mapping[str, Any], ...]:
        """Return the records of its trajectories; none for a capture."""
        try:
            records = json.loads(self._records)
        except (ValueError, RecursionError) as error:
            msg = f"shard {str(self._path)!r}: its records are not valid JSON: {error}"
            raise DataError(msg) from error
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            msg = f"shard {str(self._path)!r}: its records are no list of objects"
            raise DataError(msg)
        return tuple(records)


def _as_listed(name: str, array: NDArray[Any], spec: ArraySpec, entry: ShardEntry) -> bool:
    packed = name == "map" and array.dtype == np.uint8
    return array.shape == (entry.transitions, *spec.shape) and (packed or array.dtype == spec.dtype)


class ShardStore:
    """A store opened for reading: a :class:`~townlet_training_core.replay.transitions.TransitionDataset`.

    Shards are mapped when they are first touched. Rows come in the order of the shards.
    """

    def __init__(self, path: Path, index: Mapping[str, Any]) -> None:
        source = str(path / STORE_FILE)
        if index.get("schema_version") != STORE_VERSION:
            msg = f"{source!r} has schema_version {index.get('schema_version')!r}, expected {STORE_VERSION}"
            raise DataError(msg)
        try:
            self.spec = DataSpec.from_json(index["spec"], source=source)
            self.column_specs: dict[str, ArraySpec] = {
                str(name): read_array_spec(item) for name, item in index["columns"].items()
            }
            self.shards = tuple(
                ShardEntry(
                    file=str(item["file"]),
                    transitions=_count(item["transitions"]),
                    trajectories=_count(item["trajectories"]),
                    bytes=_count(item["bytes"]),
                    sha256=str(item["sha256"]),
                )
                for item in index["shards"]
            )
            self.metadata: dict[str, Any] = dict(index["metadata"])
            self.complete = bool(index["complete"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            msg = f"{source!r} is broken: {type(error).__name__}: {error}"
            raise DataError(msg) from error
        self.path, self.label = path, path.name
        self._starts = np.cumsum([0, *(shard.transitions for shard in self.shards)])
        self._mapped: list[_Shard | None] = [None] * len(self.shards)

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> ShardStore:
        """Open a store.

        Parameters
        ----------
        verify:
            Compare every shard with its checksum, which reads everything; sizes are always compared.

        Raises
        ------
        MissingFileError
            When the store or one of its shards does not exist.
        DataError
            When a file is torn, or differs from its checksum.
        """
        path = Path(path)
        try:
            index = json.loads((path / STORE_FILE).read_bytes())
        except FileNotFoundError as error:
            msg = f"{str(path)!r} is no shard store: it has no {STORE_FILE}"
            raise MissingFileError(msg) from error
        except (ValueError, RecursionError) as error:
            msg = f"{str(path / STORE_FILE)!r} is not valid JSON: {error}"
            raise DataError(msg) from error
        if not isinstance(index, dict):
            msg = f"{str(path / STORE_FILE)!r}: expected an object, found {type(index).__name__}"
            raise DataError(msg)
        store = cls(path, index)
        for shard in store.shards:
            file = path / shard.file
            if not re.fullmatch(r"[\w-][\w.-]{0,99}", shard.file):
                msg = f"{str(path / STORE_FILE)!r} lists {shard.file[:99]!r}, which is no name of a shard in the store"
                raise DataError(msg)
            try:
                size = file.stat().st_size
            except FileNotFoundError as error:
                msg = f"shard {str(file)!r} is listed in {STORE_FILE} and does not exist"
                raise MissingFileError(msg) from error
            if size != shard.bytes:
                msg = f"shard {str(file)!r} has {size} bytes, expected {shard.bytes}: it is torn or was replaced"
                raise DataError(msg)
            if verify and sha256_file(file) != shard.sha256:
                msg = f"shard {str(file)!r} differs from its checksum: it was changed after it was sealed"
                raise DataError(msg)
        return store

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _shard(self, number: int) -> _Shard:
        shard = self._mapped[number]
        if shard is None:
            entry = self.shards[number]
            shard = self._mapped[number] = _Shard(self.path / entry.file, entry, self.column_specs)
        return shard

    def _all(self) -> list[_Shard]:
        return [self._shard(number) for number in range(len(self.shards))]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.column_specs)

    @cached_property
    def offsets(self) -> IntArray:
        """First row of each trajectory, and the number of rows at the end."""
        pieces = [shard.offsets[1:] + start for shard, start in zip(self._all(), self._starts[:-1], strict=True)]
        return np.concatenate([np.zeros(1, np.int64), *pieces])

    @property
    def trajectory_ids(self) -> IntArray:
        """Trajectory of each row, ``(n,)``."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def slots(self) -> IntArray:
        """Slot of each trajectory, -1 where unknown."""
        return np.concatenate([np.empty(0, np.int64), *(shard.slots for shard in self._all())])

    @cached_property
    def records(self) -> tuple[Mapping[str, Any], ...]:
        """What is needed to write trajectories that came from files back unchanged; empty for captures."""
        found = tuple(record for shard in self._all() for record in shard.records())
        return found if len(found) == len(self.offsets) - 1 else ()

    @cached_property
    def _dtypes(self) -> dict[str, np.dtype[Any]]:
        """Dtype in which a column is handed out: as stored where all shards agree, else as it was written."""
        stored = {name: {shard.columns[name].dtype for shard in self._all()} for name in self.column_specs}
        return {
            name: dtypes.pop() if len(dtypes) == 1 else self.column_specs[name].dtype for name, dtypes in stored.items()
        }

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column: a copy, unless there is one shard only. For what is small (actions, rewards).

        Raises
        ------
        DataError
            When there is none of that name.
        """
        self._check_name(name)
        pieces = [shard.columns[name] for shard in self._all()]
        if len(pieces) == 1:
            return pieces[0]
        spec = self.column_specs[name]
        return np.concatenate([np.empty((0, *spec.shape), self._dtypes[name]), *pieces], dtype=self._dtypes[name])

    def gather(self, indices: NDArray[Any], names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the rows ``indices`` of the named columns, in that order; fastest when they ascend.

        Raises
        ------
        DataError
            When a column does not exist.
        """
        indices = np.asarray(indices, np.int64)
        wanted = self.columns if names is None else names
        for name in wanted:
            self._check_name(name)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            msg = f"store {self.label!r} has {len(self)} rows; asked for rows up to {int(indices.max())}"
            raise DataError(msg)
        order: NDArray[Any] | None = None
        if len(indices) > 1 and (indices[1:] < indices[:-1]).any():
            order = np.argsort(indices, kind="stable")
            indices = indices[order]
        bounds = np.searchsorted(indices, self._starts)
        rows = {name: np.empty((len(indices), *self.column_specs[name].shape), self._dtypes[name]) for name in wanted}
        for number in np.nonzero(np.diff(bounds))[0]:
            shard, begin, end = self._shard(int(number)), bounds[number], bounds[number + 1]
            local = indices[begin:end] - self._starts[number]
            for name, out in rows.items():
                column = shard.columns[name]
                if column.dtype == out.dtype:
                    # mode="clip" lets numpy write straight into `out`; the rows were checked above.
                    np.take(column, local, axis=0, out=out[begin:end], mode="clip")
                else:
                    out[begin:end] = column[local]
        if order is None:
            return rows
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return {name: array[back] for name, array in rows.items()}

    def final_observations(self, trajectories: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what was seen after the last step of each trajectory; empty when it was not kept."""
        shards = self._all()
        if not shards or any(not shard.final for shard in shards):
            return {}
        starts = np.cumsum([0, *(len(shard.slots) for shard in shards)])
        numbers = np.searchsorted(starts, np.asarray(trajectories), side="right") - 1
        return {
            name: np.stack(
                [
                    shards[number].final[name][item - starts[number]]
                    for number, item in zip(numbers, trajectories, strict=True)
                ]
            )
            if len(numbers)
            else np.empty((0, *self.spec.observations[name].shape), self.spec.observations[name].dtype)
            for name in self.spec.observations
        }

    def blocks(self) -> Iterator[Transitions]:
        """Yield the shards one by one as transitions whose arrays are mapped."""
        for number in range(len(self.shards)):
            shard = self._shard(number)
            yield Transitions(
                spec=self.spec,
                data=shard.columns,
                offsets=shard.offsets,
                slots=shard.slots,
                final=shard.final,
                records=shard.records(),
                label=f"{self.label}/{self.shards[number].file}",
            )

    def _check_name(self, name: str) -> None:
        if name not in self.column_specs:
            msg = f"store {self.label!r} has no column {name!r}; it has {sorted(self.column_specs)}"
            raise DataError(msg)
