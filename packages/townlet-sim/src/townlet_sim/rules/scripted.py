"""Scripted policies: the expert, weaker ones, and frozen partners for evaluation. None draws or changes anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.chance import mix
from townlet_sim.rules.errands import next_step
from townlet_sim.rules.table import read_layout, read_rules, read_state
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["scripted_range"]

EXPERT, GREEDY, IDLE, RANDOM, SELFISH, POLITE, FREELOADER, HELPER = range(8)
_G = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _expert(s: StateArrays, r: RuleArrays, b: int, n: int) -> int:
    """Obey the errand."""
    ai, af = s.agent_i[b, n], s.agent_f[b, n]
    if ai[c.QUEUE] >= 0:
        return c.STAY
    errand = ai[c.ERRAND]
    if ai[c.BUSY] != c.FREE:
        if ai[c.BUSY_LEFT] == 0 or (ai[c.BUSY] == c.SLEEPING and errand != c.E_SLEEP):
            return c.LEAVE
        return c.STAY
    if ai[c.REACHED] == 0:
        return int(ai[c.HINT])
    action = c.USE
    if errand == c.E_IDLE:
        least = r.f[c.F_CHAT_ABOVE] / r.profile[n, c.P_CHAT]
        action = c.STAY
        if af[c.HUNGER] > least and af[c.HYGIENE] > least and af[c.ENERGY] > least:
            action = c.CHAT
    elif errand == c.E_SHOP:
        action = c.BUY
    elif errand == c.E_EAT:
        action = c.EAT
    elif errand == c.E_SLEEP:
        action = c.SLEEP
    elif errand == c.E_WORK:
        action = c.WORK
    return action if s.mask[b, n, action] else c.STAY


@kernel
def _greedy(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int) -> int:
    """Serve the most urgent need, and work only when there is no money for a meal."""
    ai, af, mask = s.agent_i[b, n], s.agent_f[b, n], s.mask[b, n]
    if ai[c.QUEUE] >= 0:
        return c.STAY
    if ai[c.BUSY] != c.FREE:
        return c.LEAVE if ai[c.BUSY_LEFT] == 0 else c.STAY
    layout = s.town_i[b, c.LAYOUT]
    y, x = ai[c.Y], ai[c.X]
    action = c.USE
    if af[c.WALLET] < r.f[c.F_MEAL_COST] and ai[c.SHIFT_OPEN] != 0:
        place, action = int(g.site[layout, n]), c.WORK
    elif af[c.HUNGER] <= af[c.HYGIENE] and af[c.HUNGER] <= af[c.ENERGY]:
        place = 0 + g.near[layout, y, x, c.FRIDGE]
    elif af[c.HYGIENE] <= af[c.ENERGY]:
        place = 0 + g.near[layout, y, x, c.SHOWER]
    else:
        place, action = int(g.bed[layout, n]), c.SLEEP
    if place < 0 or mask[action]:
        return action if mask[action] else c.STAY
    if g.dist[layout, place, y, x] == 0:
        return c.STAY
    return next_step(s, g, b, n, place, int(s.town_i[b, c.TICK]), False)


@kernel
def _random(s: StateArrays, b: int, n: int) -> int:
    """Pick one of the allowed actions; the choice is a hash of seed, episode, tick and slot."""
    allowed = 0
    for action in range(c.ACTIONS):
        allowed += s.mask[b, n, action]
    z = mix(s.town_u[b, c.KEY_POLICY] + np.uint64(s.town_i[b, c.TICK] * s.mask.shape[1] + n + 1) * _G)
    left = int(z >> np.uint64(32)) * allowed >> 32
    for action in range(c.ACTIONS):
        if s.mask[b, n, action]:
            if left == 0:
                return action
            left -= 1
    return c.STAY


@kernel
def _to_table(s: StateArrays, g: LayoutArrays, b: int, n: int) -> int:
    """Go to the nearest table and sit there; without one, stay."""
    table = int(0 + g.near[s.town_i[b, c.LAYOUT], s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X], c.TABLE])
    if table < 0:
        return c.STAY
    return next_step(s, g, b, n, table, int(s.town_i[b, c.TICK]), True)


@kernel
def _partner(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, kind: int) -> int:
    """Play a variation of the expert."""
    ai, af, mask = s.agent_i[b, n], s.agent_f[b, n], s.mask[b, n]
    errand = ai[c.ERRAND]
    if kind == SELFISH:
        if mask[c.TAKE]:
            return c.TAKE
    elif kind == FREELOADER:
        cooks = errand == c.E_COOK or errand == c.E_SHOP
        if cooks and ai[c.BUSY] == c.FREE and af[c.HUNGER] >= r.f[c.F_EMERGENCY]:
            return _to_table(s, g, b, n)  # somebody may share there
    else:
        if mask[c.GIVE_WAY]:
            thing = ai[c.QUEUE]
            for place in range(s.object_i[b, thing, c.WAITING] - 1):
                if s.object_i[b, thing, c.QUEUE_0 + place] == n:
                    m = s.object_i[b, thing, c.QUEUE_0 + place + 1]
                    own = min(af[c.HUNGER], af[c.HYGIENE])
                    if min(s.agent_f[b, m, c.HUNGER], s.agent_f[b, m, c.HYGIENE]) < own:
                        return c.GIVE_WAY
        if kind == HELPER:
            if mask[c.COVER]:
                return c.COVER
            if mask[c.SHARE] and af[c.HUNGER] < r.f[c.F_SHARE_BELOW]:
                return c.SHARE
        if mask[c.CHAT] and errand != c.E_WORK and ai[c.QUEUE] < 0:
            return c.CHAT
        if kind == HELPER and errand == c.E_IDLE and ai[c.BUSY] == c.FREE and ai[c.QUEUE] < 0:
            return _to_table(s, g, b, n)
    return _expert(s, r, b, n)


@entry
def scripted_range(
    table: NDArray[np.int64], kinds: NDArray[np.int64], actions: NDArray[np.int64], low: int, high: int
) -> None:
    """Write the actions of the towns ``low .. high - 1``; ``kinds`` is ``(S,)``, -1 leaves a slot's action as it is."""
    s, g, r = read_state(table), read_layout(table), read_rules(table)
    agents = s.agent_i.shape[1]
    for b in range(low, high):
        for n in range(agents):
            kind = kinds[b * agents + n]
            if kind < 0:
                continue
            action = c.STAY
            if s.agent_i[b, n, c.ALIVE] == 0 or kind == IDLE:
                action = c.STAY
            elif kind == EXPERT:
                action = _expert(s, r, b, n)
            elif kind == GREEDY:
                action = _greedy(s, g, r, b, n)
            elif kind == RANDOM:
                action = _random(s, b, n)
            else:
                action = _partner(s, g, r, b, n, kind)
            actions[b * agents + n] = action
