"""Masks and actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.chance import draw
from townlet_sim.rules.queues import avoids, leave_queue, release, set_cooldown, start_use
from townlet_sim.rules.targets import (
    at_site,
    chat_partner,
    hungry,
    late_colleague,
    table_beside,
    till_beside,
    usable_object,
)
from townlet_sim.rules.ties import both_ways, change, clamp, emit, find, occupant
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["STEP_X", "STEP_Y", "act", "allowed", "begin_tick"]

STEP_Y = (0, -1, 1, 0, 0)
STEP_X = (0, 0, 0, 1, -1)
_OPPOSITE = (0, 2, 1, 4, 3)


@inlined
def allowed(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int, partner: int, guest: int, late: int
) -> int:
    """Return the mask of n for the tick ``now``, bit by bit.

    ``partner``, ``guest`` and ``late`` are whom a chat, a shared meal and a covering are for, -1 for nobody.
    """
    ai = s.agent_i[b, n]
    mask = 1 << c.STAY
    if ai[c.ALIVE] == 0 or ai[c.BUSY] == c.NAPPING:
        return mask
    waiting = ai[c.QUEUE] >= 0
    if ai[c.BUSY] != c.FREE or waiting:
        mask |= 1 << c.LEAVE
        if ai[c.BUSY_LEFT] > 0:
            return mask
    layout = s.town_i[b, c.LAYOUT]
    y, x = ai[c.Y], ai[c.X]
    mask |= g.tile[layout, y, x, c.WAYS] << c.NORTH
    if ai[c.BUSY] != c.FREE:
        return int(mask)
    mask |= ((partner >= 0) & (now >= ai[c.CHAT_READY])) << c.CHAT
    if waiting:
        thing = ai[c.QUEUE]
        last = s.object_i[b, thing, c.QUEUE_0 + s.object_i[b, thing, c.WAITING] - 1]
        return int(mask | ((ai[c.GAVE_WAY] == 0) & (last != n)) << c.GIVE_WAY)
    mask |= (usable_object(s, g, r, b, n, now) >= 0) << c.USE
    mask |= ((ai[c.PORTIONS] >= 1) & (table_beside(s, g, b, n) >= 0)) << c.EAT
    mask |= ((ai[c.PORTIONS] >= 2) & (guest >= 0)) << c.SHARE
    if ai[c.SHIFT_OPEN] != 0 and ai[c.SHIFT] != c.ABSENT and at_site(s, g, r, b, n):
        mask |= 1 << c.WORK
        if (ai[c.SHIFT] == c.ON_TIME or ai[c.SHIFT] == c.LATE) and late >= 0:
            mask |= 1 << c.COVER
            mask |= (ai[c.TOOK] == 0) << c.TAKE
    if till_beside(s, g, b, n) and ai[c.INGREDIENTS] < r.i[c.I_MAX_INGREDIENTS]:
        mask |= (s.agent_f[b, n, c.WALLET] >= r.f[c.F_INGREDIENTS_COST] * s.town_f[b, c.PRICE]) << c.BUY
    bed = g.bed[layout, n]
    if bed >= 0 and s.agent_f[b, n, c.ENERGY] < r.f[c.F_CAN_SLEEP_BELOW]:
        mask |= (g.dist[layout, bed, y, x] == 0) << c.SLEEP
    return int(mask)


@kernel
def _yield_ground(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> None:
    """Leave the queue with a cooldown; avoiding a rival there counts."""
    thing = s.agent_i[b, n, c.QUEUE]
    user = s.object_i[b, thing, c.USER]
    rival = user >= 0 and avoids(s, r, b, n, user)
    for place in range(s.object_i[b, thing, c.WAITING]):
        m = s.object_i[b, thing, c.QUEUE_0 + place]
        if m != n and avoids(s, r, b, n, m):
            rival = True
    if rival and r.i[c.I_STAGE] >= 2:
        s.agent_f[b, n, c.AVOIDANCE] += r.f[c.F_AVOID_CONFLICT]
    leave_queue(s, b, n)
    set_cooldown(s, r, b, n, thing, now)


@inlined
def _step_to(s: StateArrays, r: RuleArrays, b: int, n: int, y: int, x: int, now: int) -> None:
    """Let n go on to a tile, releasing what it holds."""
    if s.agent_i[b, n, c.OBJECT] >= 0:
        release(s, r, b, n, now, True)
    if s.agent_i[b, n, c.QUEUE] >= 0:
        _yield_ground(s, r, b, n, now)
    s.agent_i[b, n, c.CAME_Y] = s.agent_i[b, n, c.Y]
    s.agent_i[b, n, c.CAME_X] = s.agent_i[b, n, c.X]
    s.agent_i[b, n, c.Y] = y
    s.agent_i[b, n, c.X] = x
    s.occupied[b, y, x] = n


@inlined
def _lets_pass(s: StateArrays, b: int, m: int, action: int) -> bool:
    """Whether m merely stands, works, eats or sleeps."""
    busy = s.agent_i[b, m, c.BUSY]
    if busy == c.FREE:
        stays = action <= c.STAY or action >= c.ACTIONS or action == c.WORK or not s.mask[b, m, action]
        return stays and s.agent_i[b, m, c.QUEUE] < 0
    return bool(busy != c.USING)


@inlined
def _can_walk(s: StateArrays, b: int, n: int) -> bool:
    """Whether n is free or only holds: a shared meal may have begun in this tick."""
    busy = s.agent_i[b, n, c.BUSY]
    return bool(busy == c.FREE or (busy == c.USING and s.agent_i[b, n, c.BUSY_LEFT] == 0))


@inlined
def _move(s: StateArrays, r: RuleArrays, b: int, n: int, action: int, actions: NDArray[np.int64], now: int) -> bool:
    if not _can_walk(s, b, n):
        return False
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    ny, nx = y + STEP_Y[action], x + STEP_X[action]
    m = occupant(s, b, ny, nx)
    if m < 0:
        s.occupied[b, y, x] = -1
        _step_to(s, r, b, n, ny, nx, now)
        return True
    opposite = _OPPOSITE[action]
    if s.agent_i[b, m, c.ACTED] == 0 and actions[m] == opposite and s.mask[b, m, opposite] and _can_walk(s, b, m):
        _step_to(s, r, b, n, ny, nx, now)
        _step_to(s, r, b, m, y, x, now)
        s.agent_i[b, m, c.ACTED] = 1
        s.agent_i[b, m, c.LAST_ACTION] = opposite
        s.agent_i[b, m, c.LAST_OK] = 1
        s.agent_i[b, m, c.LAST_TICKS] = 1
        return True
    if _lets_pass(s, b, m, actions[m]):
        _step_to(s, r, b, n, ny, nx, now)
        s.agent_i[b, m, c.Y] = y
        s.agent_i[b, m, c.X] = x
        s.occupied[b, y, x] = m
        return True
    return False


@kernel
def _leave(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> bool:
    if s.agent_i[b, n, c.OBJECT] >= 0:
        release(s, r, b, n, now, s.agent_i[b, n, c.BUSY_LEFT] == 0)
    elif s.agent_i[b, n, c.QUEUE] >= 0:
        _yield_ground(s, r, b, n, now)
    elif s.agent_i[b, n, c.BUSY] != c.FREE:
        s.agent_i[b, n, c.BUSY] = c.FREE
        s.agent_i[b, n, c.BUSY_LEFT] = 0
        s.agent_i[b, n, c.ERRAND_UNTIL] = 0
    else:
        return False
    return True


@kernel
def _use(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int) -> bool:
    thing = usable_object(s, g, r, b, n, now)
    if thing < 0:
        return False
    waiting = s.object_i[b, thing, c.WAITING]
    if s.object_i[b, thing, c.USER] < 0 and waiting <= 0:
        start_use(s, g, r, b, n, thing)
        s.agent_i[b, n, c.LAST_TICKS] = s.agent_i[b, n, c.BUSY_LEFT]
    else:
        s.object_i[b, thing, c.QUEUE_0 + waiting] = n
        s.object_i[b, thing, c.WAITING] = waiting + 1
        s.agent_i[b, n, c.QUEUE] = thing
        s.agent_i[b, n, c.QUEUE_SINCE] = now
        s.agent_i[b, n, c.GAVE_WAY] = 0
    return True


@kernel
def _begin(s: StateArrays, b: int, n: int, busy: int, ticks: int) -> None:
    s.agent_i[b, n, c.BUSY] = busy
    s.agent_i[b, n, c.BUSY_LEFT] = ticks


@kernel
def _chat_gain(s: StateArrays, r: RuleArrays, b: int, n: int, m: int, quality: float) -> float:
    bonus = 0.0
    if r.i[c.I_STAGE] >= 3:
        place = find(s, b, n, m)
        if place >= 0:
            bonus = (
                r.f[c.F_BONUS_TRUST] * s.tie[b, n, place, c.TRUST]
                + r.f[c.F_BONUS_FAMILIARITY] * s.tie[b, n, place, c.FAMILIARITY]
            )
    return float(min(r.f[c.F_CHAT_CAP], max(0.0, quality * (r.f[c.F_CHAT_BASE] + bonus))))


@kernel
def _chat(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> bool:
    m = chat_partner(s, r, b, n, now) if now >= s.agent_i[b, n, c.CHAT_READY] else -1
    if m < 0:
        return False
    trust, familiarity, rivalry = 0.0, 0.0, 0.0
    place = find(s, b, n, m)
    if place >= 0:
        trust = s.tie[b, n, place, c.TRUST]
        familiarity = s.tie[b, n, place, c.FAMILIARITY]
        rivalry = s.tie[b, n, place, c.RIVALRY]
    dirty = r.f[c.F_DIRTY_BELOW]
    own = 0.5 if s.agent_f[b, n, c.HYGIENE] < dirty else 1.0
    theirs = 0.5 if s.agent_f[b, m, c.HYGIENE] < dirty else 1.0
    chance = clamp(
        r.f[c.F_CHAT_SUCCESS]
        * (1.0 + r.f[c.F_CHAT_TRUST] * trust)
        * (1.0 + r.f[c.F_CHAT_FAMILIARITY] * familiarity)
        * own
        * theirs,
        0.0,
        1.0,
    )
    lucky = draw(s, b, 0) < chance
    s.agent_i[b, n, c.CHAT_READY] = now + r.i[c.I_CHAT_COOLDOWN]
    s.agent_i[b, m, c.CHAT_READY] = now + r.i[c.I_CHAT_COOLDOWN]
    counts = r.i[c.I_STAGE] >= 1
    if lucky:
        quality = clamp(
            0.5 + 0.3 * s.agent_f[b, n, c.EXTROVERSION] + 0.2 * trust + 0.1 * familiarity - 0.2 * rivalry, 0.1, 1.0
        )
        if counts:
            s.agent_f[b, n, c.BONUS] += _chat_gain(s, r, b, n, m, quality)
            s.agent_f[b, m, c.BONUS] += _chat_gain(s, r, b, m, n, quality)
        warm_n, warm_m = 0.0, 0.0
        if r.i[c.I_MODIFIERS] != 0:
            warm_n = 0.02 * s.agent_f[b, n, c.EXTROVERSION]
            warm_m = 0.02 * s.agent_f[b, m, c.EXTROVERSION]
        change(s, r, b, n, m, 0.05 * quality, 0.1 * quality + warm_n, 0.0)
        change(s, r, b, m, n, 0.05 * quality, 0.1 * quality + warm_m, 0.0)
        emit(s, b, c.EV_CHAT, n, m, -1, quality)
        s.town_i[b, c.N_CHATS] += 1
    else:
        if counts:
            s.agent_f[b, n, c.PENALTY] += 0.5 * r.f[c.F_CHAT_BASE]
            s.agent_f[b, m, c.PENALTY] += 0.25 * r.f[c.F_CHAT_BASE]
        both_ways(s, r, b, n, m, 0.0, -0.05, 0.05)
        emit(s, b, c.EV_CHAT_FAILURE, n, m, -1, chance)
    return True


@kernel
def _share(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int) -> bool:
    m = hungry(s, g, r, b, n)
    if m < 0:
        return False
    s.agent_i[b, n, c.PORTIONS] -= 2
    ticks = r.i[c.I_EAT_TICKS]
    _begin(s, b, n, c.EATING, ticks)
    _begin(s, b, m, c.EATING, ticks)
    s.agent_i[b, n, c.LAST_TICKS] = ticks
    if r.i[c.I_STAGE] >= 1:
        s.agent_f[b, n, c.BONUS] += r.f[c.F_SHARED_MEAL]
        s.agent_f[b, m, c.BONUS] += r.f[c.F_SHARED_MEAL]
    both_ways(s, r, b, n, m, 0.1, 0.25, 0.0)
    emit(s, b, c.EV_SHARED_MEAL, n, m, -1, float(s.agent_i[b, n, c.PORTIONS]))
    return True


@kernel
def _give_way(s: StateArrays, r: RuleArrays, b: int, n: int, now: int) -> bool:
    thing = s.agent_i[b, n, c.QUEUE]
    if thing < 0:
        return False
    for place in range(s.object_i[b, thing, c.WAITING] - 1):
        if s.object_i[b, thing, c.QUEUE_0 + place] == n:
            m = s.object_i[b, thing, c.QUEUE_0 + place + 1]
            s.object_i[b, thing, c.QUEUE_0 + place] = m
            s.object_i[b, thing, c.QUEUE_0 + place + 1] = n
            s.agent_i[b, n, c.GAVE_WAY] = 1
            s.agent_i[b, n, c.QUEUE_SINCE] = now
            if avoids(s, r, b, n, m) and r.i[c.I_STAGE] >= 2:
                s.agent_f[b, n, c.AVOIDANCE] += r.f[c.F_AVOID_CONFLICT]
            emit(s, b, c.EV_INTERACTION, n, m, thing, 1.0)
            both_ways(s, r, b, n, m, 0.05, 0.05, -0.05)
            return True
    return False


@kernel
def _colleague(s: StateArrays, r: RuleArrays, b: int, n: int, action: int, tod: int) -> bool:
    m = late_colleague(s, r, b, n, True)
    if m < 0:
        return False
    s.agent_i[b, n, c.WORKED] = 1
    if action == c.COVER:
        s.agent_i[b, n, c.COVERING] = m
        s.agent_i[b, m, c.COVERED] = 1
        if s.agent_i[b, n, c.HELPED] == 0:
            s.agent_i[b, n, c.HELPED] = 1
            emit(s, b, c.EV_HELPED, n, m, -1, float(tod - r.job_i[m, 0]))
            both_ways(s, r, b, n, m, 0.2, 0.1, -0.1)
    else:
        s.agent_i[b, n, c.TOOK] = 1
        s.agent_i[b, m, c.SHIFT] = c.ABSENT
        emit(s, b, c.EV_TOOK, m, n, -1, float(r.job_i[m, 1] - tod))
        both_ways(s, r, b, n, m, -0.1, 0.0, 0.3)
    return True


@inlined
def _perform(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, action: int, actions: NDArray[np.int64], now: int
) -> bool:
    s.agent_i[b, n, c.LAST_TICKS] = 1
    if action == c.STAY:
        return True
    if action <= c.WEST:
        return _move(s, r, b, n, action, actions, now)
    if action == c.LEAVE:
        return _leave(s, r, b, n, now)
    if action == c.GIVE_WAY:
        return _give_way(s, r, b, n, now)
    if s.agent_i[b, n, c.BUSY] != c.FREE:
        return False  # somebody has shared a meal with n in this tick
    if action == c.WORK:
        # In this tick a colleague may have taken the shift over, or a passer-by may have pushed n off the site.
        if s.agent_i[b, n, c.SHIFT] == c.ABSENT or not at_site(s, g, r, b, n):
            return False
        s.agent_i[b, n, c.WORKED] = 1
        return True
    if action == c.CHAT:
        return _chat(s, r, b, n, now)
    if action == c.USE:
        return _use(s, g, r, b, n, now)
    if action == c.EAT:
        if table_beside(s, g, b, n) < 0:
            return False  # a passer-by has pushed n from the table
        s.agent_i[b, n, c.PORTIONS] -= 1
        _begin(s, b, n, c.EATING, r.i[c.I_EAT_TICKS])
        s.agent_i[b, n, c.LAST_TICKS] = r.i[c.I_EAT_TICKS]
        return True
    if action == c.SHARE:
        return _share(s, g, r, b, n)
    if action == c.BUY:
        price = r.f[c.F_INGREDIENTS_COST] * s.town_f[b, c.PRICE]
        if s.agent_f[b, n, c.WALLET] < price:
            return False  # the price has risen since the mask was published
        s.agent_f[b, n, c.WALLET] -= price
        s.agent_i[b, n, c.INGREDIENTS] += 1
        s.agent_i[b, n, c.ERRAND_UNTIL] = 0
        return True
    if action == c.SLEEP:
        _begin(s, b, n, c.SLEEPING, r.i[c.I_SLEEP_TICKS])
        s.agent_i[b, n, c.LAST_TICKS] = r.i[c.I_SLEEP_TICKS]
        return True
    return _colleague(s, r, b, n, action, (s.town_i[b, c.START] + now) % r.i[c.I_DAY])


@inlined
def begin_tick(s: StateArrays, b: int) -> None:
    """Clear what holds for one tick only."""
    s.town_i[b, c.N_EVENTS] = 0
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        ai[c.WORKED_LAST] = ai[c.WORKED]
        ai[c.WORKED] = 0
        ai[c.COVERING] = -1
        ai[c.COVERED] = 0
        ai[c.INVALID] = 0
        ai[c.ACTED] = 0
        ai[c.EXIT] = 0
        ai[c.CTX_RESET] = 0
        af = s.agent_f[b, n]
        af[c.PAID] = 0.0
        af[c.DOCKED] = 0.0
        af[c.BONUS] = 0.0
        af[c.PENALTY] = 0.0
        af[c.AVOIDANCE] = 0.0


@inlined
def act(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, actions: NDArray[Any], now: int) -> None:
    """Let every agent act, in an order that rotates with the tick; ``actions`` is ``(N,)``."""
    agents = s.agent_i.shape[1]
    for k in range(agents):
        n = (now + k) % agents
        if s.agent_i[b, n, c.ALIVE] == 0 or s.agent_i[b, n, c.ACTED] != 0:
            continue
        s.agent_i[b, n, c.ACTED] = 1
        action = actions[n]
        if action < 0 or action >= c.ACTIONS or not s.mask[b, n, action]:
            s.agent_i[b, n, c.INVALID] = 1
            s.agent_i[b, n, c.LAST_ACTION] = c.STAY
            s.agent_i[b, n, c.LAST_OK] = 0
            s.agent_i[b, n, c.LAST_TICKS] = 1
            continue
        done = _perform(s, g, r, b, n, action, actions, now)
        s.agent_i[b, n, c.LAST_ACTION] = action
        s.agent_i[b, n, c.LAST_OK] = 1 if done else 0
