"""How far a capture has come: its totals, and the state that it goes on from after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.errors import CapabilityError, ConfigurationError, DataError, MissingFileError
from townlet_training_core.files import atomic_write_bytes
from townlet_training_core.replay.tensorfile import map_tensors
from townlet_training_core.replay.transitions import Transitions
from townlet_training_core.rollout.capture import RolloutCollector

__all__ = ["STATE_FILE", "CaptureTotals", "load_progress", "save_progress"]

STATE_FILE = "capture.safetensors"
"""State of an unfinished capture, beside its shards; removed at the end."""


@dataclass(slots=True, kw_only=True)
class CaptureTotals:
    """Running totals of a capture; ``events`` maps a kind to its count and the sum of its values."""

    ticks: int = 0
    shards: int = 0
    transitions: int = 0
    trajectories: int = 0
    episodes: int = 0
    return_sum: float = 0.0
    length_sum: int = 0
    events: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, collector: RolloutCollector, block: Transitions, *, ticks: int) -> None:
        """Add what the last ``collect()`` gave."""
        self.ticks += ticks
        self.transitions += len(block)
        self.trajectories += len(block.slots)
        self.episodes += len(collector.episodes)
        self.return_sum += float(collector.episodes.returns.sum())
        self.length_sum += int(collector.episodes.lengths.sum())
        kinds = tuple(collector.simulation.spec.event_kinds)
        for name, (count, total) in collector.buffer.events.totals(kinds).items():
            before = self.events.get(name, (0, 0.0))
            self.events[name] = (before[0] + count, before[1] + total)


def save_progress(folder: Path, collector: RolloutCollector, totals: CaptureTotals, request: Mapping[str, Any]) -> bool:
    """Write what an interrupted capture goes on from; ``False`` when the simulation cannot be saved."""
    try:
        arrays = collector.save_state()
    except CapabilityError:
        return False
    from safetensors.numpy import save  # not before a capture is under way

    tensors = {name: np.array(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"totals": asdict(totals), "request": dict(request)})
    atomic_write_bytes(folder / STATE_FILE, save(tensors, metadata={"progress": text}))
    return True


def load_progress(folder: Path, request: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], CaptureTotals]:
    """Read :func:`save_progress`.

    Raises
    ------
    MissingFileError
        When there is nothing to go on from.
    ConfigurationError
        When the capture was begun with another request (policy, seed, ticks, ...).
    DataError
        When the file is torn.
    """
    path = folder / STATE_FILE
    if not path.exists():
        msg = f"{str(folder)!r} holds no unfinished capture to go on with: it has no {STATE_FILE}"
        raise MissingFileError(msg)
    tensors, metadata = map_tensors(path)
    try:
        progress = json.loads(metadata["progress"])
        totals = CaptureTotals(**progress["totals"])
        totals.events = {name: (int(count), float(total)) for name, (count, total) in totals.events.items()}
        begun = dict(progress["request"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{str(path)!r} is broken: {type(error).__name__}: {error}"
        raise DataError(msg) from error
    odd = sorted(key for key in {*begun, *request} if begun.get(key) != request.get(key))
    if odd:
        was = {key: begun.get(key) for key in odd}
        msg = f"the capture in {str(folder)!r} was begun with {was}; go on with the same, or choose another folder"
        raise ConfigurationError(msg)
    return {name: np.array(array) for name, array in tensors.items()}, totals
