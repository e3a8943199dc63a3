"""Losses' gradients and advantages for the CPU, compiled by numba: one call instead of fifty small ones.

In a training step the caches belong to the matrix products, and every call from Python that comes between them costs
several times what it costs alone. Meaning, shapes and names are those of
:mod:`~townlet_training_torch.gradients` and :mod:`~townlet_training_torch.advantages`, which compute the same with
tensors; tests compare both. Kernels are compiled on first use and kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_torch.gradients import CloningGradients, PPOGradients

__all__ = ["cloning_gradients", "estimate", "ppo_gradients", "rectify", "through_relu"]

F = TypeVar("F", bound=Callable[..., Any])
_NJIT: Any = numba.njit  # the published types do not know every option
_LEAST = 1e-8
"""Of a sum of weights, and of a deviation that is divided by."""


def _kernel(function: F) -> F:
    compiled: F
    try:
        compiled = _NJIT(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither beside this file nor in a home can anything be written
        compiled = _NJIT(nogil=True, error_model="numpy")(function)
    return compiled


@_kernel
def estimate(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    next_values: NDArray[np.float32],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    gamma: np.float32,
    decay: np.float32,
    advantages: NDArray[np.float32],
    returns: NDArray[np.float32],
) -> None:
    """Write advantages and returns, ``(T, S)``, in one walk from the last step to the first.

    ``decay`` is gamma times lambda; ``valid`` is ``(0, 0)`` where every row counts.
    """
    steps, slots = rewards.shape
    nothing = np.float32(0.0)
    for step in range(steps - 1, -1, -1):
        last = step == steps - 1
        for slot in range(slots):
            after = nothing if terminated[step, slot] else next_values[step, slot]
            own = rewards[step, slot] - values[step, slot] + after * gamma
            if not last:
                flow = advantages[step + 1, slot] * decay
                own += nothing if terminated[step, slot] | truncated[step, slot] else flow
            advantages[step, slot] = own
            returns[step, slot] = own + values[step, slot]
        if valid.size > 0:
            for slot in range(slots):
                if not valid[step, slot]:
                    advantages[step, slot] = nothing
                    returns[step, slot] = nothing


@_kernel
def rectify(sums: NDArray[Any], first: int, bias: NDArray[Any]) -> None:
    """Add a bias and cut off what is below 0, in place; ``sums`` is ``(M, columns)``, walked as below."""
    count = len(bias)
    for row in range(len(sums)):
        values = sums[row, first : first + count]
        for k in range(count):
            values[k] = max(values[k] + bias[k], sums.dtype.type(0.0))


@_kernel
def through_relu(slope: NDArray[Any], activation: NDArray[Any], first: int, sums: NDArray[Any]) -> None:
    """Set derivatives to 0 where a rectifier was shut and add each column up, in one walk.

    ``slope`` and ``activation`` are ``(M, columns)``; those from ``first`` on are walked, as many as ``(sums,)`` has.
    """
    count = len(sums)
    sums[:] = 0.0
    for row in range(len(slope)):
        slopes, opened = slope[row, first : first + count], activation[row, first : first + count]
        for k in range(count):
            value = slopes[k] if opened[k] > 0.0 else slope.dtype.type(0.0)
            slopes[k] = value
            sums[k] += value


@_kernel
def _log_softmax(
    logits: NDArray[Any], mask: NDArray[np.bool_], m: int, table: NDArray[Any], probabilities: NDArray[Any]
) -> None:
    """Write row m's log-probabilities and probabilities, ``(A,)`` each: the lowest float and 0 where forbidden."""
    actions = len(table)
    lowest = np.finfo(logits.dtype).min
    highest = lowest
    for a in range(actions):
        allowed = mask.size == 0 or mask[m, a]
        table[a] = logits[a, m] if allowed else lowest
        highest = max(highest, table[a])
    total = logits.dtype.type(0.0)
    for a in range(actions):
        table[a] -= highest
        probabilities[a] = np.exp(table[a])
        total += probabilities[a]
    log_total = np.log(total)
    for a in range(actions):
        table[a] -= log_total
        probabilities[a] /= total


@_kernel
def _weight(weights: NDArray[Any], rows: int) -> Any:
    """Sum of the weights of all rows, each 1 where there are none."""
    return float(rows) if weights.size == 0 else max(weights.sum(), _LEAST)


@_kernel
def _ppo(
    logits: NDArray[Any],
    values: NDArray[Any],
    actions: NDArray[np.int64],
    old_log_probs: NDArray[Any],
    advantages: NDArray[Any],
    returns: NDArray[Any],
    old_values: NDArray[Any],
    mask: NDArray[np.bool_],
    everyone: NDArray[Any],
    acting: NDArray[Any],
    labels: NDArray[np.int64],
    constants: NDArray[Any],
    normalize: bool,
    slopes: NDArray[Any],
    metrics: NDArray[Any],
) -> None:
    clip, value_clip, value_coef, entropy_coef, bc_weight = constants
    count, rows = logits.shape
    own_weight = _weight(acting, rows)
    scale, own_scale = 1.0 / _weight(everyone, rows), 1.0 / own_weight
    mean, variance = 0.0, 0.0
    for m in range(rows):
        mean += advantages[m] * (1.0 if acting.size == 0 else acting[m])
    mean /= own_weight
    for m in range(rows):
        variance += (advantages[m] - mean) ** 2 * (1.0 if acting.size == 0 else acting[m])
    spread = np.sqrt(variance / own_weight)
    table, probabilities = np.empty(count, logits.dtype), np.empty(count, logits.dtype)
    surrogate, clipped_share, kl, value_loss, negentropy_mean, cloning = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(rows):
        share = scale if everyone.size == 0 else scale * everyone[m]
        own_share = own_scale if acting.size == 0 else own_scale * acting[m]
        _log_softmax(logits, mask, m, table, probabilities)
        chosen = actions[m]
        log_ratio = table[chosen] - old_log_probs[m]
        ratio = np.exp(log_ratio)
        clipped = min(max(ratio, 1.0 - clip), 1.0 + clip)
        scaled = (advantages[m] - mean) / (spread + _LEAST) if normalize else advantages[m]
        plain, least = ratio * scaled, clipped * scaled
        # Where the clipped product is the smaller one, the ratio no longer matters.
        push = plain * own_share
        if plain > least:
            push = 0.0
        else:
            least = plain
        negentropy = 0.0
        for a in range(count):
            negentropy += probabilities[a] * table[a]
        bias = push + (bc_weight * share if labels.size > 0 else 0.0)
        for a in range(count):
            slopes[a, m] = probabilities[a] * (entropy_coef * share * (table[a] - negentropy) + bias)
        slopes[chosen, m] -= push
        if labels.size > 0:
            slopes[labels[m], m] -= bc_weight * share
            cloning -= share * table[labels[m]]
        if mask.size > 0:
            for a in range(count):
                if not mask[m, a]:
                    slopes[a, m] = 0.0
        error = values[m] - returns[m]
        worst, counted = error * error, error
        if value_clip > 0.0:
            moved = values[m] - old_values[m]
            limited = min(max(moved, -value_clip), value_clip)
            near = (error - moved + limited) ** 2
            # Beyond the clip the value no longer matters where the clipped error is the larger one.
            if limited != moved and near > worst:
                counted = 0.0
            worst = max(worst, near)
        slopes[count, m] = counted * (value_coef * share)
        surrogate -= own_share * least
        clipped_share += own_share if clipped != ratio else 0.0
        kl += own_share * (np.expm1(log_ratio) - log_ratio)
        value_loss += 0.5 * share * worst
        negentropy_mean += share * negentropy
    total = surrogate + value_coef * value_loss + entropy_coef * negentropy_mean + bc_weight * cloning
    for k, metric in enumerate((surrogate, value_loss, -negentropy_mean, total, clipped_share, kl, spread, cloning)):
        metrics[k] = metric


@_kernel
def _cloning(
    logits: NDArray[Any],
    actions: NDArray[np.int64],
    mask: NDArray[np.bool_],
    weights: NDArray[Any],
    smoothing: float,
    slopes: NDArray[Any],
    tables: NDArray[Any],
) -> Any:
    count, rows = logits.shape
    scale = 1.0 / _weight(weights, rows)
    table, probabilities = np.empty(count, logits.dtype), np.empty(count, logits.dtype)
    total = 0.0
    for m in range(rows):
        share = scale if weights.size == 0 else scale * weights[m]
        _log_softmax(logits, mask, m, table, probabilities)
        chosen = actions[m]
        allowed, finite = 0.0, 0.0
        for a in range(count):
            tables[a, m] = table[a]
            if mask.size == 0 or mask[m, a]:
                allowed += 1.0
                finite += table[a]
        allowed = max(allowed, 1.0)
        for a in range(count):
            slopes[a, m] = share * (probabilities[a] - smoothing / allowed)
        slopes[chosen, m] -= (1.0 - smoothing) * share
        if mask.size > 0:
            for a in range(count):
                if not mask[m, a]:
                    slopes[a, m] = 0.0
        loss = -(1.0 - smoothing) * table[chosen]
        if smoothing > 0.0:
            loss -= smoothing * finite / allowed
        total += share * loss
    return total


def ppo_gradients(
    logits: Tensor,
    values: Tensor,
    *,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    mask: Tensor | None,
    everyone: Tensor | None,
    acting: Tensor | None,
    labels: Tensor | None,
    clip_param: float,
    value_clip: float,
    value_loss_coef: float,
    entropy_coef: float,
    bc_weight: float,
    normalize: bool,
) -> PPOGradients:
    """Compute :func:`townlet_training_torch.gradients.ppo_gradients` on the CPU."""
    shown = np.ascontiguousarray(logits.numpy())
    kind = shown.dtype
    slopes, metrics = np.empty((len(shown) + 1, shown.shape[1]), kind), np.empty(8, kind)
    _ppo(
        shown,
        _array(values, kind),
        _array(actions, np.int64),
        _array(old_log_probs, kind),
        _array(advantages, kind),
        _array(returns, kind),
        _array(old_values, kind),
        _rows_of(mask),
        _array(everyone, kind),
        _array(acting, kind),
        _array(labels, np.int64),
        _constants(kind, clip_param, value_clip, value_loss_coef, entropy_coef, bc_weight),
        normalize,
        slopes,
        metrics,
    )
    joined = torch.from_numpy(slopes)
    return PPOGradients(joined[:-1], joined[-1], torch.from_numpy(metrics))


def cloning_gradients(
    logits: Tensor,
    actions: Tensor,
    *,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    weights: Tensor | None = None,
) -> CloningGradients:
    """Compute :func:`townlet_training_torch.gradients.cloning_gradients` on the CPU."""
    shown = np.ascontiguousarray(logits.numpy())
    if class_weights is not None:
        chosen = class_weights[actions]
        weights = chosen if weights is None else weights * chosen
    slopes, table = np.empty(shown.shape, shown.dtype), np.empty(shown.shape, shown.dtype)
    loss = _cloning(
        shown, _array(actions, np.int64), _rows_of(mask), _array(weights, shown.dtype), label_smoothing, slopes, table
    )
    return CloningGradients(torch.from_numpy(slopes), logits.new_tensor(loss), torch.from_numpy(table))


@lru_cache(maxsize=64)
def _constants(dtype: Any, *values: float) -> NDArray[Any]:
    """Numbers in the precision of the logits, so that the kernel computes in no other."""
    return np.array(values, dtype)


@lru_cache(maxsize=8)
def _nothing(dtype: Any, axes: int = 1) -> NDArray[Any]:
    return np.empty((0,) * axes, dtype)


def _array(column: Tensor | None, dtype: Any) -> NDArray[Any]:
    if column is None:
        return _nothing(dtype)
    return np.ascontiguousarray(column.numpy(), dtype)


def _rows_of(mask: Tensor | None) -> NDArray[np.bool_]:
    """Turn an action-major mask ``(A, M)`` into rows ``(M, A)``, which it is a view of."""
    return _nothing(np.bool_, 2) if mask is None else np.ascontiguousarray(mask.t().numpy())
