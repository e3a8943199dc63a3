"""What agents see: egocentric maps, features, the centralised state. Order and meaning: :mod:`townlet_sim.spaces`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.layout import LayoutArrays
from townlet_sim.rules.errands import place_of
from townlet_sim.rules.targets import RING_X, RING_Y, chat_partner, hungry, late_colleague
from townlet_sim.rules.ties import clamp, find
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["observe", "write_features", "write_map", "write_state"]

_MANY = 64  # up to here lists are walked, above the tiles of the window are
_NEAR = 1 << 20


@inlined
def _object_pixel(
    s: StateArrays, g: LayoutArrays, b: int, variant: int, thing: int, y: int, x: int, image: NDArray[np.uint8]
) -> None:
    used = 1 if s.object_i[b, thing, c.USER] >= 0 else 0
    if variant == 1:
        kind = g.objects[s.town_i[b, c.LAYOUT], thing, 0]
        image[0 if kind == c.TABLE else 3 + kind, y, x] = 1
        image[9, y, x] = used
        image[10, y, x] = s.object_i[b, thing, c.WAITING]
    else:
        image[2, y, x] = 1
        image[3, y, x] = used


@inlined
def write_map(s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, image: NDArray[np.uint8]) -> float:
    """Write n's map ``(C, W, W)``; return the relative distance of the nearest agent in the window."""
    variant = r.i[c.I_VARIANT]
    layout = s.town_i[b, c.LAYOUT]
    side = image.shape[1]
    radius = side // 2
    top, left = s.agent_i[b, n, c.Y] - radius, s.agent_i[b, n, c.X] - radius
    height, width = g.walk.shape[1], g.walk.shape[2]
    flat = image.reshape(image.size)
    for k in range(flat.size):
        flat[k] = 0
    people = 2 if variant == 1 else 1
    image[people - 1, radius, radius] = 1
    nearest = _NEAR
    agents, things = s.agent_i.shape[1], s.object_i.shape[1]
    if agents <= _MANY:
        for m in range(agents):
            y, x = s.agent_i[b, m, c.Y] - top, s.agent_i[b, m, c.X] - left
            if 0 <= y < side and 0 <= x < side and m != n and s.agent_i[b, m, c.ALIVE] != 0:
                image[people, y, x] = 1
                nearest = min(nearest, max(abs(y - radius), abs(x - radius)))
    if things <= _MANY:
        for thing in range(things):
            y, x = g.objects[layout, thing, 1] - top, g.objects[layout, thing, 2] - left
            if 0 <= y < side and 0 <= x < side:
                _object_pixel(s, g, b, variant, thing, y, x, image)
    if agents > _MANY or things > _MANY or variant > 0:
        for y in range(side):
            for x in range(side):
                wy, wx = top + y, left + x
                inside = 0 <= wy < height and 0 <= wx < width
                if not inside:
                    if variant == 1:
                        image[0, y, x] = 1
                    continue
                if agents > _MANY and s.occupied[b, wy, wx] >= 0 and (y != radius or x != radius):
                    image[people, y, x] = 1
                    nearest = min(nearest, max(abs(y - radius), abs(x - radius)))
                if things > _MANY and g.object_at[layout, wy, wx] >= 0:
                    _object_pixel(s, g, b, variant, 0 + g.object_at[layout, wy, wx], y, x, image)
                if variant == 1 and g.walk[layout, wy, wx] == 0 and g.object_at[layout, wy, wx] < 0:
                    image[0, y, x] = 1
                elif variant == 2:
                    image[4, y, x] = g.walk[layout, wy, wx]
    return float(min(nearest / radius, 1.0))


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
def _write_around(s: StateArrays, g: LayoutArrays, b: int, n: int, row: NDArray[np.float32]) -> None:
    layout = s.town_i[b, c.LAYOUT]
    y, x = s.agent_i[b, n, c.Y], s.agent_i[b, n, c.X]
    people, things, used = 0, 0, 0
    for k in range(8):
        ny, nx = y + RING_Y[k], x + RING_X[k]
        if ny < 0 or nx < 0 or ny >= g.walk.shape[1] or nx >= g.walk.shape[2]:
            continue
        if s.occupied[b, ny, nx] >= 0:
            people += 1
        thing = 0 + g.object_at[layout, ny, nx]
        if thing >= 0:
            things += 1
            if s.object_i[b, thing, c.USER] >= 0:
                used += 1
    row[29] = people / 8.0
    row[30] = things / 8.0
    row[31] = used / 8.0


@inlined
def _write_social(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int, row: NDArray[np.float32]
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
    if row[29] > 0.0:  # somebody is near
        m = chat_partner(s, r, b, n, now)
        if m >= 0:
            row[83] = 1.0
            place = find(s, b, n, m)
            if place >= 0:
                row[84] = s.tie[b, n, place, c.TRUST]
                row[85] = s.tie[b, n, place, c.FAMILIARITY]
                row[86] = s.tie[b, n, place, c.RIVALRY]
    if hungry(s, g, r, b, n) >= 0:
        row[87] = 1.0
    if ai[c.SHIFT_OPEN] != 0 and late_colleague(s, r, b, n, False) >= 0:
        row[88] = 1.0


@inlined
def write_features(
    s: StateArrays, g: LayoutArrays, r: RuleArrays, b: int, n: int, now: int, nearest: float, row: NDArray[np.float32]
) -> None:
    """Write n's features for the tick ``now``."""
    ai, af = s.agent_i[b, n], s.agent_f[b, n]
    day = r.i[c.I_DAY]
    tod = (s.town_i[b, c.START] + now) % day
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
    _write_around(s, g, b, n, row)
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
        row[58] = ((r.job_i[n, 0] - tod) % day) / day
        if is_open:
            row[59] = (r.job_i[n, 1] - tod) / day
    for k in range(3 * c.TYPES):
        row[60 + k] = g.cell[layout, y, x, k]
    _write_social(s, g, r, b, n, now, row)
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
    s: StateArrays,
    g: LayoutArrays,
    r: RuleArrays,
    b: int,
    now: int,
    exits_only: bool,
    maps: NDArray[np.uint8],
    features: NDArray[np.float32],
    states: NDArray[np.float32],
) -> None:
    """Write the observations of a town's slots (or of those that leave) into global rows."""
    agents = s.agent_i.shape[1]
    for n in range(agents):
        if exits_only and s.agent_i[b, n, c.EXIT] == 0:
            continue
        slot = b * agents + n
        if s.agent_i[b, n, c.ALIVE] == 0:
            maps[slot] = 0
            features[slot] = 0.0
        else:
            nearest = write_map(s, g, r, b, n, maps[slot])
            write_features(s, g, r, b, n, now, nearest, features[slot])
        if r.i[c.I_STATE] != 0:
            write_state(s, g, r, b, now, states[slot])
