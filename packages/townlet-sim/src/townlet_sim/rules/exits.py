"""The queue of exits: who was absent too often leaves the town, a few a day."""

from __future__ import annotations

from townlet_sim import columns as c
from townlet_sim.jit import entry, kernel
from townlet_sim.rules.ties import emit
from townlet_sim.state import RuleArrays, StateArrays

__all__ = ["grant_exit", "review_exits", "seek_exit"]


@entry
def seek_exit(s: StateArrays, r: RuleArrays, b: int, n: int, now: int, kind: int) -> bool:
    """Queue n for its exit, told as ``kind``; whether there was room. Who waits already is left alone."""
    if s.agent_i[b, n, c.PENDING] >= 0:
        return False
    waiting = 0
    for m in range(s.agent_i.shape[1]):
        if s.agent_i[b, m, c.ALIVE] != 0 and s.agent_i[b, m, c.PENDING] >= 0:
            waiting += 1
    absences = float(s.agent_i[b, n, c.ABSENT_COUNT])
    if waiting >= r.i[c.I_EXIT_LIMIT]:
        emit(s, b, c.EV_EXIT_OVERFLOW, n, -1, -1, absences)
        return False
    s.agent_i[b, n, c.PENDING] = now
    emit(s, b, kind, n, -1, -1, absences)
    return True


@kernel
def grant_exit(s: StateArrays, b: int, n: int, now: int) -> None:
    """Decide that n leaves in this tick."""
    s.agent_i[b, n, c.EVICT] = 1
    emit(s, b, c.EV_EXIT_PROCESSED, n, -1, -1, float(now - s.agent_i[b, n, c.PENDING]))


@kernel
def review_exits(s: StateArrays, r: RuleArrays, b: int, now: int) -> None:
    """At the turn of a day: let the first of the queue go, put off the others, queue who found no room."""
    agents = s.agent_i.shape[1]
    for _ in range(r.i[c.I_EXIT_CAP]):
        first = -1
        for n in range(agents):
            ai = s.agent_i[b, n]
            if ai[c.ALIVE] == 0 or ai[c.PENDING] < 0 or ai[c.EVICT] != 0:
                continue
            if first < 0 or ai[c.PENDING] < s.agent_i[b, first, c.PENDING]:
                first = n
        if first < 0:
            break
        grant_exit(s, b, first, now)
    for n in range(agents):
        ai = s.agent_i[b, n]
        if ai[c.ALIVE] != 0 and ai[c.PENDING] >= 0 and ai[c.EVICT] == 0:
            emit(s, b, c.EV_EXIT_DEFERRED, n, -1, -1, float(now - ai[c.PENDING]))
    limit = r.i[c.I_MAX_ABSENT]
    for n in range(agents):
        if limit > 0 and s.agent_i[b, n, c.ALIVE] != 0 and s.agent_i[b, n, c.ABSENT_COUNT] >= limit:
            seek_exit(s, r, b, n, now, c.EV_EXIT_PENDING)
