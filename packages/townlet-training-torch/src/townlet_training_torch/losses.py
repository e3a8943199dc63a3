"""Losses of PPO and behaviour cloning: tensors in, scalars out. No logging, no state, no device talk.

Every mean runs over the rows that count: ``weights`` (same shape as the rows, 0 or 1, or any non-negative
number) says which; ``None`` means all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "action_log_probs",
    "approximate_kl",
    "clipped_value_loss",
    "cloning_loss",
    "entropy",
    "explained_variance",
    "mask_logits",
    "masked_mean",
    "normalize_advantages",
    "policy_surrogate",
]


def masked_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of ``values`` weighted by ``weights``; 0 where no row counts."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / weights.sum().clamp_min(1e-8)


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Give forbidden actions a logit so low that their probability is exactly 0.

    The lowest finite float32 rather than minus infinity: ``p * log p`` then is 0, not NaN. Computed in float32
    whatever the logits are.

    Parameters
    ----------
    logits:
        ``(..., A)``.
    mask:
        ``(..., A)`` bool, true where allowed; ``None`` allows everything.
    """
    logits = logits.float()
    if mask is None:
        return logits
    return logits.masked_fill(~mask, torch.finfo(torch.float32).min)


def action_log_probs(table: Tensor, actions: Tensor) -> Tensor:
    """Pick each action's log-probability: ``(..., A)`` from ``log_softmax``, ``(...)`` int64, to ``(...)``, nats."""
    return table.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def entropy(table: Tensor) -> Tensor:
    """Entropy of each row of log-probabilities, ``(..., A)`` to ``(...)``, nats; forbidden actions count 0."""
    return -(table.exp() * table).sum(dim=-1)


def normalize_advantages(advantages: Tensor, weights: Tensor | None = None, *, eps: float = 1e-8) -> Tensor:
    """Shift to mean 0 and scale to population deviation 1 over the rows that count."""
    mean = masked_mean(advantages, weights)
    variance = masked_mean((advantages - mean).square(), weights)
    return (advantages - mean) / (variance.sqrt() + eps)


def policy_surrogate(
    new_log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    clip_param: float,
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate of PPO (Schulman et al. 2017, equation 7), to be minimised.

    Returns
    -------
    tuple
        Loss, and the share of ratios outside ``[1 - clip_param, 1 + clip_param]``.

    Raises
    ------
    ValueError
        When shapes differ: broadcasting would silently average over pairs.
    """
    if not new_log_probs.shape == old_log_probs.shape == advantages.shape:
        msg = (
            f"new_log_probs {tuple(new_log_probs.shape)}, old_log_probs {tuple(old_log_probs.shape)} and "
            f"advantages {tuple(advantages.shape)} must have the same shape"
        )
        raise ValueError(msg)
    ratio = torch.exp(new_log_probs - old_log_probs)
    clipped = ratio.clamp(1.0 - clip_param, 1.0 + clip_param)
    loss = -masked_mean(torch.minimum(ratio * advantages, clipped * advantages), weights)
    outside = ((ratio - 1.0).abs() > clip_param).float()
    return loss, masked_mean(outside, weights)


def clipped_value_loss(
    new_values: Tensor,
    returns: Tensor,
    old_values: Tensor,
    value_clip: float,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Half the mean of the larger of plain and clipped squared error; ``value_clip`` 0 means unclipped.

    Raises
    ------
    ValueError
        When shapes differ.
    """
    if not new_values.shape == returns.shape == old_values.shape:
        msg = (
            f"new_values {tuple(new_values.shape)}, returns {tuple(returns.shape)} and old_values "
            f"{tuple(old_values.shape)} must have the same shape"
        )
        raise ValueError(msg)
    error = (new_values - returns).square()
    if value_clip > 0.0:
        clipped = old_values + (new_values - old_values).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * masked_mean(error, weights)


def approximate_kl(new_log_probs: Tensor, old_log_probs: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """KL of the acting policy from the new one by the k3 estimator: mean of ``(r - 1) - log r``, never negative.

    Source: Schulman, "Approximating KL divergence" (2020).
    """
    log_ratio = new_log_probs - old_log_probs
    return masked_mean(torch.expm1(log_ratio) - log_ratio, weights)


def cloning_loss(
    table: Tensor,
    actions: Tensor,
    *,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of behaviour cloning; smoothing spreads over *allowed* actions only.

    Parameters
    ----------
    table:
        ``(..., A)`` log-probabilities of masked logits.
    actions:
        ``(...)`` int64, the expert's choice.
    mask:
        ``(..., A)`` bool; only needed for smoothing.
    label_smoothing:
        Probability mass, in [0, 1), spread evenly over the allowed actions.
    class_weights:
        ``(A,)`` weight of each action, ``None`` for equal weights.
    """
    loss = -action_log_probs(table, actions)
    if label_smoothing > 0.0:
        allowed = torch.ones_like(table) if mask is None else mask.to(table.dtype)
        # Forbidden entries are about -1e38: they are replaced before the product, not multiplied by 0.
        finite = table if mask is None else table.masked_fill(~mask, 0.0)
        even = -(finite * allowed).sum(dim=-1) / allowed.sum(dim=-1).clamp_min(1.0)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * even
    if class_weights is not None:
        chosen = class_weights[actions]
        weights = chosen if weights is None else weights * chosen
    return masked_mean(loss, weights)


def explained_variance(predictions: Tensor, targets: Tensor) -> Tensor:
    """1 - Var(targets - predictions) / Var(targets); 0 where the targets do not vary."""
    variance = targets.var(unbiased=False)
    residual = (targets - predictions).var(unbiased=False)
    return torch.where(variance > 0, 1.0 - residual / variance.clamp_min(1e-12), torch.zeros_like(variance))
