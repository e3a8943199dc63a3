"""Gradients of the losses by hand: logits and values in, derivatives and metrics out.

The losses are those of :mod:`~townlet_training_torch.losses`, whose autograd is what the tests compare with. Logits
are action-major, ``(A, M)``: sums over actions then run along contiguous rows. Everything is computed in the
precision of the logits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from townlet_training_torch.losses import masked_mean

__all__ = ["CloningGradients", "PPOGradients", "cloning_gradients", "ppo_gradients"]


class PPOGradients(NamedTuple):
    """Derivatives of a PPO loss, and what is known about it.

    ======= ======== ===================================================================================
    logits  (A, M)   0 where an action is forbidden
    values  (M,)
    metrics (8,)     surrogate, value loss, entropy, loss, clip fraction, KL, advantage deviation, BC loss
    ======= ======== ===================================================================================
    """

    logits: Tensor
    values: Tensor
    metrics: Tensor


class CloningGradients(NamedTuple):
    """Derivative ``(A, M)`` of the cross-entropy by the logits, the loss, and the log-probabilities ``(A, M)``."""

    logits: Tensor
    loss: Tensor
    table: Tensor


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
    """Differentiate surrogate + value loss - entropy bonus + BC loss.

    Parameters
    ----------
    logits, values:
        ``(A, M)`` before masking, and ``(M,)``.
    actions, old_log_probs, advantages, returns, old_values:
        ``(M,)`` each.
    mask:
        ``(A, M)`` bool, true where allowed; ``None`` allows everything.
    everyone, acting:
        ``(M,)`` weights of the rows in all losses, and in the surrogate; ``None`` for equal weights.
    labels:
        ``(M,)`` expert's actions; ``None`` without a BC loss on these rows.
    clip_param, value_clip, value_loss_coef, entropy_coef, bc_weight, normalize:
        As in :class:`~townlet_training_core.config.models.PPOConfig`.
    """
    table, probabilities = _log_softmax(logits, mask)
    share, own_share = _shares(everyone, len(values)), _shares(acting, len(values))

    if acting is None:
        variance, mean = torch.var_mean(advantages, correction=0)
    else:
        mean = masked_mean(advantages, acting)
        variance = masked_mean((advantages - mean).square(), acting)
    spread = variance.sqrt()
    scaled = (advantages - mean).div_(spread + 1e-8) if normalize else advantages

    chosen = actions.unsqueeze(0)
    log_ratio = table.gather(0, chosen).squeeze(0) - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_param, 1.0 + clip_param)
    plain = ratio * scaled
    least = torch.minimum(plain, clipped * scaled)
    # Where the clipped product is the smaller one, the ratio no longer matters.
    push = plain.masked_fill_(plain > least, 0.0).mul_(own_share)

    negentropy = (probabilities * table).sum(0)
    slope = (table - negentropy).mul_(entropy_coef * share).add_(push)
    if labels is not None:
        slope += bc_weight * share
    towards = slope.mul_(probabilities).scatter_add_(0, chosen, push.neg_().unsqueeze(0))

    error = values - returns
    worst, counted = error.square(), error
    if value_clip > 0.0:
        moved = values - old_values
        limited = moved.clamp(-value_clip, value_clip)
        near = (error - moved).add_(limited).square_()
        # Beyond the clip the value no longer matters where the clipped error is the larger one.
        counted = error.masked_fill((limited != moved) & (near > worst), 0.0)
        worst = torch.maximum(worst, near)

    rows = [least, (clipped != ratio).to(least.dtype), torch.expm1(log_ratio) - log_ratio, worst, negentropy]
    if labels is not None:
        wanted = labels.unsqueeze(0)
        rows.append(table.gather(0, wanted).squeeze(0))
        towards.scatter_add_(0, wanted, _row(-bc_weight * share, towards))
    if mask is not None:
        towards.masked_fill_(~mask, 0.0)
    stacked = torch.stack(rows)
    if acting is None:
        means = stacked.mean(-1)
    else:
        means = torch.cat([_mean(stacked[:3], own_share), _mean(stacked[3:], share)])
    coefficients = _combination(value_loss_coef, entropy_coef, bc_weight, len(rows), means.dtype, means.device)
    metrics = torch.mv(coefficients, means)
    metrics[6] = spread
    return PPOGradients(towards, counted * (value_loss_coef * share), metrics)


@lru_cache(maxsize=16)
def _combination(
    value_loss_coef: float, entropy_coef: float, bc_weight: float, rows: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Matrix ``(8, rows)`` from the means of surrogate, clipping, KL, error, p log p, log p(label) to the metrics."""
    table = torch.zeros(8, 6, dtype=torch.float64)
    table[0, 0] = -1.0
    table[1, 3] = 0.5
    table[2, 4] = -1.0
    table[4, 1] = 1.0
    table[5, 2] = 1.0
    table[7, 5] = -1.0
    weights = ((0, 1.0), (1, value_loss_coef), (2, -entropy_coef), (7, bc_weight))
    table[3] = sum((weight * table[row] for row, weight in weights), start=table[3])
    return table[:, :rows].to(dtype=dtype, device=device)


def cloning_gradients(
    logits: Tensor,
    actions: Tensor,
    *,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    weights: Tensor | None = None,
) -> CloningGradients:
    """Differentiate the cross-entropy of :func:`~townlet_training_torch.losses.cloning_loss`.

    Parameters
    ----------
    logits, mask:
        ``(A, M)``, before masking.
    actions, weights:
        ``(M,)``.
    label_smoothing, class_weights:
        As there.
    """
    table, probabilities = _log_softmax(logits, mask)
    if class_weights is not None:
        chosen = class_weights[actions]
        weights = chosen if weights is None else weights * chosen
    share = _shares(weights, len(actions))
    wanted = actions.unsqueeze(0)
    loss = -table.gather(0, wanted).squeeze(0)
    towards = probabilities * share
    if label_smoothing > 0.0:
        allowed = torch.ones_like(table) if mask is None else mask.to(table.dtype)
        finite = table if mask is None else table.masked_fill(~mask, 0.0)
        count = allowed.sum(0).clamp_min(1.0)
        loss = (1.0 - label_smoothing) * loss - label_smoothing * (finite * allowed).sum(0) / count
        towards -= allowed * (label_smoothing * share / count)
    towards.scatter_add_(0, wanted, _row((label_smoothing - 1.0) * share, towards))
    if mask is not None:
        towards.masked_fill_(~mask, 0.0)
    return CloningGradients(towards, _mean(loss, share), table)


def _log_softmax(logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities and probabilities over the first axis."""
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    table = torch.log_softmax(logits, 0)
    return table, table.exp()


def _shares(weights: Tensor | None, rows: int) -> Tensor | float:
    """Share of each row in a mean: one number where all are equal."""
    return 1.0 / rows if weights is None else weights / weights.sum().clamp_min(1e-8)


def _mean(rows: Tensor, share: Tensor | float) -> Tensor:
    return rows.mean(-1) if isinstance(share, float) else (rows * share).sum(-1)


def _row(share: Tensor | float, like: Tensor) -> Tensor:
    return like.new_full((1, like.shape[1]), share) if isinstance(share, float) else share.unsqueeze(0)
