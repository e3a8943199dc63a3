"""Named streams: stable, apart, and restorable draw by draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from townlet_training_core.streams import generator, generator_state, restore_generator, stream_seed


def test_a_stream_seed_is_the_same_on_every_platform_and_version() -> None:
    # SHA-256 of b"7\x1fppo\x1fminibatches", first eight bytes, big-endian, shifted right by one.
    import hashlib

    expected = int.from_bytes(hashlib.sha256(b"7\x1fppo\x1fminibatches").digest()[:8], "big") >> 1
    assert stream_seed(7, "ppo", "minibatches") == expected
    assert 0 <= expected < 2**63


def test_streams_of_other_names_or_seeds_differ() -> None:
    draws = [generator(seed, name).random(4).tolist() for seed in (0, 1) for name in ("a", "b")]
    assert len({tuple(draw) for draw in draws}) == 4


@given(st.integers(0, 2**63 - 1), st.integers(0, 9), st.booleans())
def test_a_restored_stream_draws_what_the_saved_one_would(seed: int, before: int, half_word: bool) -> None:
    stream = generator(seed, "x")
    stream.random(before)
    if half_word:
        stream.integers(0, 2**31, dtype=np.uint32)  # leaves half of a 64-bit word behind
    copy = restore_generator(generator_state(stream))
    assert (
        copy.integers(0, 2**31, 3, dtype=np.uint32).tolist() == stream.integers(0, 2**31, 3, dtype=np.uint32).tolist()
    )
    assert copy.random(5).tolist() == stream.random(5).tolist()


def test_only_the_bit_generator_that_is_used_can_be_saved() -> None:
    with pytest.raises(TypeError, match="MT19937"):
        generator_state(np.random.Generator(np.random.MT19937(0)))
