"""Generalised advantage estimation (Schulman et al. 2016), on numpy columns and on tensors.

For each slot, backwards in time::

    delta_t = r_t + gamma * V(s'_t) * (1 - terminated_t) - V(s_t)
    A_t     = delta_t + gamma * lambda * A_{t+1}      where step t+1 is valid and belongs to the same episode

``V(s'_t)`` is ``next_values``: the value of the true next observation, the final one of an episode that was cut
off. A truncated step thus bootstraps and a terminated one does not; neither lets advantages leak over its end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_torch.kernels import estimate

__all__ = ["Advantages", "gae", "gae_tensors"]


class Advantages(NamedTuple):
    """Advantages and the value targets ``advantages + values``, both ``(T, S)`` float32; 0 in invalid rows."""

    advantages: NDArray[np.float32]
    returns: NDArray[np.float32]


def gae(
    rewards: NDArray[Any],
    values: NDArray[Any],
    next_values: NDArray[Any],
    *,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
    gamma: float,
    gae_lambda: float,
) -> Advantages:
    """Compute advantages of all slots in one compiled walk over T.

    Parameters
    ----------
    rewards, values, next_values:
        ``(T, S)`` float.
    terminated, truncated:
        ``(T, S)`` bool, the episode ended after the step.
    valid:
        ``(T, S)`` bool; ``None`` means that every row is.
    gamma, gae_lambda:
        Discount per step, and the weight of longer returns.

    Raises
    ------
    ValueError
        When the arrays are not all ``(T, S)``.
    """
    shapes = {array.shape for array in (rewards, values, next_values, terminated, truncated)}
    if valid is not None:
        shapes.add(valid.shape)
    if len(shapes) != 1 or rewards.ndim != 2:
        msg = f"gae needs arrays of one shape (T, S), got {sorted(shapes)}"
        raise ValueError(msg)
    counts = np.empty((0, 0), np.bool_) if valid is None else np.ascontiguousarray(valid, np.bool_)
    found = Advantages(np.empty(rewards.shape, np.float32), np.empty(rewards.shape, np.float32))
    estimate(
        np.ascontiguousarray(rewards, np.float32),
        np.ascontiguousarray(values, np.float32),
        np.ascontiguousarray(next_values, np.float32),
        np.ascontiguousarray(terminated, np.bool_),
        np.ascontiguousarray(truncated, np.bool_),
        counts,
        np.float32(gamma),
        np.float32(gamma * gae_lambda),
        found.advantages,
        found.returns,
    )
    return found


def gae_tensors(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    *,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor | None = None,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """:func:`gae` on tensors, on whatever device and in whatever precision they are; same shapes."""
    carry = gamma * gae_lambda * (~(terminated | truncated)).to(rewards.dtype)
    advantages = rewards + gamma * next_values * (~terminated).to(rewards.dtype) - values
    if valid is not None:
        advantages = torch.where(valid, advantages, torch.zeros_like(advantages))
        carry = carry * valid.to(rewards.dtype)
    for step in range(rewards.shape[0] - 2, -1, -1):
        advantages[step] += carry[step] * advantages[step + 1]
    returns = advantages + values
    if valid is not None:
        returns = torch.where(valid, returns, torch.zeros_like(returns))
    return advantages, returns
