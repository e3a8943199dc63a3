"""What a dataset says about itself: names and shapes of its observations, its action vocabulary, its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.errors import DataError, SpaceMismatchError

if TYPE_CHECKING:  # a type only: replay and simulations are neighbours
    from townlet_training_core.simulation.port import SimulationSpec

__all__ = ["DataSpec", "read_array_spec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Names and shapes of a dataset; the action space belongs to the simulation and is written in the data."""

    observations: Mapping[str, ArraySpec]
    action_names: tuple[str, ...]
    feature_names: tuple[str, ...] = ()
    map_channels: tuple[str, ...] = ()
    masked: bool = False
    simulation: str | None = None
    """Name of the simulation; ``None`` for old captures, which do not say."""
    rules_hash: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    event_kinds: tuple[str, ...] = ()

    @property
    def action_dim(self) -> int:
        """A: size of the action vocabulary."""
        return len(self.action_names)

    @classmethod
    def from_simulation(cls, spec: SimulationSpec) -> DataSpec:
        """Describe data of a simulation."""
        return cls(
            observations={
                name: ArraySpec(tuple(item.shape), np.dtype(item.dtype)) for name, item in spec.observations.items()
            },
            action_names=tuple(spec.action_names),
            feature_names=tuple(spec.feature_names),
            map_channels=tuple(spec.map_channels),
            masked=spec.masked,
            simulation=spec.name,
            rules_hash=spec.rules_hash,
            versions=dict(spec.versions),
            event_kinds=tuple(spec.event_kinds),
        )

    def check_fits(self, spec: SimulationSpec, *, label: str) -> None:
        """Check that a policy trained on this data can act in a simulation.

        Raises
        ------
        SpaceMismatchError
            When observation arrays or action vocabularies differ.
        """
        own = {name: item.shape for name, item in self.observations.items()}
        other = {name: tuple(item.shape) for name, item in spec.observations.items()}
        if own != other:
            msg = f"dataset {label!r} has observations {own}, simulation {spec.name!r} has {other}"
            raise SpaceMismatchError(msg)
        if self.simulation is not None and self.action_names != tuple(spec.action_names):
            msg = (
                f"dataset {label!r} has the actions {self.action_names}, simulation {spec.name!r} has "
                f"{tuple(spec.action_names)}"
            )
            raise SpaceMismatchError(msg)
        if self.action_dim > len(spec.action_names):
            msg = f"dataset {label!r} has {self.action_dim} actions, simulation {spec.name!r} {len(spec.action_names)}"
            raise SpaceMismatchError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "simulation": self.simulation,
            "rules_hash": self.rules_hash,
            "versions": dict(self.versions),
            "observations": {
                name: {"shape": list(item.shape), "dtype": item.dtype.name} for name, item in self.observations.items()
            },
            "action_names": list(self.action_names),
            "feature_names": list(self.feature_names),
            "map_channels": list(self.map_channels),
            "masked": self.masked,
            "event_kinds": list(self.event_kinds),
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any], *, source: str) -> DataSpec:
        """Read :meth:`to_json`.

        Raises
        ------
        DataError
            When keys are missing or of another type.
        """
        try:
            return cls(
                observations={str(name): read_array_spec(item) for name, item in payload["observations"].items()},
                action_names=_names(payload, "action_names"),
                feature_names=_names(payload, "feature_names"),
                map_channels=_names(payload, "map_channels"),
                masked=bool(payload["masked"]),
                simulation=payload["simulation"],
                rules_hash=payload["rules_hash"],
                versions=dict(payload["versions"]),
                event_kinds=_names(payload, "event_kinds"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            msg = f"{source}: the description of the data is broken: {type(error).__name__}: {error}"
            raise DataError(msg) from error


def read_array_spec(item: Mapping[str, Any]) -> ArraySpec:
    """Read ``{"shape": ..., "dtype": ...}``.

    Raises
    ------
    ValueError
        When the shape is no shape of a row, or the dtype is not numeric; other errors where the form is wrong.
    """
    shape, dtype = tuple(int(axis) for axis in item["shape"]), np.dtype(str(item["dtype"]))
    if len(shape) > 8 or any(not 0 <= axis < 2**31 for axis in shape) or dtype.kind not in "biuf":
        msg = f"{dict(item)!r} describes no array"
        raise ValueError(msg)
    return ArraySpec(shape, dtype)


def _names(payload: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(str(name) for name in payload.get(key, ()))
