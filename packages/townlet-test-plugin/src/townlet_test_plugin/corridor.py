"""A corridor: walk right to the end for a reward. Each environment holds two walkers who do not meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec, BoolArray, IntArray
from townlet_training_core.simulation.port import StepOut

__all__ = ["Corridor", "CorridorSpec", "make_corridor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorridorSpec:
    """Spaces of the corridor."""

    num_envs: int
    name: str = "corridor-v1"
    agents_per_env: int = 2
    observations: Mapping[str, ArraySpec] = field(
        default_factory=lambda: {"features": ArraySpec((2,), np.dtype(np.float32))}
    )
    feature_names: tuple[str, ...] = ("position", "time_left")
    map_channels: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ("left", "right")
    masked: bool = True
    event_kinds: tuple[str, ...] = ("arrived",)
    kpi_names: tuple[str, ...] = ()
    rules_hash: str = "corridor-1"
    versions: Mapping[str, str] = field(default_factory=lambda: {"observations": "1", "actions": "1"})


class Corridor:
    """Walkers start at 0; reaching ``length`` pays 1 and ends their episode; time runs out after ``4 * length``.

    ``left`` is masked out at the left wall.
    """

    def __init__(self, num_envs: int, *, length: int) -> None:
        self._spec = CorridorSpec(num_envs=num_envs)
        self._length = length
        slots = num_envs * self._spec.agents_per_env
        self._position = np.zeros(slots, np.int64)
        self._time = np.zeros(slots, np.int64)
        self._events = np.zeros(0, EVENT_DTYPE)

    @property
    def spec(self) -> CorridorSpec:
        """Names and shapes."""
        return self._spec

    @property
    def events(self) -> NDArray[Any]:
        """Arrivals of the last step."""
        return self._events

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Put every walker on its start, 0 or 1 by the parity of its environment's seed."""
        count = self._spec.num_envs
        seeds = [seed + b for b in range(count)] if isinstance(seed, int) else list(seed)
        self._position[:] = np.repeat(np.array(seeds, np.int64) % 2, self._spec.agents_per_env)
        self._time[:] = 0
        self._observe(out.observations["features"])
        out.action_mask[...] = self._mask()
        out.alive[...] = True

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Move every walker by one."""
        self._position += np.where(actions == 1, 1, -1)
        np.maximum(self._position, 0, out=self._position)
        self._time += 1
        arrived = self._position >= self._length
        late = ~arrived & (self._time >= 4 * self._length)
        out.rewards[...] = arrived
        out.terminated[...] = arrived
        out.truncated[...] = late
        ended = arrived | late
        if ended.any():
            self._observe(out.final_observation["features"], only=ended)
        self._events = np.zeros(int(arrived.sum()), EVENT_DTYPE)
        self._events["slot"] = np.flatnonzero(arrived)
        self._events["other"] = self._events["object"] = -1
        self._events["value"] = self._time[arrived]
        self._position[ended] = 0
        self._time[ended] = 0
        self._observe(out.observations["features"])
        out.action_mask[...] = self._mask()
        out.alive[...] = True

    def expert_actions(self) -> IntArray:
        """Walk right."""
        return np.ones(self._position.size, np.int64)

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return positions and clocks."""
        return {"position": self._position.copy(), "time": self._time.copy()}

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Restore positions and clocks."""
        self._position[:] = state["position"]
        self._time[:] = state["time"]
        self._observe(out.observations["features"])
        out.action_mask[...] = self._mask()
        out.alive[...] = True

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self, rows: NDArray[Any], *, only: BoolArray | None = None) -> None:
        seen = np.stack([self._position / self._length, 1.0 - self._time / (4 * self._length)], axis=1)
        rows[...] = seen if only is None else np.where(only[:, None], seen, rows)

    def _mask(self) -> BoolArray:
        mask = np.ones((self._position.size, 2), np.bool_)
        mask[:, 0] = self._position > 0
        return mask


def make_corridor(num_envs: int, options: Mapping[str, Any], *, threads: int = 1) -> Corridor:
    """Make corridors; the one option is ``length`` (default 8, at least 2)."""
    del threads  # one is enough
    unknown = set(options) - {"length"}
    if unknown:
        msg = f"unknown option {sorted(unknown)[0]!r}; known: length"
        raise ValueError(msg)
    length = options.get("length", 8)
    if not isinstance(length, int) or length < 2:
        msg = f"length: expected an integer of at least 2, found {length!r}"
        raise ValueError(msg)
    return Corridor(num_envs, length=length)
