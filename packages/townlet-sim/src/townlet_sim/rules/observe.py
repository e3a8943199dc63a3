"""What agents see: egocentric maps, features, the centralised state. Order and meaning: :mod:`townlet_sim.spaces`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.actions import allowed
from townlet_sim.rules.errands import place_of
from townlet_sim.rules.targets import RING_X, RING_Y, chat_partner, hungry, late_colleague
from townlet_sim.rules.ties import clamp, find
from townlet_sim.state import OutArrays, RuleArrays, StateArrays

__all__ = ["observe", "write_features", "write_map", "write_state"]

_MANY = 64  # up to here agents are walked, above the tiles of the window are
_NEAR = 1 << 20


@inlined
def _write_objects(
    s: StateArrays, g: LayoutArrays, b: int, n: int, variant: int, area: int, flat: NDArray[np.uint8]
) -> None:
    layout = s.town_i[b, c.LAYOUT]
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    for row in range(g.tile[layout, y, x, c.SEEN_FROM], g.tile[layout, y, x, c.SEEN_TO]):
        thing, place = int(0 + g.seen[layout, row, 0]), int(0 + g.seen[layout, row, 1])
        used = 1 if s.object_i[b, thing, c.USER] >= 0 else 0
        if variant == 1:
            kind = g.objects[layout, thing, 0]
            channel = 0 if kind == c.TABLE else 3 + kind
            flat[channel * area + place] = 1
            flat[9 * area + place] = used
            flat[10 * area + place] = s.object_i[b, thing, c.WAITING]
        else:
            flat[2 * area + place] = 1
            flat[3 * area + place] = used


@inlined
def _write_ground(s: StateArrays, g: LayoutArrays, b: int, n: int, side: int, flat: NDArray[np.uint8]) -> None:
    layout = s.town_i[b, c.LAYOUT]
    top, left = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]  # of the window, in the padded ground
    for y in range(side):
        for x in range(side):
            flat[y * side + x] = g.ground[layout, top + y, left + x]


@inlined
def _write_people(s: StateArrays, b: int, n: int, people: int, side: int, flat: NDArray[np.uint8]) -> tuple[int, int]:
    """Write who is in the window; return the steps to the nearest and how many are on the eight tiles around."""
    radius = side // 2
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    own = ((people - 1) * side + radius) * side + radius
    flat[own] = 1
    nearest, beside = _NEAR, 0
    if s.agent_i.shape[1] <= _MANY:
        for m in range(s.agent_i.shape[1]):
            dy, dx = s.agent_i[b, m, c.Y] - y, s.agent_i[b, m, c.X] - x
            away = max(abs(dy), abs(dx))
            # Without a branch: who is out of sight is written over n itself.
            seen = (away <= radius) & (m != n) & (s.agent_i[b, m, c.ALIVE] != 0)
            flat[(people * side + radius + dy) * side + radius + dx if seen else own] = 1
            nearest = min(nearest, away if seen else _NEAR)
            beside += 1 if seen & (away == 1) else 0
        return nearest, beside
    height, width = s.occupied.shape[1], s.occupied.shape[2]
    for wy in range(max(y - radius, 0), min(y + radius + 1, height)):
        for wx in range(max(x - radius, 0), min(x + radius + 1, width)):
            if s.occupied[b, wy, wx] >= 0 and (wy != y or wx != x):
                away = max(abs(wy - y), abs(wx - x))
                flat[(people * side + radius + wy - y) * side + radius + wx - x] = 1
                nearest = min(nearest, away)
                beside += 1 if away == 1 else 0
    return nearest, beside


@inlined
def write_map(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, flat: NDArray[np.uint8]
) -> tuple[float, int]:
    """Write n's map ``(C * W * W,)``; return the relative distance of the nearest agent and how many are beside n."""
    variant, side = r.i[c.I_VARIANT], r.i[c.I_SIDE]
    for k in range(flat.size):
        flat[k] = 0
    if variant > 0:
        _write_ground(s, g, b, n, side, flat[0 if variant == 1 else 4 * side * side :])
    nearest, beside = _write_people(s, b, n, 2 if variant == 1 else 1, side, flat)
    _write_objects(s, g, b, n, variant, side * side, flat)
    return float(min(nearest / (side // 2), 1.0)), beside


@inlined
def _write_ties(s: StateArrays, r: RuleArrays, b: int, n: int, row: NDArray[np.float32]) -> None:
    """Write friends, rivals and sums over ties."""
    friends = (-1, -1)
    rivals = (-1, -1)
    warm = (0.0, 0.0)
    cold = (0.0, 0.0)
    count, avoided = 0, 0
    trust_sum, rivalry_sum, trust_max, rivalry_max = 0.0, 0.0, -1.0, 0.0
    for place in range(c.TIES):
        if s.tie_other[b, n, place] < 0:
            continue
        count += 1
        trust, familiarity = s.tie[b, n, place, c.TRUST], s.tie[b, n, place, c.FAMILIARITY]
        rivalry = s.tie[b, n, place, c.RIVALRY]
        trust_sum += trust
        rivalry_sum += rivalry
        trust_max = max(trust_max, trust)
        rivalry_max = max(rivalry_max, rivalry)
        if rivalry >= r.f[c.F_AVOID]:
            avoided += 1
        warmth = trust + familiarity
        if warmth > warm[0]:
            warm, friends = (warmth, warm[0]), (place, friends[0])
        elif warmth > warm[1]:
            warm, friends = (warm[0], warmth), (friends[0], place)
        if rivalry > cold[0]:
            cold, rivals = (rivalry, cold[0]), (place, rivals[0])
        elif rivalry > cold[1]:
            cold, rivals = (cold[0], rivalry), (rivals[0], place)
    row[18] = rivalry_max
    row[19] = avoided / 6.0
    for k in range(89, 117):
        row[k] = 0.0
    if count == 0:
        return
    for slot in range(4):
        place = friends[slot] if slot < 2 else rivals[slot - 2]
        if place < 0:
            continue
        m = s.tie_other[b, n, place]
        at = 89 + 6 * slot
        row[at] = 1.0
        row[at + 1] = clamp((s.agent_i[b, m, c.X] - s.agent_i[b, n, c.X]) / 32.0, -1.0, 1.0)
        row[at + 2] = clamp((s.agent_i[b, m, c.Y] - s.agent_i[b, n, c.Y]) / 32.0, -1.0, 1.0)
        row[at + 3] = s.tie[b, n, place, c.TRUST]
        row[at + 4] = s.tie[b, n, place, c.FAMILIARITY]
        row[at + 5] = s.tie[b, n, place, c.RIVALRY]
    row[113] = trust_sum / count
    row[114] = trust_max
    row[115] = rivalry_sum / count
    row[116] = rivalry_max


@inlined
def _write_around(s: StateArrays, g: LayoutArrays, b: int, n: int, beside: int, row: NDArray[np.float32]) -> None:
    layout = s.town_i[b, c.LAYOUT]
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    things, used = g.tile[layout, y, x, c.THINGS], 0
    if things != 0:
        for k in range(8):
            if (things >> k) & 1 != 0:
                thing = 0 + g.object_at[layout, y + RING_Y[k], x + RING_X[k]]
                used += 1 if s.object_i[b, thing, c.USER] >= 0 else 0
    row[29] = beside / 8.0
    row[30] = g.tile[layout, y, x, c.N_THINGS] / 8.0
    row[31] = used / 8.0


@inlined
def _write_social(
    s: StateArrays, b: int, n: int, partner: int, guest: int, late: int, row: NDArray[np.float32]
) -> None:
    ai = s.agent_i[b, n]
    for k in range(81, 89):
        row[k] = 0.0
    thing = ai[c.QUEUE] if ai[c.QUEUE] >= 0 else ai[c.OBJECT]
    if thing >= 0:
        waiting = s.object_i[b, thing, c.WAITING]
        row[82] = waiting / 4.0
        if ai[c.QUEUE] >= 0:
            for place in range(waiting):
                if s.object_i[b, thing, c.QUEUE_0 + place] == n:
                    row[81] = (place + 1) / 4.0
    if partner >= 0:
        row[83] = 1.0
        place = find(s, b, n, partner)
        if place >= 0:
            row[84] = s.tie[b, n, place, c.TRUST]
            row[85] = s.tie[b, n, place, c.FAMILIARITY]
            row[86] = s.tie[b, n, place, c.RIVALRY]
    if guest >= 0:
        row[87] = 1.0
    if late >= 0:
        row[88] = 1.0


@inlined
def write_features(
    s: StateArrays,
    g: LayoutArrays,
    r: RuleArrays,
    b: int,
    n: int,
    now: int,
    tod: int,
    nearest: float,
    beside: int,
    row: NDArray[np.float32],
) -> None:
    """Write n's features for the tick ``now``, but for those about others (``_write_social``)."""
    ai, af = s.agent_i[b, n], s.agent_f[b, n]
    day = r.i[c.I_DAY]
    layout = s.town_i[b, c.LAYOUT]
    y, x = ai[c.Y], ai[c.X]
    row[0] = af[c.HUNGER]
    row[1] = af[c.HYGIENE]
    row[2] = af[c.ENERGY]
    row[3] = min(af[c.WALLET] / 8.0, 1.0)
    row[4] = min(ai[c.LATE_COUNT] / 8.0, 1.0)
    shift, is_open = ai[c.SHIFT], ai[c.SHIFT_OPEN] != 0
    row[5] = 1.0 if is_open and shift != c.ABSENT else 0.0
    row[6] = r.time[tod, 0]
    row[7] = r.time[tod, 1]
    record = 0.0
    for k in range(ai[c.FRESH]):
        record += af[c.RECORD_0 + k]
    row[8] = record / max(ai[c.FRESH], 1)
    row[9] = min(af[c.WITHHELD], 1.0)
    for k in range(5):
        row[10 + k] = 1.0 if shift == k else 0.0
    row[15] = n / max(s.agent_i.shape[1] - 1, 1)
    row[16] = ai[c.CTX_RESET]
    row[17] = now / r.i[c.I_HORIZON]
    row[20] = ai[c.LAST_ACTION] / 15.0
    row[21] = ai[c.LAST_OK]
    row[22] = min(ai[c.LAST_TICKS] / 128.0, 1.0)
    row[23] = 1.0 if ai[c.OBJECT] >= 0 else 0.0
    row[24] = 1.0 if ai[c.QUEUE] >= 0 else 0.0
    for k in range(1, 5):
        row[24 + k] = 1.0 if ai[c.HINT] == k else 0.0
    _write_around(s, g, b, n, beside, row)
    row[32] = nearest
    row[33] = af[c.EXTROVERSION]
    row[34] = af[c.FORGIVENESS]
    row[35] = af[c.AMBITION]
    for k in range(8):
        row[36 + k] = 1.0 if ai[c.ERRAND] == k else 0.0
    place = place_of(s, g, b, n, ai[c.ERRAND])
    row[44] = 0.0 if place < 0 else min(g.dist[layout, place, y, x] / 64.0, 1.0)
    row[45] = ai[c.REACHED]
    busy = ai[c.BUSY]
    for k in range(1, 5):
        row[45 + k] = 1.0 if busy == k else 0.0
    row[50] = min(ai[c.BUSY_LEFT] / 128.0, 1.0)
    row[51] = 1.0 if busy == c.USING and ai[c.BUSY_LEFT] == 0 else 0.0
    row[52] = min(ai[c.PORTIONS] / 4.0, 1.0)
    row[53] = min(ai[c.INGREDIENTS] / 4.0, 1.0)
    row[54] = s.town_f[b, c.PRICE] - 1.0
    running = s.town_i[b, c.PERTURBATION]
    row[55] = 0.0 if running == c.BLACKOUT else 1.0
    row[56] = 0.0 if running == c.OUTAGE else 1.0
    row[57] = 1.0 if now >= ai[c.CHAT_READY] else 0.0
    row[58] = 0.0
    row[59] = 0.0
    if r.job_i[n, 0] >= 0:
        ahead = r.job_i[n, 0] - tod
        row[58] = (ahead + day if ahead < 0 else ahead) / day
        if is_open:
            row[59] = (r.job_i[n, 1] - tod) / day
    for k in range(3 * c.TYPES):
        row[60 + k] = g.cell[layout, y, x, k]
    _write_ties(s, r, b, n, row)
    row[117] = min(ai[c.ABSENT_COUNT] / max(r.i[c.I_MAX_ABSENT], 1), 1.0)
    row[118] = 1.0 if ai[c.PENDING] >= 0 else 0.0


@kernel
def write_state(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int, row: NDArray[np.float32]) -> None:
    """Write the centralised state of a town."""
    agents = s.agent_i.shape[1]
    for n in range(agents):
        ai, af = s.agent_i[b, n], s.agent_f[b, n]
        at = 9 * n
        row[at] = ai[c.Y] / g.walk.shape[1]
        row[at + 1] = ai[c.X] / g.walk.shape[2]
        row[at + 2] = af[c.HUNGER]
        row[at + 3] = af[c.HYGIENE]
        row[at + 4] = af[c.ENERGY]
        row[at + 5] = min(af[c.WALLET] / 8.0, 1.0)
        row[at + 6] = 1.0 if ai[c.BUSY] != c.FREE else 0.0
        row[at + 7] = 1.0 if ai[c.SHIFT_OPEN] != 0 else 0.0
        row[at + 8] = ai[c.ALIVE]
    at = 9 * agents
    tod = (s.town_i[b, c.START] + now) % r.i[c.I_DAY]
    row[at] = r.time[tod, 0]
    row[at + 1] = r.time[tod, 1]
    row[at + 2] = now / r.i[c.I_HORIZON]
    row[at + 3] = s.town_f[b, c.PRICE] - 1.0
    row[at + 4] = 0.0 if s.town_i[b, c.PERTURBATION] == c.BLACKOUT else 1.0
    row[at + 5] = 0.0 if s.town_i[b, c.PERTURBATION] == c.OUTAGE else 1.0


@inlined
def observe(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, now: int, final: bool, exits_only: bool, out: OutArrays
) -> None:
    """Write the masks and observations of a town, or the final observations of its slots (of those that leave)."""
    agents = s.agent_i.shape[1]
    tod = (s.town_i[b, c.START] + now) % r.i[c.I_DAY]
    maps = out.final_map if final else out.map
    features = out.final_features if final else out.features
    states = out.final_state if final else out.state
    for n in range(agents):
        if exits_only and s.agent_i[b, n, c.EXIT] == 0:
            continue
        slot = b * agents + n
        alive = s.agent_i[b, n, c.ALIVE] != 0
        partner, guest, late = -1, -1, -1
        if alive:
            row = features[slot]
            nearest, beside = write_map(s, g, r, b, n, maps[slot])
            if beside > 0:
                partner = chat_partner(s, r, b, n, now)
            guest = hungry(s, g, r, b, n)
            if s.agent_i[b, n, c.SHIFT_OPEN] != 0:
                late = late_colleague(s, r, b, n, False)
            write_features(s, g, r, b, n, now, tod, nearest, beside, row)
            _write_social(s, b, n, partner, guest, late, row)
        else:
            maps[slot] = 0
            features[slot] = 0.0
        if not final:
            out.alive[slot] = alive
            mask = allowed(s, g, r, b, n, now, partner, guest, late)
            for action in range(c.ACTIONS):
                s.mask[b, n, action] = (mask >> action) & 1 != 0
            for action in range(c.ACTIONS):  # one array a loop: these are vectorised
                out.action_mask[slot, action] = (mask >> action) & 1 != 0
        if r.i[c.I_STATE] != 0:
            write_state(s, g, r, b, now, states[slot])
