"""What happens at certain times: episodes begin, agents enter and leave, shifts open and close, rent falls due."""

from __future__ import annotations

import numpy as np

from townlet_sim import columns as c
from townlet_sim.jit import entry, inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.chance import draw, key
from townlet_sim.rules.exits import grant_exit, review_exits
from townlet_sim.rules.queues import stop
from townlet_sim.rules.ties import emit, forget
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["begin_episode", "calendar", "depart", "enter", "note_exits", "place_best", "respawns"]


@kernel
def place_best(s: StateArrays, g: LayoutArrays, b: int, n: int, thing: int) -> None:
    """Put n on the free walkable tile with the smallest (distance to the object, y, x)."""
    layout = s.town_i[b, c.LAYOUT]
    best, best_y, best_x = 1 << 30, 0, 0
    for y in range(g.walk.shape[1]):
        for x in range(g.walk.shape[2]):
            if g.walk[layout, y, x] != 0 and s.occupied[b, y, x] < 0:
                away = int(g.dist[layout, thing, y, x]) if thing >= 0 else 0
                if away < best:
                    best, best_y, best_x = away, y, x
    s.agent_i[b, n, c.Y] = best_y
    s.agent_i[b, n, c.X] = best_x
    s.occupied[b, best_y, best_x] = n


@inlined
def _open_shift(s: StateArrays, b: int, n: int) -> None:
    ai = s.agent_i[b, n]
    ai[c.SHIFT_OPEN] = 1
    ai[c.SHIFT] = c.PRE
    ai[c.WORK_TICKS] = 0
    ai[c.ONTIME_TICKS] = 0
    ai[c.COVER_TICKS] = 0
    ai[c.TOOK] = 0
    ai[c.HELPED] = 0
    ai[c.DEPARTED] = 0


@kernel
def enter(s: StateArrays, r: RuleArrays, b: int, n: int) -> None:
    """Let a new agent take the slot n (not yet placed on the map); counters of the slot's episode stay."""
    ai, af = s.agent_i[b, n], s.agent_f[b, n]
    kept = (ai[c.SHIFTS_DONE], ai[c.SHIFTS_ATTENDED], ai[c.SHIFTS_LATE], ai[c.SPAWNS], ai[c.GUARD_UNTIL], ai[c.INVALID])
    for column in range(c.AGENT_INTS):
        ai[column] = 0
    ai[c.SHIFTS_DONE], ai[c.SHIFTS_ATTENDED], ai[c.SHIFTS_LATE] = kept[0], kept[1], kept[2]
    ai[c.SPAWNS], ai[c.GUARD_UNTIL], ai[c.INVALID] = kept[3], kept[4], kept[5]
    ai[c.ALIVE] = 1
    ai[c.OBJECT] = -1
    ai[c.QUEUE] = -1
    ai[c.COOL_OBJECT] = -1
    ai[c.COVERING] = -1
    ai[c.RESPAWN_AT] = -1
    ai[c.PENDING] = -1
    ai[c.CTX_RESET] = 1
    ai[c.CAME_Y], ai[c.CAME_X] = -1, -1
    kept_return, kept_running = af[c.RETURN], af[c.RUNNING]
    for column in range(c.AGENT_FLOATS):
        af[column] = 0.0
    af[c.RETURN], af[c.RUNNING] = kept_return, kept_running
    low, high = r.f[c.F_INITIAL_LOW], r.f[c.F_INITIAL_HIGH]
    af[c.HUNGER] = low + (high - low) * draw(s, b, 0)
    af[c.HYGIENE] = low + (high - low) * draw(s, b, 0)
    af[c.ENERGY] = low + (high - low) * draw(s, b, 0)
    af[c.WALLET] = r.f[c.F_START_WALLET]
    af[c.EXTROVERSION] = r.profile[n, 0]
    af[c.FORGIVENESS] = r.profile[n, 1]
    af[c.AMBITION] = r.profile[n, 2]
    af[c.POTENTIAL] = potential(s, r, b, n)


@inlined
def potential(s: StateArrays, r: RuleArrays, b: int, n: int) -> float:
    """Return minus the scaled weighted deficits."""
    af = s.agent_f[b, n]
    return float(
        -(
            r.f[c.F_HUNGER_WEIGHT] * (1.0 - af[c.HUNGER])
            + r.f[c.F_HYGIENE_WEIGHT] * (1.0 - af[c.HYGIENE])
            + r.f[c.F_ENERGY_WEIGHT] * (1.0 - af[c.ENERGY])
        )
        * r.f[c.F_NEEDS_SCALE]
    )


@kernel
def begin_episode(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int) -> None:
    """Begin the episode whose number stands in the state; the events of the last step stay."""
    ti = s.town_i[b]
    agents, things = s.agent_i.shape[1], s.object_i.shape[1]
    for stream in range(3):
        ti[c.COUNT_WORLD + stream] = 0
        s.town_u[b, c.KEY_WORLD + stream] = key(s.town_u[b, c.SEED], ti[c.EPISODE], stream)
    ti[c.TICK] = 0
    ti[c.LAYOUT] = 0
    ti[c.START] = 0
    ti[c.PERTURBATION] = -1
    ti[c.PERTURBATION_END] = 0
    for kind in range(4):
        ti[c.REST_0 + kind] = 0
    for column in range(c.N_CONFLICTS, c.N_EVENTS):
        ti[column] = 0
    s.town_f[b, c.PRICE] = 1.0
    if r.i[c.I_LAYOUTS] > 1:
        ti[c.LAYOUT] = int(draw(s, b, 0) * r.i[c.I_LAYOUTS])
    if r.i[c.I_RANDOM_START] != 0:
        ti[c.START] = int(draw(s, b, 0) * r.i[c.I_DAY])
    for y in range(s.occupied.shape[1]):
        for x in range(s.occupied.shape[2]):
            s.occupied[b, y, x] = -1
    for thing in range(things):
        s.object_i[b, thing, c.USER] = -1
        s.object_i[b, thing, c.HELD] = 0
        s.object_i[b, thing, c.WAITING] = 0
        for place in range(c.QUEUE_CAPACITY):
            s.object_i[b, thing, c.QUEUE_0 + place] = -1
    for n in range(agents):
        for column in range(c.AGENT_INTS):
            if column != c.INVALID:  # still to be reported
                s.agent_i[b, n, column] = 0
        for column in range(c.AGENT_FLOATS):
            s.agent_f[b, n, column] = 0.0
        for place in range(c.TIES):
            s.tie_other[b, n, place] = -1
            for column in range(3):
                s.tie[b, n, place, column] = 0.0
    for n in range(agents):
        enter(s, r, b, n)
        for column in range(4):
            if not np.isnan(r.given_f[n, column]):
                s.agent_f[b, n, c.HUNGER + column] = r.given_f[n, column]
        s.agent_f[b, n, c.POTENTIAL] = potential(s, r, b, n)
        if r.given_i[n, 0] == 0:
            s.agent_i[b, n, c.ALIVE] = 0
            continue
        if r.given_i[n, 1] >= 0:
            s.agent_i[b, n, c.Y] = r.given_i[n, 1]
            s.agent_i[b, n, c.X] = r.given_i[n, 2]
            s.occupied[b, r.given_i[n, 1], r.given_i[n, 2]] = n
        if r.job_i[n, 0] == ti[c.START]:
            _open_shift(s, b, n)
    for n in range(agents):  # after those whose place is given
        if s.agent_i[b, n, c.ALIVE] != 0 and r.given_i[n, 1] < 0:
            place_best(s, g, b, n, g.bed[ti[c.LAYOUT], n])


@inlined
def calendar(s: StateArrays, r: RuleArrays, b: int, now: int, tod: int) -> None:
    """Close shifts, begin the day, open shifts, for the tick of day ``tod`` that comes after the tick ``now``."""
    for n in range(s.agent_i.shape[1]):
        ai, af = s.agent_i[b, n], s.agent_f[b, n]
        if ai[c.ALIVE] == 0:
            continue
        start, end = r.job_i[n, 0], r.job_i[n, 1]
        if ai[c.SHIFT_OPEN] != 0 and (tod == end or tod == 0):
            length = end - start
            af[c.RECORD_2] = af[c.RECORD_1]
            af[c.RECORD_1] = af[c.RECORD_0]
            af[c.RECORD_0] = ai[c.ONTIME_TICKS] / length
            ai[c.FRESH] = min(3, ai[c.FRESH] + 1)
            ai[c.SHIFTS_DONE] += 1
            if 2 * ai[c.WORK_TICKS] >= length:
                ai[c.SHIFTS_ATTENDED] += 1
            if ai[c.SHIFT] != c.ON_TIME:
                ai[c.SHIFTS_LATE] += 1
            ai[c.SHIFT_OPEN] = 0
            ai[c.SHIFT] = c.POST
        if tod == 0:
            af[c.WALLET] -= min(af[c.WALLET], r.f[c.F_RENT])
            if r.i[c.I_NIGHT_SERVICE] != 0:
                af[c.HUNGER] = max(0.5, af[c.HUNGER])
                af[c.HYGIENE] = max(0.5, af[c.HYGIENE])
                af[c.ENERGY] = max(0.5, af[c.ENERGY])
            days = r.i[c.I_ABSENCE_DAYS]
            ai[c.ABSENT_COUNT] -= (ai[c.ABSENT_DAYS] >> (days - 1)) & 1
            ai[c.ABSENT_DAYS] = (ai[c.ABSENT_DAYS] << 1) & ((1 << days) - 1)
            ai[c.SHIFT] = c.PRE
        if tod == start:
            _open_shift(s, b, n)
        if ai[c.PENDING] >= 0 and now - ai[c.PENDING] >= r.i[c.I_EXIT_WINDOW]:
            grant_exit(s, b, n, now)
    if tod == 0:
        review_exits(s, r, b, now)


@inlined
def note_exits(s: StateArrays, r: RuleArrays, b: int) -> None:
    """Mark agents that leave the town in this tick."""
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        if ai[c.ALIVE] == 0:
            continue
        if ai[c.NO_FOOD] >= r.i[c.I_FAINT_TICKS]:
            ai[c.EXIT] = 1
        elif ai[c.EVICT] != 0:
            ai[c.EXIT] = 2
        if ai[c.EXIT] != 0:
            emit(s, b, c.EV_EXIT, n, -1, -1, float(ai[c.EXIT] - 1))
            s.town_i[b, c.N_EXITS] += 1


@kernel
def depart(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> None:
    """Empty the slot of an agent that leaves; ``now`` is the new tick."""
    ai = s.agent_i[b, n]
    stop(s, r, b, n, now)
    forget(s, b, n)
    s.occupied[b, ai[c.Y], ai[c.X]] = -1
    ai[c.ALIVE] = 0
    ai[c.HINT] = 0
    ai[c.SHIFT_OPEN] = 0
    ai[c.RESPAWN_AT] = now + r.i[c.I_RESPAWN_DELAY] if r.i[c.I_RESPAWN] != 0 else -1


@entry
def respawns(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int) -> None:
    """Fill empty slots whose time has come."""
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        if ai[c.ALIVE] == 0 and 0 <= ai[c.RESPAWN_AT] <= now:
            enter(s, r, b, n)
            ai[c.SPAWNS] += 1
            place_best(s, g, b, n, g.bed[s.town_i[b, c.LAYOUT], n])
            tod = (s.town_i[b, c.START] + now) % r.i[c.I_DAY]
            if r.job_i[n, 0] <= tod < r.job_i[n, 1]:
                ai[c.SHIFT] = c.POST
            emit(s, b, c.EV_RESPAWN, n, -1, -1, float(ai[c.SPAWNS]))
