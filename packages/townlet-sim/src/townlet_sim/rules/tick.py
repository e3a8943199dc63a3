"""The order of a tick, and the kernel that plays it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry, inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.actions import act, begin_tick
from townlet_sim.rules.calendar import begin_episode, calendar, depart, note_exits, respawns
from townlet_sim.rules.errands import errands
from townlet_sim.rules.life import decay, employment, timers
from townlet_sim.rules.observe import observe
from townlet_sim.rules.perturbations import perturb
from townlet_sim.rules.queues import progress
from townlet_sim.rules.rewards import indicators, reward
from townlet_sim.rules.table import FINISHED, NEXT, add, read_layout, read_out, read_rules, read_state
from townlet_sim.state import OutArrays, RuleArrays, StateArrays

__all__ = ["run_towns"]

_SHARE = 64  # agents that a thread takes at a time


@inlined
def _settle(s: StateArrays, r: RuleArrays, b: int, after: int, out: OutArrays) -> int:
    """Write rewards and ends of a tick; return 2 when the episode is over, 1 when somebody leaves, else 0."""
    agents = s.agent_i.shape[1]
    over = after >= r.i[c.I_HORIZON]
    leaving = 0
    for n in range(agents):
        slot = b * agents + n
        left = s.agent_i[b, n, c.EXIT] != 0
        if left:
            leaving = 1
        out.rewards[slot] = s.terms[b, n, c.T_TOTAL]
        out.terminated[slot] = left
        out.truncated[slot] = over and not left and s.agent_i[b, n, c.ALIVE] != 0
    return 2 if over else leaving


@inlined
def _turn_over(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, after: int, ended: int) -> None:
    """Fill the slots of those who left."""
    empty = False
    for n in range(s.agent_i.shape[1]):
        if ended == 1 and s.agent_i[b, n, c.EXIT] != 0:
            depart(s, r, b, n, after)
        if s.agent_i[b, n, c.ALIVE] == 0:
            empty = True
    if empty:
        respawns(s, g, r, b, after)
    s.town_i[b, c.TICK] = after


@kernel
def _forget_rewards(s: StateArrays, b: int, out: OutArrays) -> None:
    agents = s.agent_i.shape[1]
    s.town_i[b, c.EPISODE] = 0
    s.town_i[b, c.EPISODES_DONE] = 0
    s.town_i[b, c.N_EVENTS] = 0
    for slot in range(b * agents, (b + 1) * agents):
        out.rewards[slot] = 0.0
        out.terminated[slot] = False
        out.truncated[slot] = False


@inlined
def _run_range(
    s: StateArrays,
    g: LayoutArrays,
    r: RuleArrays,
    low: int,
    high: int,
    actions: NDArray[np.int64],
    out: OutArrays,
    mode: int,
) -> None:
    agents = s.agent_i.shape[1]
    day = r.i[c.I_DAY]
    for b in range(low, high):
        now = s.town_i[b, c.TICK]
        ended = 0
        if mode == 0:
            tod, next_tod = (s.town_i[b, c.START] + now) % day, (s.town_i[b, c.START] + now + 1) % day
            begin_tick(s, b)
            perturb(s, g, r, b, now)
            act(s, g, r, b, actions[b * agents : (b + 1) * agents], now)
            progress(s, g, r, b, now)
            timers(s, r, b)
            employment(s, r, b, now, tod)
            decay(s, r, b)
            calendar(s, r, b, now, next_tod)
            note_exits(s, r, b)
            reward(s, r, b, now)
            now = now + 1
            ended = _settle(s, r, b, now, out)
        elif mode == 1:
            _forget_rewards(s, b, out)
        # First the last observations of those who leave, then the observations of all.
        for phase in range(0 if mode == 0 else 1, 2):
            if phase == 1:
                if ended == 2:
                    indicators(s, r, b, now)
                    s.town_i[b, c.EPISODES_DONE] += 1
                    s.town_i[b, c.EPISODE] += 1
                if ended == 2 or mode == 1:
                    begin_episode(s, g, r, b)
                    now = 0
                elif mode == 0:
                    _turn_over(s, g, r, b, now, ended)
            if mode != 2:
                errands(s, g, r, b, now, phase == 1)
            if phase == 1 or ended != 0:
                observe(s, g, r, b, now, phase == 0, phase == 0 and ended == 1, out)


@entry
def run_towns(table: NDArray[np.int64], actions: NDArray[np.int64], mode: int, patience: int) -> None:
    """Step (mode 0), reset (1) or only observe (2) the towns, in shares that nobody else has taken.

    Threads that call this at the same time divide the towns among them, so that none waits for a slower one; a town's
    results do not depend on who plays it. Afterwards up to ``patience`` looks are taken at whether all are done.

    One kernel for the three modes, with one place each from which errands and observations are called: what is called
    from several places is compiled into each of them.
    """
    s, g, r, out = read_state(table), read_layout(table), read_rules(table), read_out(table)
    towns, agents = s.agent_i.shape[0], s.agent_i.shape[1]
    share = max(1, _SHARE // agents)
    low = share * add(table, NEXT, 1)
    while low < towns:
        high = min(low + share, towns)
        _run_range(s, g, r, low, high, actions, out, mode)
        add(table, FINISHED, high - low)
        low = share * add(table, NEXT, 1)
    for _ in range(patience):
        if add(table, FINISHED, 0) >= towns:
            break
