"""Rewards of a tick, term by term, and the indicators of an episode."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.rules.calendar import potential
from townlet_sim.rules.ties import clamp
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["indicators", "reward"]


@inlined
def _valued(x: float, k: float) -> float:
    """Return what a term is worth to a profile with the bias k."""
    return x * k if x > 0.0 else x / k


@inlined
def reward(s: StateArrays, r: RuleArrays, b: int, now: int) -> None:
    """Write the terms of every slot for the tick ``now`` (after it was played)."""
    for n in range(s.agent_i.shape[1]):
        ai, af, terms = s.agent_i[b, n], s.agent_f[b, n], s.terms[b, n]
        if ai[c.ALIVE] == 0:
            for term in range(c.TERMS):
                terms[term] = 0.0
            continue
        leaves = ai[c.EXIT] != 0
        survival = 0.0 if leaves else r.f[c.F_SURVIVAL]
        hunger, hygiene, energy = 1.0 - af[c.HUNGER], 1.0 - af[c.HYGIENE], 1.0 - af[c.ENERGY]
        needs = -r.f[c.F_NEEDS_SCALE] * (
            r.f[c.F_HUNGER_WEIGHT] * hunger * hunger
            + r.f[c.F_HYGIENE_WEIGHT] * hygiene * hygiene
            + r.f[c.F_ENERGY_WEIGHT] * energy * energy
        )
        wage = af[c.PAID] - af[c.DOCKED] if r.i[c.I_WAGE] != 0 else 0.0
        punctuality = 0.0
        if ai[c.WORKED] != 0 and ai[c.SHIFT] == c.ON_TIME:
            punctuality = r.f[c.F_PUNCTUALITY] * ai[c.ONTIME_TICKS] / (r.job_i[n, 1] - r.job_i[n, 0])
        bonus = af[c.BONUS]
        limit = r.f[c.F_NO_CHAT_ABOVE]
        if hunger > limit or hygiene > limit or energy > limit:
            bonus = 0.0
        shaping = 0.0
        if r.i[c.I_SHAPING] != 0:
            new = 0.0 if leaves else potential(s, r, b, n)
            shaping = r.f[c.F_GAMMA] * new - af[c.POTENTIAL]
            af[c.POTENTIAL] = new
        penalty, avoidance = -af[c.PENALTY], af[c.AVOIDANCE]
        survival = _valued(survival, r.profile[n, c.P_SURVIVAL])
        needs = _valued(needs, r.profile[n, c.P_SURVIVAL])
        wage = _valued(wage, r.profile[n, c.P_EMPLOYMENT])
        punctuality = _valued(punctuality, r.profile[n, c.P_EMPLOYMENT])
        bonus = _valued(bonus, r.profile[n, c.P_SOCIAL])
        penalty = _valued(penalty, r.profile[n, c.P_SOCIAL])
        avoidance = _valued(avoidance, r.profile[n, c.P_SOCIAL])
        running = survival + needs + wage + punctuality + bonus + penalty + avoidance + shaping
        kept = running
        if leaves:
            ai[c.GUARD_UNTIL] = now + 1 + r.i[c.I_DEATH_TICKS]
        if now < ai[c.GUARD_UNTIL]:
            kept = min(kept, 0.0)
        kept = clamp(kept, -r.f[c.F_CLIP_TICK], r.f[c.F_CLIP_TICK])
        bound = r.f[c.F_CLIP_EPISODE]
        kept = clamp(af[c.RUNNING] + kept, -bound, bound) - af[c.RUNNING]
        af[c.RUNNING] += kept
        terminal = 0.0
        if ai[c.EXIT] == 1:
            terminal = r.f[c.F_FAINT]
        elif ai[c.EXIT] == 2:
            terminal = r.f[c.F_EVICTION]
        total = kept + terminal
        af[c.RETURN] += total
        terms[c.T_SURVIVAL] = survival
        terms[c.T_NEEDS] = needs
        terms[c.T_WAGE] = wage
        terms[c.T_PUNCTUALITY] = punctuality
        terms[c.T_BONUS] = bonus
        terms[c.T_PENALTY] = penalty
        terms[c.T_AVOIDANCE] = avoidance
        terms[c.T_SHAPING] = shaping
        terms[c.T_CLIP] = kept - running
        terms[c.T_TERMINAL] = terminal
        terms[c.T_TOTAL] = total


@kernel
def indicators(s: StateArrays, r: RuleArrays, b: int, now: int) -> None:
    """Write the indicators of the episode that ends with ``now`` ticks played."""
    agents = s.agent_i.shape[1]
    done, attended, late = 0, 0, 0
    returns, money, apart = 0.0, 0.0, 0.0
    for n in range(agents):
        done += s.agent_i[b, n, c.SHIFTS_DONE]
        attended += s.agent_i[b, n, c.SHIFTS_ATTENDED]
        late += s.agent_i[b, n, c.SHIFTS_LATE]
        returns += s.agent_f[b, n, c.RETURN]
        money += s.agent_f[b, n, c.WALLET]
        for m in range(agents):
            apart += abs(s.agent_f[b, n, c.WALLET] - s.agent_f[b, m, c.WALLET])
    ticks = s.town_i[b, c.N_AGENT_TICKS]
    days = max(ticks, 1) / r.i[c.I_DAY]
    kpi = s.kpi[b]
    kpi[c.KPI_ATTENDANCE] = attended / done if done > 0 else 1.0
    kpi[c.KPI_LATENESS] = late / done if done > 0 else 0.0
    kpi[c.KPI_STARVATION] = s.town_i[b, c.N_STARVED] / days
    kpi[c.KPI_CONFLICTS] = s.town_i[b, c.N_CONFLICTS] / days
    kpi[c.KPI_CHATS] = s.town_i[b, c.N_CHATS] / days
    kpi[c.KPI_WELFARE] = returns / agents / (now / r.i[c.I_DAY])
    kpi[c.KPI_GINI] = apart / (2.0 * agents * money) if money > 0.0 else 0.0
    kpi[c.KPI_SUSTAINABILITY] = s.town_i[b, c.N_WELL] / max(ticks, 1)
    kpi[c.KPI_EXITS] = s.town_i[b, c.N_EXITS]
