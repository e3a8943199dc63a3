"""Named random streams derived from one seed.

Every random decision is drawn from the stream of its purpose, so that adding a draw in one place moves no
other. A stream's state is a handful of integers, saved with a checkpoint as an array.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["generator", "generator_state", "restore_generator", "stream_seed"]

_MASK64 = (1 << 64) - 1


def stream_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for the stream ``names`` (e.g. ``"ppo", "minibatches"``) of ``seed``.

    SHA-256 over the decimal seed and the names, so that it is the same on every platform and version.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Make the generator (PCG64) of the stream ``names`` of ``seed``."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))


def generator_state(stream: np.random.Generator) -> NDArray[np.uint64]:
    """Return the state of a PCG64 generator as six unsigned 64-bit integers."""
    state: Any = stream.bit_generator.state
    if state["bit_generator"] != "PCG64":
        msg = f"only PCG64 streams can be saved, not {state['bit_generator']!r}"
        raise TypeError(msg)
    words = []
    for key in ("state", "inc"):
        value = state["state"][key]
        words += [value & _MASK64, value >> 64]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def restore_generator(words: NDArray[np.uint64]) -> np.random.Generator:
    """Rebuild the generator whose :func:`generator_state` is ``words``."""
    low, high, inc_low, inc_high, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
