"""The order of a tick, and the kernel that plays it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry, inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.actions import act, begin_tick, write_mask
from townlet_sim.rules.calendar import begin_episode, calendar, depart, note_exits, respawns
from townlet_sim.rules.errands import errands
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


@kernel
def _turn_over(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, after: int, ended: int) -> None:
    """Fill the slots of those who left."""
    if ended == 1:
        for n in range(s.agent_i.shape[1]):
            if s.agent_i[b, n, c.EXIT] != 0:
                depart(s, r, b, n, after)
    respawns(s, g, r, b, after)
    s.town_i[b, c.TICK] = after


@inlined
def _write_masks(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int, out: OutArrays) -> None:
    agents = s.agent_i.shape[1]
    for n in range(agents):
        slot = b * agents + n
        write_mask(s, g, r, b, n, now)
        out.alive[slot] = s.agent_i[b, n, c.ALIVE] != 0
        for action in range(c.ACTIONS):
            out.action_mask[slot, action] = s.mask[b, n, action]


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

    One kernel for the three, with one place each from which errands and observations are called: what is called from
    several places is compiled into each of them.
    """
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
            if phase == 1:
                _write_masks(s, g, r, b, now, out)
            if phase == 1 or ended != 0:
                maps = out.map if phase == 1 else out.final_map
                features = out.features if phase == 1 else out.final_features
                states = out.state if phase == 1 else out.final_state
                observe(s, g, r, b, now, phase == 0 and ended == 1, maps, features, states)
