"""Events, and the directed ties between agents."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["both_ways", "change", "clamp", "conflict", "emit", "find", "forget", "occupant"]


@inlined
def clamp(x: float, low: float, high: float) -> float:
    """Return x within bounds."""
    return min(max(x, low), high)


@kernel
def emit(s: StateArrays, b: int, kind: int, slot: int, other: int, thing: int, value: float) -> None:
    """Record an event of this tick; what does not fit is counted and dropped."""
    count = s.town_i[b, c.N_EVENTS]
    s.town_i[b, c.N_EVENTS] = count + 1
    if count < s.event_f.shape[1]:
        s.event_i[b, count, 0] = s.town_i[b, c.TICK]
        s.event_i[b, count, 1] = slot
        s.event_i[b, count, 2] = kind
        s.event_i[b, count, 3] = other
        s.event_i[b, count, 4] = thing
        s.event_f[b, count] = value


@inlined
def occupant(s: StateArrays, b: int, y: int, x: int) -> int:
    """Return the slot of the agent on a tile, -1 for none (as a wide integer)."""
    return int(0 + s.occupied[b, y, x])


@inlined
def find(s: StateArrays, b: int, n: int, m: int) -> int:
    """Return the place of n's tie to m, -1 when there is none."""
    for place in range(c.TIES):
        if s.tie_other[b, n, place] == m:
            return place
    return -1


@kernel
def change(
    s: StateArrays, r: RuleArrays, b: int, n: int, m: int, trust: float, familiarity: float, rivalry: float
) -> None:
    """Move n's tie to m; an absent tie is made in an empty place or instead of the weakest."""
    place = find(s, b, n, m)
    if place < 0:
        place = find(s, b, n, -1)
        if place < 0:
            place = 0
            weakest = 1e9
            for other in range(c.TIES):
                strength = s.tie[b, n, other, c.TRUST] + s.tie[b, n, other, c.FAMILIARITY]
                if strength < weakest:
                    weakest = strength
                    place = other
        s.tie_other[b, n, place] = m
        for column in range(3):
            s.tie[b, n, place, column] = 0.0
    if r.i[c.I_MODIFIERS] != 0:
        mercy = 1.0 - 0.5 * s.agent_f[b, n, c.FORGIVENESS]
        if trust < 0.0:
            trust = trust * mercy
        if familiarity < 0.0:
            familiarity = familiarity * mercy
        if rivalry > 0.0:
            rivalry = rivalry * mercy
    s.tie[b, n, place, c.TRUST] = clamp(s.tie[b, n, place, c.TRUST] + trust, -1.0, 1.0)
    s.tie[b, n, place, c.FAMILIARITY] = clamp(s.tie[b, n, place, c.FAMILIARITY] + familiarity, -1.0, 1.0)
    s.tie[b, n, place, c.RIVALRY] = clamp(s.tie[b, n, place, c.RIVALRY] + rivalry, 0.0, 1.0)


@kernel
def both_ways(
    s: StateArrays, r: RuleArrays, b: int, n: int, m: int, trust: float, familiarity: float, rivalry: float
) -> None:
    """Move both ties between two agents, the first named first."""
    change(s, r, b, n, m, trust, familiarity, rivalry)
    change(s, r, b, m, n, trust, familiarity, rivalry)


@kernel
def conflict(s: StateArrays, r: RuleArrays, b: int, n: int, m: int, thing: int, boost: float) -> None:
    """Let two agents quarrel at an object."""
    waiting = s.object_i[b, thing, c.WAITING]
    intensity = clamp(boost + r.f[c.F_LENGTH_BOOST] * max(0, waiting - 1), 0.1, 5.0)
    emit(s, b, c.EV_CONFLICT, n, m, thing, intensity)
    s.town_i[b, c.N_CONFLICTS] += 1
    rise = r.f[c.F_INCREMENT] * intensity
    first = rise
    second = rise
    if r.i[c.I_MODIFIERS] != 0:
        first = rise * (1.0 + 0.3 * s.agent_f[b, n, c.AMBITION])
        second = rise * (1.0 + 0.3 * s.agent_f[b, m, c.AMBITION])
    change(s, r, b, n, m, 0.0, 0.0, first * r.profile[n, c.P_CONFLICT])
    change(s, r, b, m, n, 0.0, 0.0, second * r.profile[m, c.P_CONFLICT])


@kernel
def forget(s: StateArrays, b: int, n: int) -> None:
    """Remove n's ties and everybody's ties to n."""
    for place in range(c.TIES):
        s.tie_other[b, n, place] = -1
        for column in range(3):
            s.tie[b, n, place, column] = 0.0
    for m in range(s.tie_other.shape[1]):
        place = find(s, b, m, n)
        if place >= 0:
            s.tie_other[b, m, place] = -1
            for column in range(3):
                s.tie[b, m, place, column] = 0.0
