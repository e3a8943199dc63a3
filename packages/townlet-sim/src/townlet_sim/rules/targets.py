"""Whom or what an action is for; used by masks, by the actions themselves and by features."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.queues import affordable
from townlet_sim.rules.ties import find, occupant
from townlet_sim.state import RuleArrays, StateArrays

__all__ = [
    "RING_X",
    "RING_Y",
    "at_site",
    "chat_partner",
    "hungry",
    "late_colleague",
    "table_beside",
    "till_beside",
    "usable_object",
]

RING_Y = (-1, 1, 0, 0, -1, -1, 1, 1)
RING_X = (0, 0, 1, -1, 1, -1, 1, -1)


@inlined
def usable_object(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int) -> int:
    """Return the object that ``use`` is for, -1 for none: free ones first, then those with room in the queue."""
    layout = s.town_i[b, c.LAYOUT]
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    usable = g.tile[layout, y, x, c.USABLE]
    second = -1
    if usable == 0:
        return second
    for k in range(8):
        if (usable >> k) & 1 == 0:
            continue
        thing = int(0 + g.object_at[layout, y + RING_Y[k], x + RING_X[k]])
        waiting = s.object_i[b, thing, c.WAITING]
        if waiting >= c.QUEUE_CAPACITY or not affordable(s, g, r, b, n, thing, now):
            continue
        if s.object_i[b, thing, c.USER] < 0 and waiting <= 0:
            return thing
        if second < 0:
            second = thing
    return second


@inlined
def chat_partner(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> int:
    """Return the agent that a chat is with, -1 for none (the own cooldown is not looked at)."""
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    for k in range(8):
        ny, nx = y + RING_Y[k], x + RING_X[k]
        if ny < 0 or nx < 0 or ny >= s.occupied.shape[1] or nx >= s.occupied.shape[2]:
            continue
        m = occupant(s, b, ny, nx)
        if m < 0 or s.agent_i[b, m, c.BUSY] != c.FREE or now < s.agent_i[b, m, c.CHAT_READY]:
            continue
        own, theirs = find(s, b, n, m), find(s, b, m, n)
        if own >= 0 and s.tie[b, n, own, c.RIVALRY] >= r.f[c.F_AVOID]:
            continue
        if theirs >= 0 and s.tie[b, m, theirs, c.RIVALRY] >= r.f[c.F_AVOID]:
            continue
        return m
    return -1


@inlined
def table_beside(s: StateArrays, g: LayoutArrays, b: int, n: int) -> int:
    """Return the table that n sits at, -1 for none."""
    layout = s.town_i[b, c.LAYOUT]
    return int(g.tile[layout, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X], c.TABLE_BESIDE])


@inlined
def hungry(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int) -> int:
    """Return the agent that a meal is shared with, -1 for none: the first around n's table."""
    table = table_beside(s, g, b, n)
    if table < 0:
        return -1
    layout = s.town_i[b, c.LAYOUT]
    y, x = g.objects[layout, table, 1], g.objects[layout, table, 2]
    for k in range(8):
        ny, nx = y + RING_Y[k], x + RING_X[k]
        if ny < 0 or nx < 0 or ny >= s.occupied.shape[1] or nx >= s.occupied.shape[2]:
            continue
        m = occupant(s, b, ny, nx)
        if (
            m >= 0
            and m != n
            and s.agent_i[b, m, c.BUSY] == c.FREE
            and s.agent_i[b, m, c.QUEUE] < 0
            and s.agent_f[b, m, c.HUNGER] < r.f[c.F_SHARE_BELOW]
        ):
            return m
    return -1


@inlined
def at_site(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int) -> bool:
    """Whether n is at the site of its job."""
    layout = s.town_i[b, c.LAYOUT]
    site = g.site[layout, n]
    if site < 0:
        return False
    return bool(g.dist[layout, site, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]] <= r.i[c.I_WORK_RADIUS])


@inlined
def late_colleague(s: StateArrays, r: RuleArrays, b: int, n: int, acting: bool) -> int:
    """Return the lowest slot of n's crew that is late and away, -1 for none.

    ``acting``: within a tick, the tick before counts as well.
    """
    stride = r.i[c.I_CREW]
    for m in range(n % stride, s.agent_i.shape[1], stride):
        if (
            m != n
            and s.agent_i[b, m, c.ALIVE] != 0
            and s.agent_i[b, m, c.SHIFT_OPEN] != 0
            and s.agent_i[b, m, c.SHIFT] == c.LATE
            and s.agent_i[b, m, c.WORKED] == 0
            and (not acting or s.agent_i[b, m, c.WORKED_LAST] == 0)
        ):
            return m
    return -1


@inlined
def till_beside(s: StateArrays, g: LayoutArrays, b: int, n: int) -> bool:
    """Whether n stands beside a till."""
    layout = s.town_i[b, c.LAYOUT]
    return bool(g.tile[layout, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X], c.TILL_BESIDE] != 0)
