"""Samples ↔ transitions: between the exchange format and columns, without loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.errors import DataError
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import STEP_COLUMNS, TransitionDataset, Transitions

__all__ = ["Survey", "sample_spec", "samples_from_transitions", "survey_samples", "transitions_from_samples"]

_EXTRA_OBSERVATION = "observation/"
_FINAL = "final_observation/"
_DERIVED = {"actions", "rewards", "log_probs", "values", "next_values"}
"""Step columns that the named fields of a sample carry; the others travel as extras."""


def sample_spec(sample: ReplaySample, *, action_dim: int) -> DataSpec:
    """Describe a sample's data by its metadata; actions without names are called ``action_<id>``."""
    metadata = sample.metadata
    observations: dict[str, ArraySpec] = {}
    if sample.map[:1].size or sample.map.shape[1:] != (0, 0, 0):
        observations["map"] = ArraySpec(sample.map.shape[1:], sample.map.dtype)
    if sample.features.shape[1]:
        observations["features"] = ArraySpec(sample.features.shape[1:], sample.features.dtype)
    for name, array in sample.extras.items():
        if name.startswith(_EXTRA_OBSERVATION):
            observations[name.removeprefix(_EXTRA_OBSERVATION)] = ArraySpec(array.shape[1:], array.dtype)
    names = tuple(str(name) for name in metadata.get("action_names") or ())
    names += tuple(f"action_{action}" for action in range(len(names), action_dim))
    return DataSpec(
        observations=observations,
        action_names=names,
        feature_names=tuple(sample.feature_names),
        map_channels=tuple(str(name) for name in metadata.get("map_channels") or ()),
        masked="action_mask" in sample.extras,
        simulation=metadata.get("simulation"),
        rules_hash=metadata.get("rules_hash"),
        versions=dict(metadata.get("versions") or {}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What holds for a set of samples as a whole: the action space, and the columns that no policy filled."""

    spec: DataSpec
    absent: frozenset[str]


def survey_samples(samples: Iterable[ReplaySample], *, label: str = "replay") -> Survey:
    """Look at samples one by one, keeping none.

    The size of the action space is the metadata's, the largest over the samples, and never less than the largest
    action plus one. Log-probabilities and values are absent when every sample's metadata lists them under
    ``absent``, or when they are zero throughout (old scripted captures).

    Raises
    ------
    DataError
        When there are no samples.
    """
    first: ReplaySample | None = None
    action_dim, filled = 0, False
    said: set[str] | None = None
    for sample in samples:
        first = first or sample
        action_dim = max(action_dim, _action_dim(sample), int(sample.actions.max(initial=-1)) + 1)
        filled = filled or _is_filled(sample.old_log_probs) or _is_filled(sample.value_preds)
        here = set(sample.metadata.get("absent") or ()) & {"log_probs", "values"}
        said = here if said is None else said & here
    if first is None or said is None:
        msg = f"dataset {label!r} contains no samples"
        raise DataError(msg)
    hidden = said if filled or said else {"log_probs", "values"}
    if "values" in hidden:
        hidden = hidden | {"next_values"}
    return Survey(spec=sample_spec(first, action_dim=action_dim), absent=frozenset(hidden))


def transitions_from_samples(
    samples: Iterable[ReplaySample], *, label: str = "replay", survey: Survey | None = None
) -> Transitions:
    """Join samples into a table; each is one trajectory.

    Parameters
    ----------
    survey:
        Of the larger set that these samples are a part of; by default they are surveyed themselves.

    Raises
    ------
    DataError
        When there are no samples, or their observations or extra arrays differ.
    """
    listed = list(samples)
    survey = survey or survey_samples(listed, label=label)
    parts = [_columns(sample, label=f"{label}[{number}]") for number, sample in enumerate(listed)]
    for number, part in enumerate(parts):
        _check_alike(parts[0], part, label=f"{label}[{number}]")
    final_names = [name for name in listed[0].extras if name.startswith(_FINAL)]
    return Transitions(
        spec=survey.spec,
        data={name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in survey.absent},
        offsets=np.concatenate([[0], np.cumsum([sample.timesteps for sample in listed])]).astype(np.int64),
        slots=np.array([int(sample.metadata.get("slot", -1)) for sample in listed], np.int64),
        final={
            name.removeprefix(_FINAL): np.concatenate([sample.extras[name] for sample in listed])
            for name in final_names
        },
        records=tuple(_record(sample, survey.absent) for sample in listed),
        label=label,
    )


def _is_filled(array: NDArray[Any]) -> bool:
    """Whether there is anything but plain zeros (a negative zero was computed by somebody)."""
    return bool(array.any() or (array.dtype.kind == "f" and np.signbit(array).any()))


def _action_dim(sample: ReplaySample) -> int:
    return max(int(sample.metadata.get("action_dim") or 0), len(sample.metadata.get("action_names") or ()))


def _columns(sample: ReplaySample, *, label: str) -> dict[str, NDArray[Any]]:
    steps = sample.timesteps
    columns: dict[str, NDArray[Any]] = {}
    if sample.map.shape[1:] != (0, 0, 0):
        columns["map"] = sample.map
    if sample.features.shape[1]:
        columns["features"] = sample.features
    values = sample.value_preds
    following = values[1:] if len(values) == steps + 1 else np.concatenate([values[1:], values[-1:]])
    columns |= {
        "actions": sample.actions,
        "rewards": sample.rewards,
        "terminated": sample.dones,
        "truncated": np.zeros(sample.dones.shape, np.bool_),
        "log_probs": sample.old_log_probs,
        "values": values[:steps],
        "next_values": following,
    }
    for name, array in sample.extras.items():
        if not name.startswith(_FINAL):
            columns[name.removeprefix(_EXTRA_OBSERVATION)] = array
    if "terminated" in sample.extras and "truncated" in sample.extras:
        dones = np.asarray(columns["terminated"], np.bool_) | np.asarray(columns["truncated"], np.bool_)
        if not np.array_equal(dones, np.asarray(sample.dones, np.bool_)):
            msg = f"{label}: 'dones' contradicts 'terminated' and 'truncated'"
            raise DataError(msg)
    return columns


def _check_alike(first: Mapping[str, NDArray[Any]], part: Mapping[str, NDArray[Any]], *, label: str) -> None:
    if set(part) != set(first):
        msg = f"{label} has the arrays {sorted(part)}, the first sample {sorted(first)}; convert them apart"
        raise DataError(msg)
    for name, array in part.items():
        expected = (first[name].shape[1:], first[name].dtype)
        if (array.shape[1:], array.dtype) != expected:
            msg = (
                f"{label}, array {name!r}: rows of shape {array.shape[1:]} and dtype {array.dtype}, the first sample "
                f"has {expected[0]} and {expected[1]}; convert them apart"
            )
            raise DataError(msg)


def _record(sample: ReplaySample, hidden: frozenset[str]) -> dict[str, Any]:
    """Note what :func:`samples_from_transitions` needs to write the sample back unchanged."""
    dtypes = {
        name: getattr(sample, name).dtype.str
        for name, column in (("old_log_probs", "log_probs"), ("value_preds", "values"))
        if column in hidden
    }
    return {
        "metadata": sample.metadata,
        "value_pred_steps": len(sample.value_preds),
        "extras": list(sample.extras),
        "dones": sample.dones.dtype.str,
        "map": [list(sample.map.shape[1:]), sample.map.dtype.str],
        "features": [list(sample.features.shape[1:]), sample.features.dtype.str],
        "hidden_dtypes": dtypes,
        # Without a step there is no row that could hold the bootstrap value.
        "lone_values": sample.value_preds.tobytes().hex() if not sample.timesteps else None,
        "value_dtype": sample.value_preds.dtype.str,
        "hidden_shape": list(sample.old_log_probs.shape[1:]),
        "value_shape": list(sample.value_preds.shape[1:]),
    }


def samples_from_transitions(
    dataset: TransitionDataset, trajectories: Iterable[int] | None = None
) -> Iterator[ReplaySample]:
    """Yield each trajectory as a sample.

    Trajectories that came from samples are given back bit by bit. Those of a rollout get zeros where the exchange
    format knows no absence, and say so in the metadata under ``absent``.
    """
    offsets = dataset.offsets
    records: Sequence[Mapping[str, Any]] = getattr(dataset, "records", ())
    slots = getattr(dataset, "slots", None)
    for item in range(len(offsets) - 1) if trajectories is None else trajectories:
        rows = dataset.gather(np.arange(offsets[item], offsets[item + 1]))
        final = dataset.final_observations(np.array([item]))
        if records:
            try:
                yield _restore(rows, final, records[item])
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                msg = f"trajectory {item} of {dataset.label!r} cannot be restored: {type(error).__name__}: {error}"
                raise DataError(msg) from error
        else:
            slot = -1 if slots is None else int(slots[item])
            yield _fresh(dataset.spec, rows, final, slot=slot)


def _restore(
    rows: dict[str, NDArray[Any]], final: Mapping[str, NDArray[Any]], record: Mapping[str, Any]
) -> ReplaySample:
    steps = len(rows["actions"])

    def observation(name: str) -> NDArray[Any]:
        shape, dtype = record[name]
        if name in rows:
            return rows[name].astype(_dtype(dtype), copy=False)
        return np.zeros((steps, *_absent_shape(shape)), _dtype(dtype))

    extras: dict[str, NDArray[Any]] = {}
    for name in record["extras"]:
        if name.startswith(_FINAL):
            extras[name] = final[name.removeprefix(_FINAL)]
        else:
            extras[name] = rows[name.removeprefix(_EXTRA_OBSERVATION)]
    dones = rows["terminated"]
    if "terminated" in extras and "truncated" in extras:
        dones = np.asarray(rows["terminated"], np.bool_) | np.asarray(rows["truncated"], np.bool_)
    hidden = record["hidden_dtypes"]
    value_steps = int(record["value_pred_steps"])
    if value_steps not in (steps, steps + 1):
        msg = f"value_pred_steps is {value_steps} for {steps} steps"
        raise DataError(msg)
    if "value_preds" in hidden:
        values = np.zeros((value_steps, *_absent_shape(record["value_shape"])), _dtype(hidden["value_preds"]))
    elif not steps:
        stored = np.frombuffer(bytes.fromhex(record["lone_values"]), _dtype(record["value_dtype"]))
        values = stored.reshape(value_steps, *record["value_shape"]).copy()
    elif value_steps == steps:
        values = rows["values"]
    else:
        values = np.concatenate([rows["values"], rows["next_values"][-1:]])
    if "old_log_probs" in hidden:
        log_probs = np.zeros((steps, *_absent_shape(record["hidden_shape"])), _dtype(hidden["old_log_probs"]))
    else:
        log_probs = rows["log_probs"]
    return ReplaySample(
        map=observation("map"),
        features=observation("features"),
        actions=rows["actions"],
        old_log_probs=log_probs,
        value_preds=values,
        rewards=rows["rewards"],
        dones=dones.astype(_dtype(record["dones"]), copy=False),
        metadata=dict(record["metadata"]),
        extras=extras,
    )


def _dtype(name: Any) -> np.dtype[Any]:
    """Read a numeric dtype from a record; anything else is refused before memory is taken for it."""
    if not isinstance(name, str) or len(name) != 3 or name[1] not in "biuf":
        msg = f"{name!r} is no numeric dtype"
        raise DataError(msg)
    return np.dtype(name)


def _absent_shape(shape: Any) -> tuple[int, ...]:
    """Read the row shape of an array that held nothing but zeros; no record may ask for much memory."""
    axes = tuple(int(axis) for axis in shape)
    if len(axes) > 8 or any(not 0 <= axis <= 4096 for axis in axes) or np.prod(axes) > 4096:
        msg = f"{shape!r} is no row shape of an absent array"
        raise DataError(msg)
    return axes


def _fresh(
    spec: DataSpec, rows: dict[str, NDArray[Any]], final: Mapping[str, NDArray[Any]], *, slot: int
) -> ReplaySample:
    steps = len(rows["actions"])
    absent = [name for name in ("log_probs", "values") if name not in rows]
    metadata: dict[str, Any] = {
        **{key: value for key, value in spec.to_json().items() if key not in ("observations", "event_kinds")},
        "action_dim": spec.action_dim,
        "slot": slot,
    }
    if absent:
        metadata["absent"] = absent
    values = rows.get("values", np.zeros(steps, np.float32))
    last = rows["next_values"][-1:] if "next_values" in rows else np.zeros(1, np.float32)
    extras = {name: rows[name] for name in STEP_COLUMNS if name in rows and name not in _DERIVED}
    extras |= {
        f"{_EXTRA_OBSERVATION}{name}": rows[name] for name in spec.observations if name not in ("map", "features")
    }
    extras |= {f"{_FINAL}{name}": array for name, array in final.items()}
    return ReplaySample(
        map=rows.get("map", np.zeros((steps, 0, 0, 0), np.float32)),
        features=rows.get("features", np.zeros((steps, 0), np.float32)),
        actions=rows["actions"],
        old_log_probs=rows.get("log_probs", np.zeros(steps, np.float32)),
        value_preds=np.concatenate([values, last]),
        rewards=rows["rewards"],
        dones=rows["terminated"] | rows["truncated"],
        metadata=metadata,
        extras=extras,
    )
