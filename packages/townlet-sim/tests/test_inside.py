"""What makes the town fast, against the obvious: tables of tiles, arrays by address, threads that share a step."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from townlet_sim import columns as c
from townlet_sim import make_simulation
from townlet_sim.layout import generate_layout, layout_arrays, ring
from townlet_sim.workers import Worker

SIDE = 7  # of compact observations


@pytest.mark.parametrize(("agents", "size"), [(8, 24), (16, 32)])
def test_tiles_say_what_a_look_around_says(agents: int, size: int) -> None:
    layout = generate_layout(agents=agents, size=size, seed=3)
    arrays = layout_arrays((layout,), agents=agents, variant="compact")
    ids = {(thing.y, thing.x): index for index, thing in enumerate(layout.objects)}
    for (y, x), walkable in np.ndenumerate(layout.walkable):
        tile = arrays.tile[0, y, x]
        around = list(ring(y, x))
        there = [ids.get(place, -1) for place in around]
        kinds = ["" if thing < 0 else layout.objects[thing].type for thing in there]
        steps = [
            0 <= ny < size and 0 <= nx < size and bool(layout.walkable[ny, nx]) for ny, nx in around[:4]
        ]  # north, south, east, west
        assert tile[c.WAYS] == sum(step << k for k, step in enumerate(steps))
        assert tile[c.THINGS] == sum((thing >= 0) << k for k, thing in enumerate(there))
        assert tile[c.USABLE] == sum((kind in ("fridge", "stove", "shower")) << k for k, kind in enumerate(kinds))
        assert tile[c.N_THINGS] == sum(thing >= 0 for thing in there)
        if walkable:
            assert tile[c.TILL_BESIDE] == ("till" in kinds)
            tables = [thing for thing, kind in zip(there, kinds, strict=True) if kind == "table"]
            assert tile[c.TABLE_BESIDE] == min(tables, default=-1)
        rows = arrays.seen[0, tile[c.SEEN_FROM] : tile[c.SEEN_TO]].tolist()
        radius = SIDE // 2
        window = [
            [index, (ty - y + radius) * SIDE + tx - x + radius]
            for (ty, tx), index in ids.items()
            if max(abs(ty - y), abs(tx - x)) <= radius
        ]
        assert rows == sorted(window)


def test_arrays_of_the_caller_may_change_from_step_to_step() -> None:
    one, other = make_simulation(3, {}), make_simulation(3, {})
    always = one.allocate()
    one.reset(seed=4, out=always)
    first = other.allocate()
    other.reset(seed=4, out=first)
    for _ in range(30):
        actions = one.expert_actions()
        one.step(actions, always)
        fresh = other.allocate()  # the last one is forgotten, and its memory may be used for something else
        other.step(actions, fresh)
        for name, array in always.observations.items():
            np.testing.assert_array_equal(array, fresh.observations[name])
        np.testing.assert_array_equal(always.action_mask, fresh.action_mask)
        np.testing.assert_array_equal(always.rewards, fresh.rewards)


def test_arrays_that_cannot_be_written_are_refused() -> None:
    town = make_simulation(1, {})
    rows = town.allocate()
    rows.rewards.flags.writeable = False
    with pytest.raises(ValueError, match="'rewards': expected writeable contiguous"):
        town.reset(seed=0, out=rows)


def test_more_threads_than_shares_of_towns() -> None:
    alone, crowd = make_simulation(40, {}, threads=1), make_simulation(40, {}, threads=6)
    rows, shared = alone.allocate(), crowd.allocate()
    alone.reset(seed=0, out=rows)
    crowd.reset(seed=0, out=shared)
    for _ in range(200):
        actions = alone.expert_actions()
        alone.step(actions, rows)
        crowd.step(actions, shared)
        np.testing.assert_array_equal(rows.observations["features"], shared.observations["features"])
    crowd.close()
    crowd.close()
    for _ in range(3):  # goes on alone
        actions = alone.expert_actions()
        actions.flags.writeable = False
        alone.step(actions, rows)
        crowd.step(actions, shared)
        np.testing.assert_array_equal(rows.observations["features"], shared.observations["features"])


def test_a_worker_hands_over_what_its_call_raises() -> None:
    worker = Worker("test")
    worker.join()  # nothing to wait for
    worker.begin(int, "no number")
    with pytest.raises(ValueError, match="no number"):
        worker.join()
    found: list[int] = []
    worker.begin(found.append, 5)
    worker.join()
    assert found == [5]


def test_a_forgotten_worker_ends() -> None:
    worker = Worker("forgotten")
    del worker
    deadline = time.monotonic() + 10.0
    while any(thread.name == "forgotten" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
