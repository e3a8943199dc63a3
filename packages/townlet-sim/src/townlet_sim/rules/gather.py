"""Events of all towns as one array of records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry
from townlet_sim.rules.table import read_state

__all__ = ["count_events", "gather_events"]


@entry
def count_events(table: NDArray[np.int64]) -> int:
    """Return how many events there are."""
    s = read_state(table)
    count = 0
    for b in range(s.town_i.shape[0]):
        count += min(s.town_i[b, c.N_EVENTS], s.event_f.shape[1])
    return count


@entry
def gather_events(table: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Fill ``out``, as long as there are events, with :data:`~townlet_sim.spaces.EVENT_DTYPE` records."""
    s = read_state(table)
    agents = s.agent_i.shape[1]
    row = 0
    for b in range(s.town_i.shape[0]):
        for k in range(min(s.town_i[b, c.N_EVENTS], s.event_f.shape[1])):
            record = out[row]
            record.tick = s.event_i[b, k, 0]
            record.slot = s.event_i[b, k, 1] + b * agents
            record.kind = s.event_i[b, k, 2]
            other = s.event_i[b, k, 3]
            record.other = other + b * agents if other >= 0 else -1
            record.object = s.event_i[b, k, 4]
            record.value = s.event_f[b, k]
            row += 1
