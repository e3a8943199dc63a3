"""Writing a shard store: blocks of trajectories come in, sealed shards go out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.files import atomic_write_json
from townlet_training_core.replay.npz import to_builtins
from townlet_training_core.replay.shards import (
    COLUMN_PREFIX,
    FINAL_PREFIX,
    STORE_FILE,
    STORE_VERSION,
    ShardEntry,
    ShardStore,
)
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.tensorfile import write_tensors
from townlet_training_core.replay.transitions import Transitions

__all__ = ["SHARD_BYTES", "ShardWriter"]

SHARD_BYTES = 64 * 2**20
"""Size at which a shard is sealed by default."""


class ShardWriter:
    """Appends blocks of whole trajectories; seals a shard whenever enough bytes have come together.

    Parameters
    ----------
    path:
        Folder of the store; made when absent.
    spec:
        What the data is.
    shard_bytes:
        Size at which a shard is sealed; 32 to 128 MiB is usual.
    metadata:
        Written into ``store.json`` (how the data was captured).
    append:
        Go on with a store that exists; otherwise it is refused.
    keep:
        When appending: forget the shards after so many, which are written again.

    Raises
    ------
    ConfigurationError
        When the store exists, or ``shard_bytes`` is not positive.
    DataError
        When an existing store holds data of another kind.
    """

    def __init__(
        self,
        path: Path,
        spec: DataSpec,
        *,
        shard_bytes: int = SHARD_BYTES,
        metadata: Mapping[str, Any] | None = None,
        append: bool = False,
        keep: int | None = None,
    ) -> None:
        if shard_bytes < 1:
            msg = f"shard_bytes={shard_bytes!r}: expected a positive number of bytes"
            raise ConfigurationError(msg)
        self.path, self._spec, self._shard_bytes = Path(path), spec, shard_bytes
        self.metadata = dict(metadata or {})
        self._columns: dict[str, ArraySpec] = {}
        self._shards: list[ShardEntry] = []
        self._pending: list[Transitions] = []
        self._pending_bytes = 0
        if (self.path / STORE_FILE).exists():
            if not append:
                msg = f"store {str(self.path)!r} exists; choose another folder, or append to it"
                raise ConfigurationError(msg)
            self._continue(ShardStore.open(self.path), keep)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"store {str(self.path)!r} cannot be made: {error.strerror or error}"
            raise ConfigurationError(msg) from error

    def _continue(self, store: ShardStore, keep: int | None) -> None:
        if store.spec != self._spec:
            msg = f"store {str(self.path)!r} holds data of another kind; choose another folder"
            raise DataError(msg)
        self._columns, self._shards = dict(store.column_specs), list(store.shards[:keep])
        self.metadata = {**store.metadata, **self.metadata}

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards that are sealed."""
        return tuple(self._shards)

    def add(self, block: Transitions) -> None:
        """Append trajectories; the block's arrays must not be changed until the next :meth:`seal`.

        Raises
        ------
        DataError
            When its columns differ from those of earlier blocks.
        """
        columns = {name: ArraySpec(array.shape[1:], array.dtype) for name, array in block.data.items()}
        if not self._columns:
            self._columns = columns
        elif columns != self._columns:
            odd = sorted(name for name in {*columns, *self._columns} if columns.get(name) != self._columns.get(name))
            msg = f"dataset {block.label!r} differs from the store {str(self.path)!r} in the columns {odd}"
            raise DataError(msg)
        if not len(block.slots):
            return
        self._pending.append(block)
        self._pending_bytes += sum(array.nbytes for array in block.data.values())
        if self._pending_bytes >= self._shard_bytes:
            self.seal()

    def seal(self) -> None:
        """Write what has come together as a shard and list it; does nothing without data."""
        if not self._pending:
            return
        blocks = self._pending
        tensors: dict[str, Sequence[NDArray[Any]]] = {
            f"{COLUMN_PREFIX}{name}": [block.data[name] for block in blocks] for name in self._columns
        }
        packed = _as_bytes(tensors.get(f"{COLUMN_PREFIX}map"))
        if packed is not None:
            tensors[f"{COLUMN_PREFIX}map"] = packed
        begins = np.cumsum([0, *(len(block) for block in blocks)])
        tensors["offsets"] = [
            np.zeros(1, np.int64),
            *(block.offsets[1:] + begin for block, begin in zip(blocks, begins[:-1], strict=True)),
        ]
        tensors["slots"] = [block.slots for block in blocks]
        if all(set(block.final) == set(self._spec.observations) for block in blocks):
            tensors |= {
                f"{FINAL_PREFIX}{name}": [block.final[name] for block in blocks] for name in self._spec.observations
            }
        records = [record for block in blocks for record in block.records]
        name = f"shard-{len(self._shards):05d}.safetensors"
        size, digest = write_tensors(
            self.path / name, tensors, metadata={"records": json.dumps(to_builtins(records))} if records else None
        )
        trajectories = sum(len(block.slots) for block in blocks)
        self._shards.append(
            ShardEntry(file=name, transitions=int(begins[-1]), trajectories=trajectories, bytes=size, sha256=digest)
        )
        self._pending, self._pending_bytes = [], 0
        self._write_index(complete=False)

    def close(self) -> None:
        """Seal the rest and mark the store complete."""
        self.seal()
        self._write_index(complete=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()  # otherwise the sealed shards stay as they are, and the store says that it is incomplete

    def _write_index(self, *, complete: bool) -> None:
        atomic_write_json(
            self.path / STORE_FILE,
            {
                "schema_version": STORE_VERSION,
                "complete": complete,
                "spec": self._spec.to_json(),
                "columns": {
                    name: {"shape": list(item.shape), "dtype": item.dtype.name} for name, item in self._columns.items()
                },
                "metadata": to_builtins(self.metadata),
                "shards": [{key: getattr(shard, key) for key in ShardEntry.__slots__} for shard in self._shards],
            },
        )


def _as_bytes(pieces: Sequence[NDArray[Any]] | None) -> list[NDArray[Any]] | None:
    """Return the pieces as uint8 when that loses nothing (a negative zero would lose its sign)."""
    if not pieces or pieces[0].dtype.kind != "f":
        return None
    packed = []
    for piece in pieces:
        with np.errstate(invalid="ignore"):
            small = piece.astype(np.uint8)
        if not np.array_equal(small, piece) or np.signbit(piece).any():
            return None
        packed.append(small)
    return packed
