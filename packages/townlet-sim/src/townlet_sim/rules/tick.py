"""The order of a tick, and the kernel that plays it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.actions import act, begin_tick, write_mask
from townlet_sim.rules.calendar import begin_episode, calendar, depart, note_exits, respawns
from townlet_sim.rules.errands import errands, update_errand
from townlet_sim.rules.life import decay, employment, timers
from townlet_sim.rules.observe import observe
from townlet_sim.rules.perturbations import perturb
from townlet_sim.rules.queues import progress
from townlet_sim.rules.rewards import indicators, reward
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["OutArrays", "run_range"]


class OutArrays(NamedTuple):
    """The caller's arrays, S = B * N rows."""

    map: NDArray[np.uint8]
    features: NDArray[np.float32]
    state: NDArray[np.float32]
    action_mask: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_map: NDArray[np.uint8]
    final_features: NDArray[np.float32]
    final_state: NDArray[np.float32]


@kernel
def _publish(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int, out: OutArrays) -> None:
    """Write observations, masks and alive rows of a town."""
    agents = s.agent_i.shape[1]
    for n in range(agents):
        slot = b * agents + n
        write_mask(s, g, r, b, n, now)
        out.alive[slot] = s.agent_i[b, n, c.ALIVE] != 0
        for action in range(c.ACTIONS):
            out.action_mask[slot, action] = s.mask[b, n, action]
    observe(s, g, r, b, now, False, out.map, out.features, out.state)


@kernel
def _play(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, actions: NDArray[np.int64], out: OutArrays) -> None:
    """Play one tick of a town."""
    agents = s.agent_i.shape[1]
    now = s.town_i[b, c.TICK]
    day, start = r.i[c.I_DAY], s.town_i[b, c.START]
    after = now + 1
    begin_tick(s, b)
    perturb(s, g, r, b, now)
    act(s, g, r, b, actions[b * agents : (b + 1) * agents], now)
    progress(s, g, r, b, now)
    timers(s, r, b)
    employment(s, r, b, (start + now) % day)
    decay(s, r, b)
    calendar(s, r, b, (start + after) % day)
    note_exits(s, r, b)
    reward(s, r, b, now)
    errands(s, g, r, b, after)
    over = after >= r.i[c.I_HORIZON]
    leaving = False
    for n in range(agents):
        slot = b * agents + n
        left = s.agent_i[b, n, c.EXIT] != 0
        leaving = leaving or left
        out.rewards[slot] = s.terms[b, n, c.T_TOTAL]
        out.terminated[slot] = left
        out.truncated[slot] = over and not left and s.agent_i[b, n, c.ALIVE] != 0
    if over or leaving:
        observe(s, g, r, b, after, not over, out.final_map, out.final_features, out.final_state)
    if over:
        indicators(s, r, b, after)
        s.town_i[b, c.EPISODES_DONE] += 1
        s.town_i[b, c.EPISODE] += 1
        s.town_i[b, c.TICK] = -1  # asks for a new episode
        return
    if leaving:
        for n in range(agents):
            if s.agent_i[b, n, c.EXIT] != 0:
                depart(s, r, b, n, after)
    respawns(s, g, r, b, after)
    for n in range(agents):
        if s.agent_i[b, n, c.ALIVE] != 0 and s.agent_i[b, n, c.CTX_RESET] != 0:
            update_errand(s, g, r, b, n, after, (start + after) % day)
    s.town_i[b, c.TICK] = after


@entry
def run_range(
    s: StateArrays,
    g: LayoutArrays,
    r: RuleArrays,
    low: int,
    high: int,
    actions: NDArray[np.int64],
    out: OutArrays,
    mode: int,
) -> None:
    """Step (mode 0), reset (1) or only observe (2) the towns ``low .. high - 1``.

    One kernel for the three: each kernel that plays it is optimised on its own, and most of the code would
    be in all of them.
    """
    agents = s.agent_i.shape[1]
    for b in range(low, high):
        if mode == 0:
            _play(s, g, r, b, actions, out)
        elif mode == 1:
            s.town_i[b, c.EPISODE] = 0
            s.town_i[b, c.EPISODES_DONE] = 0
            s.town_i[b, c.N_EVENTS] = 0
            for slot in range(b * agents, (b + 1) * agents):
                out.rewards[slot] = 0.0
                out.terminated[slot] = False
                out.truncated[slot] = False
        if mode == 1 or s.town_i[b, c.TICK] < 0:
            begin_episode(s, g, r, b)
            errands(s, g, r, b, 0)
        _publish(s, g, r, b, s.town_i[b, c.TICK], out)
