"""GAE against hand-computed numbers and an independent float64 loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from townlet_training_torch.advantages import gae, gae_tensors


def _loop(case: dict[str, NDArray[Any]], gamma: float, lam: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """One slot at a time, one step at a time, in float64."""
    steps, slots = case["rewards"].shape
    advantages = np.zeros((steps, slots))
    for slot in range(slots):
        following, alive_after = 0.0, False
        for step in reversed(range(steps)):
            if not case["valid"][step, slot]:
                following, alive_after = 0.0, False
                continue
            ended = case["terminated"][step, slot] or case["truncated"][step, slot]
            bootstrap = 0.0 if case["terminated"][step, slot] else float(case["next_values"][step, slot])
            delta = float(case["rewards"][step, slot]) + gamma * bootstrap - float(case["values"][step, slot])
            carried = following if alive_after and not ended else 0.0
            following = delta + gamma * lam * carried
            advantages[step, slot] = following
            alive_after = True
    return advantages, np.where(case["valid"], advantages + case["values"], 0.0)


def test_one_step_by_hand() -> None:
    found = gae(
        np.array([[1.0]]),
        np.array([[0.5]]),
        np.array([[0.4]]),
        terminated=np.array([[False]]),
        truncated=np.array([[False]]),
        gamma=0.99,
        gae_lambda=0.95,
    )
    assert found.advantages[0, 0] == pytest.approx(0.896)
    assert found.returns[0, 0] == pytest.approx(1.396)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    no, yes = np.array([[False]]), np.array([[True]])
    arguments = (np.array([[1.0]]), np.array([[0.0]]), np.array([[10.0]]))
    cut = gae(*arguments, terminated=no, truncated=yes, gamma=0.5, gae_lambda=0.9)
    dead = gae(*arguments, terminated=yes, truncated=no, gamma=0.5, gae_lambda=0.9)
    assert (cut.advantages[0, 0], dead.advantages[0, 0]) == (6.0, 1.0)


def test_three_steps_by_hand() -> None:
    ones, zeros = np.ones((3, 1)), np.zeros((3, 1))
    found = gae(
        ones,
        zeros,
        zeros,
        terminated=np.array([[False], [False], [True]]),
        truncated=np.zeros((3, 1), np.bool_),
        gamma=0.5,
        gae_lambda=1.0,
    )
    assert found.advantages[:, 0].tolist() == [1.75, 1.5, 1.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 5), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=120, deadline=None)
def test_equals_an_independent_loop(seed: int, steps: int, slots: int, gamma: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (steps, slots)
    ends = rng.random(shape)
    lengths = rng.integers(0, steps + 1, slots)
    case: dict[str, NDArray[Any]] = {
        "rewards": rng.normal(size=shape).astype(np.float32),
        "values": rng.normal(size=shape).astype(np.float32),
        "next_values": rng.normal(size=shape).astype(np.float32),
        "terminated": ends < 0.2,
        "truncated": (ends > 0.2) & (ends < 0.4),
        "valid": np.arange(steps)[:, None] < lengths,
    }
    if seed % 3 == 0:
        case["valid"] = rng.random(shape) < 0.7  # holes: a slot that leaves and comes back
        case["truncated"][:-1] |= case["valid"][:-1] & ~case["valid"][1:] & ~case["terminated"][:-1]
    advantages, returns = _loop(case, gamma, lam)
    found = gae(**case, gamma=gamma, gae_lambda=lam)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-4, atol=1e-4)
    tensors = {
        name: torch.from_numpy(array if array.dtype == np.bool_ else array.astype(np.float64))
        for name, array in case.items()
    }
    on_tensors = gae_tensors(**tensors, gamma=gamma, gae_lambda=lam)
    np.testing.assert_allclose(on_tensors[0].numpy(), advantages, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_tensors[1].numpy(), returns, rtol=1e-9, atol=1e-9)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"one shape \(T, S\)"):
        gae(
            np.zeros((2, 1)),
            np.zeros((2, 1)),
            np.zeros((3, 1)),
            terminated=np.zeros((2, 1), np.bool_),
            truncated=np.zeros((2, 1), np.bool_),
            gamma=0.9,
            gae_lambda=0.9,
        )


def test_inputs_stay_as_they_were() -> None:
    rewards, values = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    kept = values.copy()
    none = np.zeros((3, 2), np.bool_)
    gae(rewards, values, values, terminated=none, truncated=none, valid=~none, gamma=0.9, gae_lambda=0.9)
    assert (values == kept).all()
