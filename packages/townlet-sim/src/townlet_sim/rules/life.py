"""Eating and sleep, employment, needs and fading ties."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined
from townlet_sim.rules.exits import seek_exit
from townlet_sim.rules.queues import leave_queue
from townlet_sim.rules.ties import emit
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["decay", "employment", "timers"]

STARVING_AT = 0.05
STARVATION_TICKS = 30


@inlined
def timers(s: StateArrays, r: RuleArrays, b: int) -> None:
    """Advance eating, sleep and naps."""
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        busy = ai[c.BUSY]
        if busy == c.FREE or busy == c.USING:
            continue
        ai[c.BUSY_LEFT] -= 1
        over = ai[c.BUSY_LEFT] <= 0
        if busy == c.EATING:
            if over:
                s.agent_f[b, n, c.HUNGER] = min(1.0, s.agent_f[b, n, c.HUNGER] + r.f[c.F_MEAL_HUNGER])
        elif busy == c.SLEEPING:
            s.agent_f[b, n, c.ENERGY] = min(1.0, s.agent_f[b, n, c.ENERGY] + r.f[c.F_SLEEP_ENERGY])
            over = over or s.agent_f[b, n, c.ENERGY] >= 1.0
        else:
            s.agent_f[b, n, c.ENERGY] = min(1.0, s.agent_f[b, n, c.ENERGY] + r.f[c.F_NAP_ENERGY])
        if over:
            ai[c.BUSY] = c.FREE
            ai[c.BUSY_LEFT] = 0
            ai[c.ERRAND_UNTIL] = 0


@inlined
def _fine(s: StateArrays, b: int, n: int, amount: float) -> None:
    s.agent_f[b, n, c.WALLET] -= min(s.agent_f[b, n, c.WALLET], amount)


@inlined
def employment(s: StateArrays, r: RuleArrays, b: int, now: int, tod: int) -> None:
    """Book lateness, absence and wages of this tick."""
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        if ai[c.ALIVE] == 0 or ai[c.SHIFT_OPEN] == 0 or ai[c.SHIFT] == c.ABSENT:
            continue
        k = tod - r.job_i[n, 0]
        wage = r.job_f[n, 0]
        worked = ai[c.WORKED] != 0
        if ai[c.SHIFT] == c.PRE:
            if worked and k <= r.i[c.I_GRACE]:
                ai[c.SHIFT] = c.ON_TIME
            elif k > r.i[c.I_GRACE]:
                ai[c.SHIFT] = c.LATE
                ai[c.LATE_COUNT] += 1
                _fine(s, b, n, r.job_f[n, 1])
                emit(s, b, c.EV_LATE, n, -1, -1, float(k))
        seen = ai[c.WORK_TICKS] > 0
        gone = not worked and seen and tod - ai[c.LAST_WORKED] > r.i[c.I_SLACK]
        if gone and ai[c.DEPARTED] == 0:
            ai[c.DEPARTED] = 1
            emit(s, b, c.EV_DEPARTED, n, -1, -1, float(r.job_i[n, 1] - tod))
        if ai[c.SHIFT] == c.LATE and not worked:
            if (gone or not seen) and k >= r.i[c.I_ABSENT_CUTOFF] + ai[c.COVER_TICKS]:
                ai[c.SHIFT] = c.ABSENT
                ai[c.ABSENT_COUNT] += 1
                ai[c.ABSENT_DAYS] |= 1
                _fine(s, b, n, r.f[c.F_ABSENCE_PENALTY])
                emit(s, b, c.EV_ABSENT, n, -1, -1, float(k))
                limit = r.i[c.I_MAX_ABSENT]
                if limit > 0 and ai[c.ABSENT_COUNT] >= limit:
                    seek_exit(s, r, b, n, now, c.EV_EXIT_PENDING)
            elif ai[c.COVERED] != 0:
                s.agent_f[b, n, c.PAID] = r.f[c.F_COVER_SHARE] * wage
                ai[c.COVER_TICKS] += 1
            else:
                s.agent_f[b, n, c.DOCKED] = wage
                s.agent_f[b, n, c.WITHHELD] += wage
                _fine(s, b, n, r.f[c.F_LATE_TICK_PENALTY])
        if worked:
            factor = 1.0
            if ai[c.COVERING] >= 0:
                factor = factor - r.f[c.F_COVER_COST]
            if ai[c.TOOK] != 0:
                factor = factor + r.f[c.F_TAKE_BONUS]
            s.agent_f[b, n, c.PAID] = wage * factor
            ai[c.WORK_TICKS] += 1
            ai[c.LAST_WORKED] = tod
            if ai[c.SHIFT] == c.ON_TIME:
                ai[c.ONTIME_TICKS] += 1
        s.agent_f[b, n, c.WALLET] += s.agent_f[b, n, c.PAID]


@inlined
def decay(s: StateArrays, r: RuleArrays, b: int) -> None:
    """Let needs and rivalries fall; force naps; count hunger."""
    fading = r.f[c.F_RIVALRY_DECAY]
    for n in range(s.agent_i.shape[1]):
        ai = s.agent_i[b, n]
        if ai[c.ALIVE] == 0:
            continue
        af = s.agent_f[b, n]
        af[c.HUNGER] = max(0.0, af[c.HUNGER] - r.f[c.F_HUNGER_DECAY] * r.profile[n, c.P_HUNGER])
        af[c.HYGIENE] = max(0.0, af[c.HYGIENE] - r.f[c.F_HYGIENE_DECAY] * r.profile[n, c.P_HYGIENE])
        af[c.ENERGY] = max(0.0, af[c.ENERGY] - r.f[c.F_ENERGY_DECAY] * r.profile[n, c.P_ENERGY])
        ai[c.NO_FOOD] = ai[c.NO_FOOD] + 1 if af[c.HUNGER] <= 0.0 else 0
        ai[c.STARVING] = ai[c.STARVING] + 1 if af[c.HUNGER] <= STARVING_AT else 0
        if ai[c.STARVING] == STARVATION_TICKS:
            s.town_i[b, c.N_STARVED] += 1
        s.town_i[b, c.N_AGENT_TICKS] += 1
        if af[c.HUNGER] > 0.2 and af[c.HYGIENE] > 0.2 and af[c.ENERGY] > 0.2:
            s.town_i[b, c.N_WELL] += 1
        if af[c.ENERGY] <= 0.0 and ai[c.BUSY] == c.FREE:
            if ai[c.QUEUE] >= 0:
                leave_queue(s, b, n)
            ai[c.BUSY] = c.NAPPING
            ai[c.BUSY_LEFT] = r.i[c.I_NAP_TICKS]
        for place in range(c.TIES):
            s.tie[b, n, place, c.RIVALRY] = max(0.0, s.tie[b, n, place, c.RIVALRY] - fading)
