"""Rows that a learner trains on, and how they are dealt into mini-batches.

A rollout of T steps and S slots becomes ``R = T * S`` rows, time-major: row ``t * S + s``. On the CPU the tensors
are views of the numpy columns; mini-batches are gathered by index, which is the only copy. Observations of a shard
store stay in their file until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.arrays import RolloutArrays
from townlet_training_core.errors import DataError, NonFiniteError
from townlet_training_core.replay.transitions import PaddedColumn

__all__ = [
    "MiniBatch",
    "Rows",
    "deal",
    "join",
    "mini_batch_size",
    "require_finite",
    "rows_of",
    "sequence_starts",
    "with_sequences",
]

_CHECKED = 2**20
"""Numbers that are checked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniBatch:
    """Gathered rows; leading axes are ``(M,)``, or ``(L, M)`` for sequences. ``None`` where there is no such column."""

    observations: dict[str, Tensor]
    action_mask: Tensor | None
    columns: dict[str, Tensor]
    weights: Tensor | None
    episode_starts: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows, and the indices of those that count.

    ============ ================== ==================================================================
    Field        Shape              Meaning
    ============ ================== ==================================================================
    observations (R, *shape)        by name; a ``PaddedColumn`` where they are mapped from disk
    action_mask  (R, A) bool        ``None`` where nothing is ever masked
    columns      (R,)               ``actions``, ``log_probs``, ``values``, ``advantages``, ``returns``, ...
    indices      (V,) or (L, Q)     rows that count; for a recurrent network, sequences of L rows
    weights      (L, Q) float32     0 in the padding of sequences; ``None`` without sequences
    starts       (L, Q) bool        episode starts of sequences
    memory       name -> (Q, H)     memory before each sequence
    ============ ================== ==================================================================
    """

    observations: dict[str, Tensor | PaddedColumn]
    action_mask: Tensor | None
    columns: dict[str, Tensor]
    indices: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    starts: NDArray[np.bool_] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """What is dealt: rows, or sequences."""
        return int(self.indices.shape[-1])

    @property
    def transitions(self) -> int:
        """Rows that count."""
        return self.units if self.weights is None else int(self.weights.sum())

    def gather(self, units: NDArray[np.int64]) -> MiniBatch:
        """Copy the chosen rows (or sequences) into a mini-batch; mapped rows come in the order of their table."""
        device = self.columns["actions"].device
        mapped = {name: column for name, column in self.observations.items() if isinstance(column, PaddedColumn)}
        if mapped and self.indices.ndim == 1:
            units = units[np.argsort(next(iter(mapped.values())).table_rows(self.indices[units]))]
        chosen = self.indices[..., units]
        rows = np.ascontiguousarray(chosen.reshape(-1))
        read = PaddedColumn.read(mapped, rows)
        index = torch.from_numpy(rows).to(device)
        shape = chosen.shape

        def take(column: Tensor | PaddedColumn, name: str = "") -> Tensor:
            if isinstance(column, PaddedColumn):
                picked = torch.from_numpy(read[name]).to(device)
            elif device.type == "cpu":  # numpy's calls cost less than torch's threads gain
                picked = torch.from_numpy(column.numpy().take(rows, axis=0))
            else:
                picked = column.index_select(0, index)
            return picked if len(shape) == 1 else picked.view(*shape, *picked.shape[1:])

        def send(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array[:, units])).to(device)

        picked = torch.from_numpy(np.ascontiguousarray(units)).to(device) if self.memory else None
        return MiniBatch(
            observations={name: take(column, name) for name, column in self.observations.items()},
            action_mask=None if self.action_mask is None else take(self.action_mask),
            columns={name: take(column) for name, column in self.columns.items()},
            weights=None if self.weights is None else send(self.weights),
            episode_starts=None if self.starts is None else send(self.starts),
            memory={} if picked is None else {k: array.index_select(0, picked) for k, array in self.memory.items()},
        )


def rows_of(
    arrays: RolloutArrays,
    columns: Mapping[str, NDArray[Any]],
    *,
    inputs: tuple[str, ...],
    device: torch.device,
) -> Rows:
    """Lay a rollout out as rows.

    Parameters
    ----------
    columns:
        ``(T, S)`` arrays that the loss reads, beside ``actions``, which is taken from ``arrays``.
    inputs:
        Observations that the network reads.
    """

    def flat(array: NDArray[Any]) -> Tensor:
        # A slice of a longer column is contiguous and stays a view; anything else is copied once.
        return torch.from_numpy(np.ascontiguousarray(array).reshape(-1, *array.shape[2:])).to(device)

    missing = [name for name in inputs if name not in arrays.observations]
    if missing:
        msg = f"the data lacks the observations {missing}; it has {sorted(arrays.observations)}"
        raise DataError(msg)
    observed: Mapping[str, NDArray[Any] | PaddedColumn] = arrays.observations
    return Rows(
        observations={
            name: column if isinstance(column := observed[name], PaddedColumn) else flat(column) for name in inputs
        },
        action_mask=None if arrays.action_mask is None else flat(arrays.action_mask),
        columns={"actions": flat(arrays.actions), **{name: flat(column) for name, column in columns.items()}},
        indices=np.flatnonzero(arrays.valid.reshape(-1)).astype(np.int64),
    )


def sequence_starts(steps: int, length: int) -> list[int]:
    """First steps of the sequences that ``steps`` steps are cut into."""
    return list(range(0, steps, length))


def with_sequences(rows: Rows, arrays: RolloutArrays, *, length: int, memory: Mapping[str, list[Tensor]]) -> Rows:
    """Cut rows into sequences of ``length`` steps of one slot each; sequences without a valid row are dropped.

    Parameters
    ----------
    memory:
        Memory before each sequence: by name, one ``(S, hidden)`` tensor per start of :func:`sequence_starts`.
    """
    steps, slots = arrays.valid.shape
    indices, weights, starts, kept = [], [], [], []
    for number, first in enumerate(sequence_starts(steps, length)):
        times = np.arange(first, first + length)
        inside = times < steps
        clipped = np.minimum(times, steps - 1)
        weight = arrays.valid[clipped] & inside[:, None]
        (used,) = np.nonzero(weight.any(axis=0))
        indices.append((clipped[:, None] * slots + np.arange(slots))[:, used])
        weights.append(weight[:, used])
        starts.append(arrays.episode_starts[clipped][:, used])
        kept.append((number, used))
    return replace(
        rows,
        indices=np.concatenate(indices, axis=1).astype(np.int64),
        weights=np.concatenate(weights, axis=1).astype(np.float32),
        starts=np.concatenate(starts, axis=1),
        memory={
            name: torch.cat([parts[number][torch.from_numpy(used)] for number, used in kept])
            for name, parts in memory.items()
        },
    )


def join(first: Rows, second: Rows) -> Rows:
    """Put two sets of rows into one, so that mini-batches mix them."""
    offset = len(first.columns["actions"])
    masks = (first.action_mask, second.action_mask)
    if masks[0] is None and masks[1] is None:
        mask = None
    else:
        width = next(given for given in masks if given is not None)
        mask = torch.cat(
            [
                torch.ones((len(rows.columns["actions"]), *width.shape[1:]), dtype=torch.bool, device=width.device)
                if given is None
                else given
                for rows, given in zip((first, second), masks, strict=True)
            ]
        )
    both = (first, second)
    return Rows(
        observations={k: torch.cat([_read(rows.observations[k]) for rows in both]) for k in first.observations},
        action_mask=mask,
        columns={k: torch.cat([rows.columns[k] for rows in both]) for k in first.columns},
        indices=np.concatenate([first.indices, second.indices + offset], axis=-1),
        weights=_beside(first.weights, second.weights),
        starts=_beside(first.starts, second.starts),
        memory={name: torch.cat([first.memory[name], second.memory[name]]) for name in first.memory},
    )


def _read(column: Tensor | PaddedColumn) -> Tensor:
    """Read a mapped column into memory."""
    if isinstance(column, PaddedColumn):
        return torch.from_numpy(column[:].reshape(-1, *column.shape[2:]))
    return column


def _beside(first: Any, second: Any) -> Any:
    return None if first is None else np.concatenate([first, second], axis=1)


def mini_batch_size(transitions: int, *, largest: int, at_least: int | None) -> int:
    """Size of a mini-batch: ``min(largest, transitions // at_least)``, never below 1.

    Parameters
    ----------
    transitions:
        Rows that count.
    largest:
        ``ppo.mini_batch_size``.
    at_least:
        ``ppo.num_mini_batches``; ``None`` switches it off.
    """
    if at_least is None:
        return max(1, min(largest, transitions))
    return max(1, min(largest, transitions // max(1, min(at_least, transitions))))


def deal(rows: Rows, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffle and yield the units of each mini-batch: nearly equal parts, none larger than ``size`` transitions.

    Equal parts instead of a small remainder: a mini-batch of one row has no advantage deviation.
    """
    length = 1 if rows.weights is None else len(rows.weights)
    per_batch = max(1, size // length)
    parts = max(1, -(-rows.units // per_batch))
    yield from np.array_split(rng.permutation(rows.units), parts)


def require_finite(
    columns: Mapping[str, Any], valid: NDArray[np.bool_], *, what: str, dataset: str, batch: int
) -> None:
    """Check that every valid entry is a number.

    Raises
    ------
    NonFiniteError
        Naming the array, the dataset and the batch.
    """
    for name, column in columns.items():
        if column is not None and column.dtype.kind == "f" and not _finite(column, valid):
            msg = (
                f"{what} {name} contained NaN/inf (dataset={dataset}, batch={batch}); "
                "check the rewards and observations of the data, and the learning rate"
            )
            raise NonFiniteError(msg)


def _finite(column: NDArray[Any], valid: NDArray[np.bool_]) -> bool:
    """Check a few steps at a time: a copy of all observations would double the memory of a rollout."""
    per_step = max(1, column[:1].size)
    block = max(1, _CHECKED // per_step)
    return all(
        bool(np.isfinite(part).all()) or bool(np.isfinite(part[valid[first : first + block]]).all())
        for first in range(0, len(column), block)
        for part in (column[first : first + block],)
    )
