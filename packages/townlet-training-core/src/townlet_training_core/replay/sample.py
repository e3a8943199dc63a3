"""Samples: one trajectory of one agent as arrays, in the format that captures are exchanged in.

The public names and error texts are those of the predecessor's replay module, which existing code relies on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.errors import DataError

__all__ = [
    "REQUIRED_CONFLICT_FEATURES",
    "STEP_ARRAY_FIELDS",
    "TRAINING_ARRAY_FIELDS",
    "ReplayBatch",
    "ReplaySample",
    "build_batch",
    "frames_to_replay_sample",
]

TRAINING_ARRAY_FIELDS = ("actions", "old_log_probs", "rewards", "dones", "value_preds")
"""Arrays of a sample beside its observations."""

STEP_ARRAY_FIELDS = TRAINING_ARRAY_FIELDS[:4]
"""Those with one row a step; ``value_preds`` may have one more."""

REQUIRED_CONFLICT_FEATURES = ("rivalry_max", "rivalry_avoid_count")
"""Features that data from a town always has."""


@dataclass
class ReplaySample:
    """A trajectory of T steps.

    ============= ======================= ==================================================================
    Field         Shape                   Meaning
    ============= ======================= ==================================================================
    map           (T, C, H, W)            local map; a single (C, H, W) map gets a time axis; (T, 0, 0, 0): none
    features      (T, F)                  features; (T, 0): none
    actions       (T,) int64              action ids
    old_log_probs (T,) float32            of the acting policy; zeros in old scripted captures
    value_preds   (T + 1,) or (T,)        of the acting policy; the last of T + 1 is the bootstrap value
    rewards       (T,) float32
    dones         (T,) bool               the episode ended after this step, for good or cut off
    metadata      mapping                 ``feature_names``, ``action_names``, ``action_dim``, ...
    extras        name -> (T, ...)        columns beyond the exchange format (``action_mask``, ``terminated``, ...)
    ============= ======================= ==================================================================

    Raises
    ------
    TypeError
        When a training array is no numpy array.
    DataError
        When lengths or ranks do not fit one another.
    """

    map: NDArray[Any]
    features: NDArray[Any]
    actions: NDArray[Any]
    old_log_probs: NDArray[Any]
    value_preds: NDArray[Any]
    rewards: NDArray[Any]
    dones: NDArray[Any]
    metadata: dict[str, Any]
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in TRAINING_ARRAY_FIELDS:
            array = getattr(self, name)
            if not isinstance(array, np.ndarray):
                msg = f"ReplaySample.{name} must be a numpy array"
                raise TypeError(msg)
            if array.ndim == 0:
                array = array.reshape(1)
                setattr(self, name, array)
            if array.ndim > 2:
                msg = f"ReplaySample.{name} must be 1D or 2D, not of shape {array.shape}"
                raise DataError(msg)
        steps = len(self.actions)
        lengths = {name: len(getattr(self, name)) for name in STEP_ARRAY_FIELDS}
        if len(set(lengths.values())) != 1:
            msg = f"ReplaySample training arrays must share timestep length, found {lengths}"
            raise DataError(msg)
        if self.map.ndim == 3:
            self.map = self.map[None]
        if self.map.ndim != 4:
            msg = f"ReplaySample.map must be 3D or 4D, not of shape {self.map.shape}"
            raise DataError(msg)
        if self.features.ndim == 1:
            self.features = self.features[None]
        if self.features.ndim != 2:
            msg = f"ReplaySample.features must be 1D or 2D, not of shape {self.features.shape}"
            raise DataError(msg)
        if len(self.map) != steps or len(self.features) != steps:
            msg = (
                f"ReplaySample map and features must match the {steps} timesteps of the training arrays, found "
                f"{len(self.map)} and {len(self.features)}"
            )
            raise DataError(msg)
        if len(self.value_preds) not in (steps, steps + 1):
            msg = (
                "ReplaySample.value_preds must have length matching timesteps or timesteps + 1: "
                f"found {len(self.value_preds)} for {steps} timesteps"
            )
            raise DataError(msg)
        for name, array in self.extras.items():
            if array.ndim == 0 or (len(array) != steps and not name.startswith("final_observation/")):
                msg = f"ReplaySample.extras[{name!r}] has shape {array.shape}, expected {steps} rows"
                raise DataError(msg)
        self.metadata.setdefault("training_arrays", list(TRAINING_ARRAY_FIELDS))
        self.metadata.setdefault("timesteps", steps)
        self.metadata.setdefault("value_pred_steps", len(self.value_preds))

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns; empty when the metadata has none."""
        return [str(name) for name in self.metadata.get("feature_names") or ()]

    def conflict_stats(self) -> dict[str, float]:
        """Mean of each conflict feature that the sample has."""
        return {name: float(column.mean()) for name, column in _conflict_columns(self.feature_names, self.features)}


@dataclass
class ReplayBatch:
    """Samples of one shape stacked: maps (B, T, C, H, W), features (B, T, F), step arrays (B, T)."""

    maps: NDArray[Any]
    features: NDArray[Any]
    actions: NDArray[Any]
    old_log_probs: NDArray[Any]
    value_preds: NDArray[Any]
    rewards: NDArray[Any]
    dones: NDArray[Any]
    metadata: dict[str, Any]

    def conflict_stats(self) -> dict[str, float]:
        """Mean and maximum of each conflict feature that the batch has, e.g. ``rivalry_max_mean``."""
        stats: dict[str, float] = {}
        for name, column in _conflict_columns(self.metadata.get("feature_names") or (), self.features):
            stats[f"{name}_mean"] = float(column.mean())
            stats[f"{name}_max"] = float(column.max())
        return stats


def _conflict_columns(names: Sequence[str], features: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    listed = list(names)
    return [
        (name, features[..., listed.index(name)])
        for name in REQUIRED_CONFLICT_FEATURES
        if name in listed and features.size
    ]


def build_batch(samples: Sequence[ReplaySample]) -> ReplayBatch:
    """Stack samples of one shape.

    Raises
    ------
    DataError
        When there are none, or their shapes differ.
    """
    if not samples:
        msg = "at least one sample required to build batch"
        raise DataError(msg)

    def stack(name: str) -> NDArray[Any]:
        arrays = [getattr(sample, name) for sample in samples]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            msg = f"samples of one batch must have one shape, found {shapes} for {name!r}"
            raise DataError(msg)
        return np.stack(arrays)

    maps = stack("map")
    metadata = {
        "feature_names": samples[0].feature_names,
        "map_shape": tuple(maps.shape[2:]),
        "training_arrays": list(TRAINING_ARRAY_FIELDS),
        "timesteps": int(maps.shape[1]),
        "value_pred_steps": len(samples[0].value_preds),
        "metrics": [dict(sample.metadata.get("metrics") or {}) for sample in samples],
    }
    known = [int(sample.metadata["action_dim"]) for sample in samples if sample.metadata.get("action_dim")]
    if known:
        metadata["action_dim"] = max(known)
    return ReplayBatch(
        maps=maps,
        features=stack("features"),
        **{name: stack(name) for name in TRAINING_ARRAY_FIELDS},
        metadata=metadata,
    )


def frames_to_replay_sample(frames: Sequence[Mapping[str, Any]]) -> ReplaySample:
    """Join the frames of one agent, in order of time, into a sample.

    Keys read: ``map``, ``features``, ``action_id`` (or ``action``, found in ``action_lookup`` or numbered by
    first appearance), ``log_prob``, ``rewards[-1]``, ``dones[-1]``, ``value_pred``, ``bootstrap_value`` and
    ``metadata`` (the last frame's), ``anneal_context``. Where no frame carries ``bootstrap_value``, the last value
    is repeated.

    Raises
    ------
    DataError
        When there are no frames, or their maps or features differ in shape.
    """
    if not frames:
        msg = "frames sequence cannot be empty"
        raise DataError(msg)
    last = frames[-1]
    lookup, actions = _action_ids(frames)
    values = [float(frame.get("value_pred") or 0.0) for frame in frames]
    bootstrap = last.get("bootstrap_value")
    metadata = dict(last.get("metadata") or {})
    metadata |= {
        "training_arrays": list(TRAINING_ARRAY_FIELDS),
        "timesteps": len(frames),
        "value_pred_steps": len(frames) + 1,
        "action_lookup": lookup,
    }
    largest = max(actions) + 1
    metadata["action_dim"] = max(int(metadata.get("action_dim") or len(metadata.get("action_names") or ())), largest)
    schema = (metadata.get("dto") or {}).get("schema_version")
    if schema:
        metadata["dto_schema_version"] = schema
    if last.get("anneal_context"):
        metadata["anneal_context"] = dict(last["anneal_context"])
    try:
        maps = np.stack([np.asarray(frame["map"], np.float32) for frame in frames])
        features = np.stack([np.asarray(frame["features"], np.float32) for frame in frames])
    except (KeyError, ValueError, TypeError) as error:
        msg = f"frames do not have maps and features of one shape: {error}"
        raise DataError(msg) from error
    return ReplaySample(
        map=maps,
        features=features,
        actions=np.array(actions, np.int64),
        old_log_probs=np.array([float(frame.get("log_prob") or 0.0) for frame in frames], np.float32),
        value_preds=np.array([*values, values[-1] if bootstrap is None else float(bootstrap)], np.float32),
        rewards=np.array([_last(frame.get("rewards"), 0.0) for frame in frames], np.float32),
        dones=np.array([bool(_last(frame.get("dones"), 0.0)) for frame in frames], np.bool_),
        metadata=metadata,
    )


def _last(values: Any, default: float) -> float:
    if isinstance(values, Sequence):
        return float(values[-1]) if values else default
    return default if values is None else float(np.asarray(values).reshape(-1)[-1])


def _action_ids(frames: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], list[int]]:
    """Return the lookup ``{JSON of the action: id}`` and each frame's action id."""
    lookup: dict[str, int] = {}
    for frame in frames:
        for key, value in dict(frame.get("action_lookup") or {}).items():
            if isinstance(value, int | np.integer) and not isinstance(value, bool):
                lookup[str(key)] = int(value)
            else:  # the other direction: id to action
                lookup[_action_key(value)] = int(key)
    ids: list[int] = []
    for frame in frames:
        action, action_id = frame.get("action"), frame.get("action_id")
        if action_id is None:
            action_id = lookup.setdefault(_action_key(action), max(lookup.values(), default=-1) + 1)
        elif action is not None and int(action_id) not in lookup.values():
            lookup.setdefault(_action_key(action), int(action_id))
        ids.append(int(action_id))
    return lookup, ids


def _action_key(action: Any) -> str:
    return action if isinstance(action, str) else json.dumps(action, sort_keys=True, default=str)
