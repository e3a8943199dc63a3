"""Gymnasium spaces → named observation arrays: what the networks know as ``map``, ``features`` and ``state``.

Images (two or more dimensions) become ``map`` with channels first; everything flat (vectors, one-hot discrete
values) is concatenated into ``features``, in the order of the space; a vector named ``state`` stays by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.errors import SpaceMismatchError

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["ObservationLayout", "merge_specs"]

_MASK = "action_mask"
_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One leaf of the space and where it goes."""

    key: str | None
    target: str
    space: Space[Any]
    start: int
    width: int
    channels_last: bool
    flatten: Callable[[Space[Any], Any], Any] | None


class ObservationLayout:
    """How one agent's observations are written into the rows of named arrays.

    Parameters
    ----------
    space:
        The agent's observation space. A ``Dict`` may carry an ``action_mask``, which is taken apart.
    agent:
        Name for messages.

    Raises
    ------
    SpaceMismatchError
        When a leaf of the space is neither image-like nor flat.
    """

    def __init__(self, space: Space[Any], *, agent: str) -> None:
        from gymnasium import spaces

        self.has_mask = isinstance(space, spaces.Dict) and _MASK in space.spaces
        leaves: list[tuple[str | None, Space[Any]]]
        if isinstance(space, spaces.Dict):
            leaves = [(key, leaf) for key, leaf in space.spaces.items() if key != _MASK]
        else:
            leaves = [(None, space)]
        images = sum(_is_image(leaf) for _, leaf in leaves)
        self.specs: dict[str, ArraySpec] = {}
        self.feature_names: tuple[str, ...] = ()
        parts: list[_Part] = []
        for key, leaf in leaves:
            if _is_image(leaf):
                target = "map" if images == 1 else str(key)
                shape, last = _channels_first(tuple(leaf.shape or ()))
                dtype = np.dtype(np.uint8) if leaf.dtype == np.uint8 else np.dtype(np.float32)
                self.specs[target] = ArraySpec(shape, dtype)
                parts.append(
                    _Part(key=key, target=target, space=leaf, start=0, width=0, channels_last=last, flatten=None)
                )
                continue
            width = _flat_width(leaf, agent=agent, key=key)
            target = "state" if key == "state" else "features"
            known = self.specs.get(target)
            start = known.shape[0] if known else 0
            self.specs[target] = ArraySpec((start + width,), np.dtype(np.float32))
            if target == "features":
                label = key or "observation"
                names = (label,) if width == 1 else tuple(f"{label}_{index}" for index in range(width))
                self.feature_names += names
            flatten = None if isinstance(leaf, spaces.Box) else spaces.flatten
            parts.append(
                _Part(
                    key=key, target=target, space=leaf, start=start, width=width, channels_last=False, flatten=flatten
                )
            )
        self._parts = tuple(parts)

    def write(self, observation: Any, rows: Mapping[str, NDArray[Any]], slot: int) -> None:
        """Write one observation into row ``slot`` of ``rows``; columns beyond the layout's own become 0."""
        for part in self._parts:
            value = observation if part.key is None else observation[part.key]
            row = rows[part.target][slot]
            if part.width == 0:
                image = np.asarray(value)
                if image.ndim == 2:
                    image = image[None]
                row[...] = np.moveaxis(image, -1, 0) if part.channels_last else image
                continue
            if part.flatten is None and part.width == len(row) and np.ndim(value) == 1:
                row[...] = value  # the usual case: one flat array is all there is
                continue
            if part.start == 0:
                row[part.width :] = 0
            flat = value if part.flatten is None else part.flatten(part.space, value)
            row[part.start : part.start + part.width] = np.asarray(flat, np.float32).reshape(-1)


def merge_specs(layouts: Mapping[str, ObservationLayout]) -> dict[str, ArraySpec]:
    """Merge the agents' arrays into one set: flat ones take the widest agent's width (others are padded by 0).

    Raises
    ------
    SpaceMismatchError
        When agents have different arrays, or maps of different shapes.
    """
    merged: dict[str, ArraySpec] = {}
    for agent, layout in layouts.items():
        if merged and set(merged) != set(layout.specs):
            msg = f"agent {agent!r} observes {sorted(layout.specs)}, another agent {sorted(merged)}; expected the same"
            raise SpaceMismatchError(msg)
        for name, spec in layout.specs.items():
            known = merged.get(name, spec)
            if known.shape != spec.shape and (len(known.shape) != 1 or len(spec.shape) != 1):
                msg = f"{name!r} has shape {spec.shape} for agent {agent!r} and {known.shape} for another"
                raise SpaceMismatchError(msg)
            merged[name] = max(known, spec, key=lambda item: item.shape)
    return merged


def _is_image(space: Space[Any]) -> bool:
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and len(space.shape) >= 2


def _channels_first(shape: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Return the channels-first shape, and whether the channels came last (the clearly smallest axis)."""
    if len(shape) == 2:
        return (1, *shape), False
    last = shape[-1] <= _MOST_CHANNELS < shape[0]
    return ((shape[-1], *shape[:-1]) if last else shape), last


def _flat_width(space: Space[Any], *, agent: str, key: str | None) -> int:
    from gymnasium import spaces

    try:
        return int(spaces.flatdim(space))
    except (NotImplementedError, ValueError) as error:
        msg = f"agent {agent!r}: observation {key or 'observation'!r} is {space}; expected a Box or something flat"
        raise SpaceMismatchError(msg) from error
