"""Objects: reservations, queues, uses."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.ties import both_ways, conflict, emit, find
from townlet_sim.state import RuleArrays, StateArrays

__all__ = [
    "affordable",
    "avoids",
    "leave_queue",
    "next_in_line",
    "progress",
    "release",
    "set_cooldown",
    "start_use",
    "stop",
]


@inlined
def affordable(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, thing: int, now: int) -> bool:
    """Whether n could use the object now, whoever else is there."""
    if s.agent_i[b, n, c.COOL_OBJECT] == thing and now < s.agent_i[b, n, c.COOL_UNTIL]:
        return False
    kind = g.objects[s.town_i[b, c.LAYOUT], thing, 0]
    price = s.town_f[b, c.PRICE]
    if kind == c.FRIDGE:
        return bool(s.agent_f[b, n, c.WALLET] >= r.f[c.F_MEAL_COST] * price)
    if kind == c.STOVE:
        return bool(
            s.agent_i[b, n, c.INGREDIENTS] > 0
            and s.agent_i[b, n, c.PORTIONS] + r.i[c.I_PORTIONS] <= r.i[c.I_MAX_PORTIONS]
            and s.town_i[b, c.PERTURBATION] != c.BLACKOUT
        )
    if kind == c.SHOWER:
        return bool(
            s.agent_f[b, n, c.WALLET] >= r.f[c.F_SHOWER_COST] * price and s.town_i[b, c.PERTURBATION] != c.OUTAGE
        )
    return False


@kernel
def start_use(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, thing: int) -> None:
    """Reserve the object for n and take the price."""
    kind = g.objects[s.town_i[b, c.LAYOUT], thing, 0]
    price = s.town_f[b, c.PRICE]
    ticks = r.i[c.I_MEAL_TICKS]
    if kind == c.FRIDGE:
        s.agent_f[b, n, c.WALLET] -= r.f[c.F_MEAL_COST] * price
    elif kind == c.STOVE:
        s.agent_i[b, n, c.INGREDIENTS] -= 1
        ticks = r.i[c.I_COOK_TICKS]
    else:
        s.agent_f[b, n, c.WALLET] -= r.f[c.F_SHOWER_COST] * price
        ticks = r.i[c.I_SHOWER_TICKS]
    s.agent_i[b, n, c.BUSY] = c.USING
    s.agent_i[b, n, c.BUSY_LEFT] = ticks
    s.agent_i[b, n, c.OBJECT] = thing
    s.object_i[b, thing, c.USER] = n
    s.object_i[b, thing, c.HELD] = 0


@kernel
def set_cooldown(s: StateArrays, r: RuleArrays, b: int, n: int, thing: int, now: int) -> None:
    """Keep n from the object for a while."""
    s.agent_i[b, n, c.COOL_OBJECT] = thing
    s.agent_i[b, n, c.COOL_UNTIL] = now + r.i[c.I_COOLDOWN]


@kernel
def next_in_line(s: StateArrays, r: RuleArrays, b: int, thing: int, now: int) -> int:
    """Return who is next at an object with a queue: its place counts, less what it has waited."""
    best = s.object_i[b, thing, c.QUEUE_0]
    least = 0.0
    for place in range(s.object_i[b, thing, c.WAITING]):
        n = s.object_i[b, thing, c.QUEUE_0 + place]
        rank = place - r.f[c.F_AGE] * (now - s.agent_i[b, n, c.QUEUE_SINCE])
        if place == 0 or rank < least:
            best, least = n, rank
    return int(best)


@kernel
def release(s: StateArrays, r: RuleArrays, b: int, n: int, now: int, success: bool) -> None:
    """Free the object that n uses or holds; with success it is handed over to whoever waits."""
    thing = s.agent_i[b, n, c.OBJECT]
    s.object_i[b, thing, c.USER] = -1
    s.agent_i[b, n, c.OBJECT] = -1
    s.agent_i[b, n, c.BUSY] = c.FREE
    s.agent_i[b, n, c.BUSY_LEFT] = 0
    s.agent_i[b, n, c.ERRAND_UNTIL] = 0
    if success:
        set_cooldown(s, r, b, n, thing, now)
        if s.object_i[b, thing, c.WAITING] > 0:
            heir = next_in_line(s, r, b, thing, now)
            emit(s, b, c.EV_INTERACTION, n, heir, thing, 0.0)
            both_ways(s, r, b, n, heir, 0.05, 0.05, -0.05)


@kernel
def leave_queue(s: StateArrays, b: int, n: int) -> None:
    """Take n out of its queue."""
    thing = s.agent_i[b, n, c.QUEUE]
    waiting = s.object_i[b, thing, c.WAITING]
    found = False
    for place in range(waiting):
        if s.object_i[b, thing, c.QUEUE_0 + place] == n:
            found = True
        if found and place + 1 < waiting:
            s.object_i[b, thing, c.QUEUE_0 + place] = s.object_i[b, thing, c.QUEUE_0 + place + 1]
    s.object_i[b, thing, c.QUEUE_0 + waiting - 1] = -1
    s.object_i[b, thing, c.WAITING] = waiting - 1
    s.agent_i[b, n, c.QUEUE] = -1
    s.agent_i[b, n, c.ERRAND_UNTIL] = 0


@kernel
def stop(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> None:
    """End whatever n is doing, without success."""
    if s.agent_i[b, n, c.OBJECT] >= 0:
        release(s, r, b, n, now, False)
    if s.agent_i[b, n, c.QUEUE] >= 0:
        leave_queue(s, b, n)
    s.agent_i[b, n, c.BUSY] = c.FREE
    s.agent_i[b, n, c.BUSY_LEFT] = 0
    s.agent_i[b, n, c.ERRAND_UNTIL] = 0


@kernel
def avoids(s: StateArrays, r: RuleArrays, b: int, n: int, m: int) -> bool:
    """Whether m is a rival that n avoids."""
    place = find(s, b, n, m)
    return bool(place >= 0 and s.tie[b, n, place, c.RIVALRY] >= r.f[c.F_AVOID])


@kernel
def _complete(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, thing: int) -> None:
    kind = g.objects[s.town_i[b, c.LAYOUT], thing, 0]
    if kind == c.FRIDGE:
        s.agent_f[b, n, c.HUNGER] = min(1.0, s.agent_f[b, n, c.HUNGER] + r.f[c.F_MEAL_HUNGER])
    elif kind == c.STOVE:
        s.agent_i[b, n, c.PORTIONS] += r.i[c.I_PORTIONS]
        s.agent_f[b, n, c.ENERGY] = max(0.0, s.agent_f[b, n, c.ENERGY] - r.f[c.F_COOK_ENERGY])
        s.agent_f[b, n, c.HYGIENE] = max(0.0, s.agent_f[b, n, c.HYGIENE] - r.f[c.F_COOK_HYGIENE])
    else:
        s.agent_f[b, n, c.HYGIENE] = min(1.0, s.agent_f[b, n, c.HYGIENE] + r.f[c.F_SHOWER_HYGIENE])
        s.agent_f[b, n, c.ENERGY] = max(0.0, s.agent_f[b, n, c.ENERGY] - r.f[c.F_SHOWER_ENERGY])


@inlined
def progress(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int) -> None:
    """Advance uses, ghost steps, queues and impatience of all objects."""
    for thing in range(s.object_i.shape[1]):
        user = s.object_i[b, thing, c.USER]
        if user < 0 and s.object_i[b, thing, c.WAITING] <= 0:
            continue
        if user >= 0:
            if s.agent_i[b, user, c.BUSY_LEFT] > 0:
                s.agent_i[b, user, c.BUSY_LEFT] -= 1
                if s.agent_i[b, user, c.BUSY_LEFT] == 0:
                    _complete(s, g, r, b, user, thing)
                    s.object_i[b, thing, c.HELD] = 0
                    s.agent_i[b, user, c.ERRAND_UNTIL] = 0
            else:
                s.object_i[b, thing, c.HELD] += 1
                slack = r.i[c.I_GHOST]
                if slack > 0 and s.object_i[b, thing, c.WAITING] > 0 and s.object_i[b, thing, c.HELD] >= slack:
                    first = next_in_line(s, r, b, thing, now)
                    conflict(s, r, b, user, first, thing, r.f[c.F_GHOST_BOOST])
                    release(s, r, b, user, now, False)
                    set_cooldown(s, r, b, user, thing, now)
        while s.object_i[b, thing, c.USER] < 0 and s.object_i[b, thing, c.WAITING] > 0:
            first = next_in_line(s, r, b, thing, now)
            leave_queue(s, b, first)
            if affordable(s, g, r, b, first, thing, now):
                start_use(s, g, r, b, first, thing)
        user = s.object_i[b, thing, c.USER]
        if user >= 0:
            for place in range(s.object_i[b, thing, c.WAITING]):
                n = s.object_i[b, thing, c.QUEUE_0 + place]
                waited = now - s.agent_i[b, n, c.QUEUE_SINCE]
                if waited > 0 and waited % r.i[c.I_PATIENCE] == 0:
                    conflict(s, r, b, n, user, thing, r.f[c.F_HANDOVER_BOOST])
