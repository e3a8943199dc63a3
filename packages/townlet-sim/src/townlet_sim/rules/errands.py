"""Errands: what an agent might do next, where, and the step towards it."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.actions import STEP_X, STEP_Y
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["errands", "next_step", "place_of", "update_errand"]

_NOWHERE = 32000
_IDLE_RADIUS = 2


@inlined
def place_of(s: StateArrays, g: LayoutArrays, b: int, n: int, errand: int) -> int:
    """Return the object that an errand leads to, -1 for none."""
    layout = s.town_i[b, c.LAYOUT]
    if errand == c.E_WORK:
        return int(g.site[layout, n])
    if errand == c.E_IDLE or errand == c.E_SLEEP:
        return int(g.bed[layout, n])
    kind = c.FRIDGE
    if errand == c.E_COOK:
        kind = c.STOVE
    elif errand == c.E_SHOP:
        kind = c.TILL
    elif errand == c.E_SHOWER:
        kind = c.SHOWER
    elif errand == c.E_EAT:
        kind = c.TABLE
    return int(0 + g.near[layout, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X], kind])


@inlined
def _path(s: StateArrays, g: LayoutArrays, b: int, n: int, errand: int) -> int:
    place = place_of(s, g, b, n, errand)
    if place < 0:
        return _NOWHERE
    return int(0 + g.dist[s.town_i[b, c.LAYOUT], place, s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]])


@inlined
def _food(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, emergency: bool) -> int:
    """Return the errand that leads to food, -1 for none."""
    table = _path(s, g, b, n, c.E_EAT) < _NOWHERE
    if table and s.agent_i[b, n, c.PORTIONS] > 0:
        return c.E_EAT
    wallet, price = s.agent_f[b, n, c.WALLET], s.town_f[b, c.PRICE]
    cook = -1
    if table and s.town_i[b, c.PERTURBATION] != c.BLACKOUT and _path(s, g, b, n, c.E_COOK) < _NOWHERE:
        if s.agent_i[b, n, c.INGREDIENTS] > 0:
            cook = c.E_COOK
        elif wallet >= r.f[c.F_INGREDIENTS_COST] * price and _path(s, g, b, n, c.E_SHOP) < _NOWHERE:
            cook = c.E_SHOP
    if cook >= 0 and not emergency and wallet < r.f[c.F_COOK_BASKETS] * r.f[c.F_BASKET]:
        return cook
    if wallet >= r.f[c.F_MEAL_COST] * price and _path(s, g, b, n, c.E_CAFE) < _NOWHERE:
        return c.E_CAFE
    return cook


@inlined
def _meal_time(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, food: int) -> int:
    """Return the ticks until n has eaten; what is cooked must be carried to a table."""
    ticks = _path(s, g, b, n, food)
    if food == c.E_CAFE:
        return int(ticks + r.i[c.I_MEAL_TICKS])
    if food != c.E_EAT:
        ticks += r.i[c.I_COOK_TICKS] + _path(s, g, b, n, c.E_EAT)
    if food == c.E_SHOP:
        ticks += 1
    return int(ticks + r.i[c.I_EAT_TICKS])


@inlined
def _due(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, tod: int) -> bool:
    start = r.job_i[n, 0]
    layout = s.town_i[b, c.LAYOUT]
    if start < 0 or g.site[layout, n] < 0:
        return False
    if s.agent_i[b, n, c.SHIFT_OPEN] != 0:
        return bool(s.agent_i[b, n, c.SHIFT] != c.ABSENT)
    ahead = (start - tod) % r.i[c.I_DAY]
    return bool(ahead <= _path(s, g, b, n, c.E_WORK) + r.i[c.I_EARLY] * r.profile[n, c.P_WORK])


@kernel
def _weigh(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, tod: int) -> int:
    af = s.agent_f[b, n]
    best, errand = 0.0, c.E_IDLE
    spare = float(_NOWHERE)
    if r.job_i[n, 0] >= 0 and s.agent_i[b, n, c.SHIFT_OPEN] == 0:
        early = r.i[c.I_EARLY] * r.profile[n, c.P_WORK]
        spare = (r.job_i[n, 0] - tod) % r.i[c.I_DAY] - _path(s, g, b, n, c.E_WORK) - early
    if af[c.HUNGER] < r.f[c.F_EAT_BELOW]:
        food = _food(s, g, r, b, n, False)
        if food >= 0:
            time = _meal_time(s, g, r, b, n, food)
            if time > spare:  # no time to cook
                food = _food(s, g, r, b, n, True)
                time = _meal_time(s, g, r, b, n, food)
            lack = 1.0 - af[c.HUNGER]
            value = r.f[c.F_HUNGER_WEIGHT] * lack * lack / time
            if time <= spare and value > best:
                best, errand = value, food
    # A shower must leave enough for a cooking.
    price = (r.f[c.F_SHOWER_COST] + r.f[c.F_INGREDIENTS_COST]) * s.town_f[b, c.PRICE]
    if af[c.HYGIENE] < r.f[c.F_SHOWER_BELOW] and s.town_i[b, c.PERTURBATION] != c.OUTAGE and af[c.WALLET] >= price:
        path = _path(s, g, b, n, c.E_SHOWER)
        lack = 1.0 - af[c.HYGIENE]
        time = path + r.i[c.I_SHOWER_TICKS]
        value = r.f[c.F_HYGIENE_WEIGHT] * lack * lack / time
        if path < _NOWHERE and time <= spare and value > best:
            best, errand = value, c.E_SHOWER
    if af[c.ENERGY] < r.f[c.F_SLEEP_BELOW]:
        path = _path(s, g, b, n, c.E_SLEEP)
        lack = 1.0 - af[c.ENERGY]
        value = r.f[c.F_ENERGY_WEIGHT] * lack * lack / (path + r.i[c.I_SLEEP_TICKS])
        if path < _NOWHERE and value > best:
            best, errand = value, c.E_SLEEP
    return errand


@inlined
def next_step(s: StateArrays, g: LayoutArrays, b: int, n: int, place: int, now: int, only_free: bool) -> int:
    """Return the action id of the step towards an object, 0 for none."""
    layout = s.town_i[b, c.LAYOUT]
    ai = s.agent_i[b, n]
    y, x = ai[c.Y], ai[c.X]
    here = g.dist[layout, place, y, x]
    back, blocked, aside, least = 0, 0, 0, 1 << 30
    for action in range(1, 5):
        ny, nx = y + STEP_Y[action], x + STEP_X[action]
        if ny < 0 or nx < 0 or ny >= g.walk.shape[1] or nx >= g.walk.shape[2] or g.walk[layout, ny, nx] == 0:
            continue
        empty = s.occupied[b, ny, nx] < 0
        came = ny == ai[c.CAME_Y] and nx == ai[c.CAME_X]
        if g.dist[layout, place, ny, nx] < here:
            if empty and not came:
                return action
            if empty:
                back = action
            elif blocked == 0:
                blocked = action
        elif empty and not came and g.dist[layout, place, ny, nx] < least:
            aside, least = action, int(g.dist[layout, place, ny, nx])
    if back != 0 or only_free:
        return back
    if aside != 0 and (now + n) % 3 == 0:
        return aside
    return blocked


@inlined
def update_errand(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int, tod: int) -> None:
    """Choose the errand of one living agent and its next step."""
    ai = s.agent_i[b, n]
    if (ai[c.BUSY] == c.FREE and ai[c.QUEUE] < 0) or ai[c.BUSY] == c.SLEEPING:
        food = -1
        if s.agent_f[b, n, c.HUNGER] < r.f[c.F_EAT_BELOW]:
            food = _food(s, g, r, b, n, True)
            if food >= 0:
                walk = r.f[c.F_HUNGER_DECAY] * _path(s, g, b, n, food)
                if s.agent_f[b, n, c.HUNGER] >= r.f[c.F_EMERGENCY] + walk:
                    food = -1
        if food >= 0:
            ai[c.ERRAND] = food
            ai[c.ERRAND_UNTIL] = now
        elif _due(s, g, r, b, n, tod):
            ai[c.ERRAND] = c.E_WORK
            ai[c.ERRAND_UNTIL] = now
        elif ai[c.BUSY] == c.FREE and (ai[c.ERRAND] == c.E_WORK or now >= ai[c.ERRAND_UNTIL]):
            ai[c.ERRAND] = _weigh(s, g, r, b, n, tod)
            ai[c.ERRAND_UNTIL] = now + r.i[c.I_COMMIT]
    errand = ai[c.ERRAND]
    place = place_of(s, g, b, n, errand)
    ai[c.HINT] = 0
    ai[c.REACHED] = 1
    if place >= 0:
        away = g.dist[s.town_i[b, c.LAYOUT], place, ai[c.Y], ai[c.X]]
        radius = 0
        if errand == c.E_WORK:
            radius = r.i[c.I_WORK_RADIUS]
        elif errand == c.E_IDLE:
            radius = _IDLE_RADIUS
        if errand == c.E_WORK and 1 < away <= radius:
            # Go on into the room while there is a free way, so that colleagues can enter behind.
            ai[c.HINT] = next_step(s, g, b, n, place, now, True)
            ai[c.REACHED] = 1 if ai[c.HINT] == 0 else 0
        elif away > radius:
            ai[c.REACHED] = 0
            ai[c.HINT] = next_step(s, g, b, n, place, now, False)


@inlined
def errands(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int, only_new: bool) -> None:
    """Choose errands and next steps for the tick ``now``: of all agents, or of those that are new or relocated."""
    tod = (s.town_i[b, c.START] + now) % r.i[c.I_DAY]
    for n in range(s.agent_i.shape[1]):
        if s.agent_i[b, n, c.ALIVE] != 0 and (not only_new or s.agent_i[b, n, c.CTX_RESET] != 0):
            update_errand(s, g, r, b, n, now, tod)
