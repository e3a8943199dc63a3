"""Things that happen to the whole town."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import entry, inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.calendar import place_best
from townlet_sim.rules.chance import draw
from townlet_sim.rules.queues import leave_queue, stop
from townlet_sim.rules.ties import emit
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["begin_perturbation", "perturb"]


@kernel
def _shut_down(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, kind: int, now: int) -> None:
    for thing in range(s.object_i.shape[1]):
        if g.objects[s.town_i[b, c.LAYOUT], thing, 0] == kind:
            if s.object_i[b, thing, c.USER] >= 0:
                stop(s, r, b, s.object_i[b, thing, c.USER], now)
            while s.object_i[b, thing, c.WAITING] > 0:
                leave_queue(s, b, s.object_i[b, thing, c.QUEUE_0])


@kernel
def _meet(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int) -> bool:
    first, second, strongest = b, b, 0.0  # slots are set together with a strength
    for n in range(s.agent_i.shape[1]):
        if s.agent_i[b, n, c.ALIVE] == 0:
            continue
        for place in range(c.TIES):
            m = s.tie_other[b, n, place]
            if m >= 0 and s.agent_i[b, m, c.ALIVE] != 0 and s.tie[b, n, place, c.RIVALRY] > strongest:
                first, second, strongest = n, m, s.tie[b, n, place, c.RIVALRY]
    if strongest <= 0.0:
        return False
    for n in (first, second):
        stop(s, r, b, n, now)
        s.occupied[b, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]] = -1
        place_best(s, g, b, n, r.i[c.I_FRIDGE])
        s.agent_i[b, n, c.CTX_RESET] = 1
        s.agent_i[b, n, c.ACTED] = 1
        s.agent_i[b, n, c.LAST_ACTION] = c.STAY
        s.agent_i[b, n, c.LAST_OK] = 0
        s.agent_i[b, n, c.LAST_TICKS] = 1
    emit(s, b, c.EV_MEET, first, second, r.i[c.I_FRIDGE], strongest)
    return True


@entry
def begin_perturbation(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, kind: int, now: int) -> bool:
    """Begin a perturbation of a kind; whether it began."""
    span = r.i[c.I_MAX_0 + kind] - r.i[c.I_MIN_0 + kind] + 1
    ticks = r.i[c.I_MIN_0 + kind] + int(draw(s, b, 1) * span)
    if kind == c.MEET and not _meet(s, g, r, b, now):
        return False
    s.town_i[b, c.PERTURBATION] = kind
    s.town_i[b, c.PERTURBATION_END] = now + ticks
    if kind == c.SPIKE:
        low, high = r.f[c.F_SPIKE_LOW], r.f[c.F_SPIKE_HIGH]
        s.town_f[b, c.PRICE] = low + (high - low) * draw(s, b, 1)
        emit(s, b, c.EV_SPIKE, 0, -1, -1, s.town_f[b, c.PRICE])
    elif kind == c.BLACKOUT:
        _shut_down(s, g, r, b, c.STOVE, now)
        emit(s, b, c.EV_BLACKOUT, 0, -1, -1, float(ticks))
    elif kind == c.OUTAGE:
        _shut_down(s, g, r, b, c.SHOWER, now)
        emit(s, b, c.EV_OUTAGE, 0, -1, -1, float(ticks))
    return True


@inlined
def perturb(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int) -> None:
    """End what is over, and let chance begin something."""
    running = s.town_i[b, c.PERTURBATION]
    if running >= 0 and now >= s.town_i[b, c.PERTURBATION_END]:
        s.town_i[b, c.REST_0 + running] = now + r.i[c.I_REST_0 + running]
        s.town_i[b, c.PERTURBATION] = -1
        s.town_f[b, c.PRICE] = 1.0
        running = -1
    if running >= 0 or r.i[c.I_PERTURBED] == 0:
        return
    u = draw(s, b, 1)
    acc = 0.0
    for kind in range(4):
        acc = acc + r.f[c.F_PROB_0 + kind] / r.i[c.I_DAY]
        if u < acc:
            if now >= s.town_i[b, c.REST_0 + kind]:
                begin_perturbation(s, g, r, b, kind, now)
            return
