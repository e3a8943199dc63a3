"""Counter-based random numbers (splitmix64)."""

from __future__ import annotations

import numpy as np

from townlet_sim import columns as c
from townlet_sim.jit import inlined, kernel
from townlet_sim.state import StateArrays

__all__ = ["draw", "key", "mix"]

_G = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)
_30 = np.uint64(30)
_27 = np.uint64(27)
_31 = np.uint64(31)
_11 = np.uint64(11)
_TO_UNIT = 2.0**-53


@inlined
def mix(z: np.uint64) -> np.uint64:
    """Scramble 64 bits."""
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@kernel
def key(seed: np.uint64, episode: int, stream: int) -> np.uint64:
    """Return the key of a stream."""
    return mix(mix(mix(seed + _G) + np.uint64(episode + 1) * _G) + np.uint64(stream + 1) * _G)


@inlined
def draw(s: StateArrays, b: int, stream: int) -> float:
    """Return the next uniform number in [0, 1) of a town's stream (0 world, 1 events, 2 policy)."""
    counter = s.town_i[b, c.COUNT_WORLD + stream] + 1
    s.town_i[b, c.COUNT_WORLD + stream] = counter
    z = mix(s.town_u[b, c.KEY_WORLD + stream] + np.uint64(counter) * _G)
    return float(z >> _11) * _TO_UNIT
