"""Transitions in columns: what cloning, offline updates and analysis read, from memory or from shards.

A dataset of transitions is a table with one row per decision; the rows of a trajectory stand together, in order of
time.

================ ============= ================================================================
Column           Row           Present
================ ============= ================================================================
(observations)   (*shape)      by their names (``map``, ``features``, ``state``)
action_mask      (A,) bool     when the data has masks
actions          () int64      always
rewards          () float32    always
terminated       () bool       always; old data knows ``dones`` only, which count as terminated
truncated        () bool       always
log_probs        () float32    when the acting policy had them
values           () float32    when the acting policy had them
next_values      () float32    with ``values``: the value of the true next observation
from_expert      () bool       when decisions were blended
expert_actions   () int64      when the expert labelled
================ ============= ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import IntArray, RolloutArrays
from townlet_training_core.errors import DataError, NonFiniteError
from townlet_training_core.replay.spec import DataSpec

__all__ = [
    "STEP_COLUMNS",
    "PaddedColumn",
    "TransitionDataset",
    "Transitions",
    "pad_trajectories",
    "require_finite",
    "transitions_from_rollout",
]

STEP_COLUMNS = (
    "action_mask",
    "actions",
    "rewards",
    "terminated",
    "truncated",
    "log_probs",
    "values",
    "next_values",
    "from_expert",
    "expert_actions",
)
"""Columns beside the observations."""


class TransitionDataset(Protocol):
    """A table of transitions, in memory or mapped."""

    @property
    def spec(self) -> DataSpec:
        """Names and shapes."""

    @property
    def label(self) -> str:
        """Name in reports and messages."""

    def __len__(self) -> int:
        """Return the number of transitions."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are present."""

    @property
    def offsets(self) -> IntArray:
        """First row of each trajectory, and the number of rows at the end: ``(K + 1,)``."""

    @property
    def trajectory_ids(self) -> IntArray:
        """Trajectory of each row, ``(n,)``, counted from 0."""

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column, ``(n, *row)``; in memory it is no copy."""

    def gather(self, indices: NDArray[Any], names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the rows ``indices`` of the named columns (of all by default), in that order."""

    def final_observations(self, trajectories: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what was seen after the last step of each trajectory; empty when it was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """Transitions in memory.

    Parameters
    ----------
    spec:
        Names and shapes.
    data:
        Columns by name, each ``(n, *row)``.
    offsets:
        ``(K + 1,)``: first row of each trajectory, ending with ``n``.
    slots:
        ``(K,)``: slot that each trajectory was captured in; -1 where unknown.
    final:
        Observations after the last step of each trajectory, ``(K, *shape)`` by name; empty when not kept.
    records:
        Where a trajectory comes from a file: its metadata and what is needed to write it back unchanged.
    label:
        Name in messages.

    Raises
    ------
    DataError
        When columns and offsets do not fit one another.
    """

    spec: DataSpec
    data: Mapping[str, NDArray[Any]]
    offsets: IntArray
    slots: IntArray
    final: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    label: str = "transitions"

    def __post_init__(self) -> None:
        rows, count = int(self.offsets[-1]), len(self.offsets) - 1
        for name, column in self.data.items():
            if len(column) != rows:
                msg = f"dataset {self.label!r}: column {name!r} has {len(column)} rows, expected {rows}"
                raise DataError(msg)
        needed = {*self.spec.observations, "actions", "rewards", "terminated", "truncated"}
        absent = sorted(needed - set(self.data))
        if absent:
            msg = f"dataset {self.label!r} lacks the columns {absent}"
            raise DataError(msg)
        for what, length in (("slots", len(self.slots)), *((name, len(rows)) for name, rows in self.final.items())):
            if length != count:
                msg = f"dataset {self.label!r}: {what!r} has {length} rows for {count} trajectories"
                raise DataError(msg)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are present."""
        return tuple(self.data)

    @property
    def trajectory_ids(self) -> IntArray:
        """Trajectory of each row, ``(n,)``."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column (no copy).

        Raises
        ------
        DataError
            When there is none of that name.
        """
        try:
            return self.data[name]
        except KeyError:
            msg = f"dataset {self.label!r} has no column {name!r}; it has {sorted(self.data)}"
            raise DataError(msg) from None

    def gather(self, indices: NDArray[Any], names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the rows ``indices`` of the named columns, in that order."""
        return {name: self.column(name)[indices] for name in (self.columns if names is None else names)}

    def final_observations(self, trajectories: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what was seen after the last step of each trajectory; empty when it was not kept."""
        return {name: rows[trajectories] for name, rows in self.final.items()}

    def select(self, trajectories: Iterable[int], *, label: str | None = None) -> Transitions:
        """Return a copy with some of the trajectories, in the given order."""
        chosen = list(trajectories)
        pieces = [np.arange(self.offsets[item], self.offsets[item + 1]) for item in chosen]
        rows = np.concatenate([np.empty(0, np.int64), *pieces])
        return Transitions(
            spec=self.spec,
            data={name: column[rows] for name, column in self.data.items()},
            offsets=_offsets([len(piece) for piece in pieces]),
            slots=self.slots[chosen],
            final={name: array[chosen] for name, array in self.final.items()},
            records=tuple(self.records[item] for item in chosen) if self.records else (),
            label=self.label if label is None else label,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Transitions], *, label: str | None = None) -> Transitions:
        """Join datasets of one spec.

        Raises
        ------
        DataError
            When there are none, or their columns differ.
        """
        if not parts:
            msg = "at least one dataset is required"
            raise DataError(msg)
        first = parts[0]
        for part in parts[1:]:
            if set(part.data) != set(first.data):
                msg = f"{part.label!r} has the columns {sorted(part.data)}, {first.label!r} {sorted(first.data)}"
                raise DataError(msg)
        final = first.final if all(set(part.final) == set(first.final) for part in parts) else {}
        return cls(
            spec=first.spec,
            data={name: np.concatenate([part.data[name] for part in parts]) for name in first.data},
            offsets=_offsets(np.concatenate([np.diff(part.offsets) for part in parts])),
            slots=np.concatenate([part.slots for part in parts]),
            final={name: np.concatenate([part.final[name] for part in parts]) for name in final},
            records=tuple(record for part in parts for record in part.records)
            if all(part.records for part in parts)
            else (),
            label=first.label if label is None else label,
        )


def _offsets(lengths: Any) -> IntArray:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)


def transitions_from_rollout(
    arrays: RolloutArrays,
    spec: DataSpec,
    *,
    final: Callable[[IntArray, IntArray], Mapping[str, NDArray[Any]]] | None = None,
    label: str = "rollout",
) -> Transitions:
    """Cut a rollout into trajectories: copies, so that the rollout's arrays may be overwritten.

    A trajectory is one slot's run of valid rows within one episode.

    Parameters
    ----------
    final:
        Gives what was seen after some steps of some slots (``steps``, ``slots``: ``(K,)`` each) by name, so that
        it is kept for trajectory ends; :meth:`RolloutBuffer.observations_after` does.
    """
    valid = arrays.valid.T  # slot-major: the rows of a slot stand together
    starts = arrays.episode_starts.T.copy()
    starts[:, 0] = True
    starts[:, 1:] |= ~valid[:, :-1]
    (first_rows,) = np.nonzero(starts[valid])
    offsets = np.append(first_rows, valid.sum()).astype(np.int64)
    columns: dict[str, NDArray[Any]] = dict(arrays.observations)
    columns |= {name: column for name in STEP_COLUMNS if (column := getattr(arrays, name)) is not None}
    slot_of_row, step_of_row = np.nonzero(valid)
    last_rows = offsets[1:] - 1
    return Transitions(
        spec=spec,
        data={name: np.swapaxes(column, 0, 1)[valid] for name, column in columns.items()},
        offsets=offsets,
        slots=slot_of_row[first_rows],
        final={} if final is None else final(step_of_row[last_rows], slot_of_row[last_rows]),
        label=label,
    )


class PaddedColumn:
    """One observation of trajectories laid side by side, ``(T, K, *shape)``; rows stay in the table until asked for.

    ``column[valid]``, ``column[first:last]`` and ``numpy.asarray(column)`` give arrays, with zeros for padding.

    Parameters
    ----------
    dataset, name:
        Table and column.
    rows:
        ``(T, K)``: row of the table that each place shows, -1 for padding.
    """

    __slots__ = ("_dataset", "_flat", "_name", "_rows", "dtype", "shape")

    def __init__(self, dataset: TransitionDataset, name: str, rows: IntArray) -> None:
        self._dataset, self._name, self._rows, self._flat = dataset, name, rows, rows.reshape(-1)
        spec = dataset.spec.observations[name]
        found = dataset.gather(rows[rows >= 0][:1], [name])[name]
        self.dtype, self.shape = found.dtype, (*rows.shape, *spec.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: slice | NDArray[np.bool_]) -> NDArray[Any]:
        rows = self._rows[key]
        kept = rows >= 0
        if kept.all():
            found: NDArray[Any] = self._dataset.gather(rows.reshape(-1), [self._name])[self._name]
            return found.reshape(*rows.shape, *self.shape[2:])
        out = np.zeros((*rows.shape, *self.shape[2:]), self.dtype)
        out[kept] = self._dataset.gather(rows[kept], [self._name])[self._name]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def table_rows(self, places: IntArray) -> IntArray:
        """Row of the table that each place ``t * K + k`` shows; padding shows row 0."""
        return np.maximum(self._flat[places], 0)

    @staticmethod
    def read(columns: Mapping[str, PaddedColumn], places: IntArray) -> dict[str, NDArray[Any]]:
        """Read the same places of several columns of one table, ``(M, *shape)`` each, by one copy."""
        if not columns:
            return {}
        first = next(iter(columns.values()))
        found = first._dataset.gather(first.table_rows(places), [column._name for column in columns.values()])
        return {name: found[column._name] for name, column in columns.items()}


def pad_trajectories(
    dataset: TransitionDataset, trajectories: NDArray[Any] | None = None, *, mapped: bool = False
) -> RolloutArrays:
    """Lay trajectories side by side, padded to the longest: what a learner consumes.

    A trajectory that neither terminated nor was cut off (the capture ended) counts as truncated after its last
    row, where ``next_values`` holds the value of what came next.

    Parameters
    ----------
    trajectories:
        Which ones; all by default.
    mapped:
        Leave observations in the table (:class:`PaddedColumn`): for one that is mapped from disk.

    Returns
    -------
    RolloutArrays
        ``(T, K, ...)``; padding is not ``valid``, allows every action and is zero otherwise.
    """
    offsets = dataset.offsets
    chosen = np.arange(len(offsets) - 1) if trajectories is None else np.asarray(trajectories, np.int64)
    begin, lengths = offsets[chosen], offsets[chosen + 1] - offsets[chosen]
    longest = int(lengths.max(initial=0))
    steps = np.arange(longest)[:, None]
    valid = steps < lengths
    places = np.where(valid, begin + steps, -1)
    observed: dict[str, Any] = {}
    if mapped and valid.any():
        observed = {name: PaddedColumn(dataset, name, places) for name in dataset.spec.observations}
    gathered = dataset.gather(places[valid], [name for name in dataset.columns if name not in observed])

    def padded(name: str, fill: Any = 0) -> NDArray[Any] | None:
        column = gathered.pop(name, None)
        if column is None:
            return None
        if name in STEP_COLUMNS and name != "action_mask":  # an old file may hold (T, 1) for (T,)
            if column.size != len(column):
                msg = (
                    f"dataset {dataset.label!r}: column {name!r} has rows of shape {column.shape[1:]}, expected scalars"
                )
                raise DataError(msg)
            column = column.reshape(len(column))
        out = np.full((longest, len(chosen), *column.shape[1:]), fill, column.dtype)
        out[valid] = column
        return out

    optional = {name: padded(name, name == "action_mask") for name in STEP_COLUMNS}
    terminated = np.asarray(optional["terminated"], np.bool_)
    truncated = np.asarray(optional["truncated"], np.bool_).copy()
    ended = terminated | truncated
    starts = np.zeros_like(valid)
    starts[0] = True
    starts[1:] = ended[:-1] & valid[1:]  # old files may hold several episodes
    held = np.nonzero(lengths)[0]
    last = lengths[held] - 1
    truncated[last, held] |= ~terminated[last, held]
    return RolloutArrays(
        observations=observed
        or {name: array for name in dataset.spec.observations if (array := padded(name)) is not None},
        action_mask=optional["action_mask"],
        actions=np.asarray(optional["actions"], np.int64),
        valid=valid,
        rewards=np.asarray(optional["rewards"], np.float32),
        terminated=terminated,
        truncated=truncated,
        episode_starts=starts,
        log_probs=optional["log_probs"],
        values=optional["values"],
        next_values=optional["next_values"],
        from_expert=optional["from_expert"],
        expert_actions=optional["expert_actions"],
    )


def require_finite(dataset: TransitionDataset) -> None:
    """Check that every floating column is finite.

    Raises
    ------
    NonFiniteError
        Naming dataset, column and the first row with NaN or infinity.
    """
    for name in dataset.columns:
        column = dataset.column(name)
        if column.dtype.kind != "f":
            continue
        bad = ~np.isfinite(column.reshape(len(column), -1)).all(axis=1)
        if bad.any():
            msg = f"dataset {dataset.label!r}: column {name!r} holds NaN or infinity, first in row {int(bad.argmax())}"
            raise NonFiniteError(msg)
