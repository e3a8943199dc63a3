"""Events of all towns as one array of records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.jit import entry

__all__ = ["gather_events"]


@entry
def gather_events(
    town_i: NDArray[np.int64], event_i: NDArray[np.int32], event_f: NDArray[np.float64], agents: int, out: NDArray[Any]
) -> None:
    """Fill ``out``, as long as there are events, with :data:`~townlet_sim.spaces.EVENT_DTYPE` records."""
    row = 0
    for b in range(town_i.shape[0]):
        for k in range(min(town_i[b, c.N_EVENTS], event_f.shape[1])):
            record = out[row]
            record.tick = event_i[b, k, 0]
            record.slot = event_i[b, k, 1] + b * agents
            record.kind = event_i[b, k, 2]
            other = event_i[b, k, 3]
            record.other = other + b * agents if other >= 0 else -1
            record.object = event_i[b, k, 4]
            record.value = event_f[b, k]
            row += 1
