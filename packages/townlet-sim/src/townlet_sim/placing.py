"""Where a scenario's objects and agents stand: one reading for scenario files and for the predecessor's worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim.engine import GivenAgent, GivenTown
from townlet_sim.layout import Layout, PlacedObject
from townlet_sim.scenarios import OBJECT_ALIASES
from townlet_sim.spaces import OBJECT_TYPES

__all__ = ["furnish"]


def furnish(
    floor: NDArray[np.bool_] | None,
    *,
    objects: Sequence[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
    jobs: Sequence[str],
    strict: bool,
) -> GivenTown:
    """Furnish a floor.

    Parameters
    ----------
    floor:
        ``(H, W)`` walkable tiles; ``None`` leaves the map to the generator, and agents without a place of their own.
    objects:
        ``type``, ``position`` as (column, row), ``id``. What is no type of the town only stands in the way.
    agents:
        ``position``, ``needs``, ``wallet``, ``job``; what is missing is drawn as in any town.
    jobs:
        Names of the jobs.
    strict:
        Whether an object on a tile that is not free is refused; otherwise it, and every agent, stands on the nearest
        free one.

    Raises
    ------
    ValueError
        When ``strict`` and an object's tile is not free.
    """
    if floor is None:
        unplaced = agents if strict else [{**agent, "position": None} for agent in agents]
        return GivenTown(agents=tuple(_agent(agent, jobs) for agent in unplaced))
    walkable = floor.copy()
    placed: list[PlacedObject] = []
    for n, thing in enumerate(objects):
        position = thing.get("position") or (0, 0)
        x, y = int(position[0]), int(position[1])
        free = 0 <= y < walkable.shape[0] and 0 <= x < walkable.shape[1] and bool(walkable[y, x])
        if not free and strict:
            msg = f"scenario.objects.{n}.position: {position!r} is not a free tile (column, row) of the map"
            raise ValueError(msg)
        x, y = (x, y) if free else _nearest_free(walkable, (x, y))
        walkable[y, x] = False
        kind = OBJECT_ALIASES.get(str(thing.get("type")), str(thing.get("type")))
        if kind in OBJECT_TYPES:
            placed.append(PlacedObject(kind, y, x, str(thing.get("id", ""))))
    given = []
    empty = walkable.copy()
    for agent in agents:
        settled = agent
        if not strict:
            x, y = _nearest_free(empty, agent.get("position") or (0, 0))
            empty[y, x] = False
            settled = {**agent, "position": (x, y)}
        given.append(_agent(settled, jobs))
    return GivenTown(layout=Layout(walkable, tuple(placed)), agents=tuple(given))


def _agent(agent: Mapping[str, Any], jobs: Sequence[str]) -> GivenAgent:
    needs = agent.get("needs") or {}
    hunger, hygiene, energy = (
        None if needs.get(name) is None else float(needs[name]) for name in ("hunger", "hygiene", "energy")
    )
    position, wallet, job = (agent.get(name) for name in ("position", "wallet", "job"))
    return GivenAgent(
        position=None if position is None else (int(position[1]), int(position[0])),
        needs=(hunger, hygiene, energy),
        wallet=None if wallet is None else float(wallet),
        job=jobs.index(str(job)) if job in jobs else None,
    )


def _nearest_free(walkable: NDArray[np.bool_], position: Sequence[int]) -> tuple[int, int]:
    tiles = np.argwhere(walkable)
    row, column = tiles[np.abs(tiles - (int(position[1]), int(position[0]))).sum(axis=1).argmin()]
    return int(column), int(row)
