"""Parquet export: one row per transition, for DuckDB, Polars and the like."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.errors import DataError, MissingDependencyError
from townlet_training_core.files import atomic_open
from townlet_training_core.replay.transitions import STEP_COLUMNS, TransitionDataset

__all__ = ["export_parquet"]

_ROWS = 65_536
_SINGULAR = {
    "actions": "action",
    "rewards": "reward",
    "log_probs": "log_prob",
    "values": "value",
    "next_values": "next_value",
    "expert_actions": "expert_action",
}


def export_parquet(dataset: TransitionDataset, path: Path, *, observations: bool = True) -> int:
    """Write a dataset as one Parquet file, whole or not at all, in bounded memory.

    Columns: ``trajectory``, ``step``, ``slot``; ``action``, ``action_name``, ``reward``, ``terminated``,
    ``truncated`` and what else is present; a column per named feature; maps, masks and other arrays as lists of
    fixed size in C order.

    Parameters
    ----------
    observations:
        Also write observations and masks.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    MissingDependencyError
        When pyarrow is not installed.
    DataError
        When the file cannot be written.
    """
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        install = "pip install 'townlet-training-core[parquet]'"
        raise MissingDependencyError("the Parquet export", install=install) from error
    writer = None
    try:
        with atomic_open(path) as stream:
            for columns in _pieces(dataset, observations=observations):
                table = arrow.table({name: _arrow_array(arrow, column) for name, column in columns.items()})
                if writer is None:
                    writer = parquet.ParquetWriter(stream, table.schema, compression="zstd")
                writer.write_table(table)
            if writer is not None:
                writer.close()
    except OSError as error:
        msg = f"{str(path)!r} cannot be written: {error.strerror or error}"
        raise DataError(msg) from error
    return len(dataset)


def _arrow_array(arrow: Any, column: NDArray[Any] | list[str]) -> Any:
    if isinstance(column, list):
        return arrow.array(column).dictionary_encode()
    if column.ndim == 1:
        return arrow.array(column)
    flat = arrow.array(np.ascontiguousarray(column).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape[1:])))


def _pieces(dataset: TransitionDataset, *, observations: bool) -> Iterator[dict[str, Any]]:
    """Yield the table in pieces of bounded size; one without rows when the dataset has none."""
    offsets, trajectories = dataset.offsets, dataset.trajectory_ids
    slots = getattr(dataset, "slots", None)
    wide = {*dataset.spec.observations, "action_mask"}
    names = [name for name in dataset.columns if observations or name not in wide]
    for begin in range(0, max(1, len(dataset)), _ROWS):
        indices = np.arange(begin, min(begin + _ROWS, len(dataset)))
        rows = dataset.gather(indices, names)
        own = trajectories[indices]
        columns: dict[str, Any] = {"trajectory": own, "step": (indices - offsets[own]).astype(np.int32)}
        if slots is not None:
            columns["slot"] = slots[own]
        for name in STEP_COLUMNS:
            if name in rows:
                columns[_SINGULAR.get(name, name)] = rows[name]
        columns["action_name"] = [_action_name(dataset, int(action)) for action in rows["actions"].reshape(-1)]
        for name in dataset.spec.observations:
            if name in rows:
                columns |= _observation(dataset, name, rows[name], taken=set(columns))
        yield columns


def _action_name(dataset: TransitionDataset, action: int) -> str:
    names = dataset.spec.action_names
    return names[action] if 0 <= action < len(names) else f"action_{action}"


def _observation(dataset: TransitionDataset, name: str, rows: NDArray[Any], *, taken: set[str]) -> dict[str, Any]:
    names = dataset.spec.feature_names
    if name != "features" or len(names) != rows.shape[1]:
        return {name: rows}
    columns: dict[str, Any] = {}
    for index, feature in enumerate(names):
        # A feature may be called like a column, or like another feature: it then carries its number.
        free = feature and feature not in taken and feature not in columns
        columns[feature if free else f"feature_{index}_{feature}"] = rows[:, index]
    return columns
