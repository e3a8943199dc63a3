"""What one step of the optimiser descends: the objectives of PPO and of behaviour cloning on a mini-batch.

:func:`ppo_loss` is the readable form, differentiated by autograd. :func:`ppo_step` and :func:`cloning_step` take the
step, by hand-written gradients where the learner has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from townlet_training_core.config.models import PPOConfig
from townlet_training_core.config.requests import PPORequest
from townlet_training_torch.handwritten import HandwrittenNetwork
from townlet_training_torch.learner import Learner
from townlet_training_torch.losses import (
    action_log_probs,
    approximate_kl,
    clipped_value_loss,
    cloning_loss,
    entropy,
    masked_mean,
    normalize_advantages,
    policy_surrogate,
)
from townlet_training_torch.minibatches import MiniBatch

__all__ = ["UpdatePlan", "cloning_step", "ppo_loss", "ppo_step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePlan:
    """What the schedules say about one iteration.

    Attributes
    ----------
    learning_rate, entropy_coef:
        Constant, or falling linearly to 0 over the run.
    bc_weight:
        Weight of the BC loss; from the request's ``bc_weight`` linearly to ``bc_weight_final``.
    expert_share:
        Share of decisions that the expert takes; fades as ``bc_weight`` does.
    value_only:
        The update leaves the policy as it is.
    """

    learning_rate: float
    entropy_coef: float
    bc_weight: float = 0.0
    expert_share: float = 0.0
    value_only: bool = False

    @classmethod
    def of(cls, config: PPOConfig, request: PPORequest, *, iteration: int, total: int) -> UpdatePlan:
        """Plan ``iteration`` (from 0) of ``total``."""
        left = 1.0 - iteration / total
        final = request.bc_weight if request.bc_weight_final is None else request.bc_weight_final
        bc_weight = request.bc_weight + (final - request.bc_weight) * (iteration / max(1, total - 1))
        fading = bc_weight / request.bc_weight if request.bc_weight > 0.0 else 1.0
        return cls(
            learning_rate=config.learning_rate * (left if config.learning_rate_schedule == "linear" else 1.0),
            entropy_coef=config.entropy_coef * (left if config.entropy_schedule == "linear" else 1.0),
            bc_weight=bc_weight,
            expert_share=min(1.0, request.blend * fading),
            value_only=iteration < config.value_warmup_iterations,
        )


def ppo_loss(
    learner: Learner, batch: MiniBatch, config: PPOConfig, *, plan: UpdatePlan, expert: MiniBatch | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Loss of one mini-batch, and eight metrics as :data:`UPDATE_METRICS` without the gradient norm.

    Rows that the expert decided (``own`` is 0) count in the value loss and in the BC loss, not in the surrogate.
    """
    output = learner.forward(batch)
    table = torch.log_softmax(output.logits, dim=-1)
    everyone, acting = batch.weights, _acting(batch)
    advantages = batch["advantages"]
    spread = masked_mean((advantages - masked_mean(advantages, acting)).square(), acting).sqrt()
    if config.advantage_normalization:
        advantages = normalize_advantages(advantages, acting)
    new, old = action_log_probs(table, batch["actions"]), batch["log_probs"]
    surrogate, clipped = policy_surrogate(new, old, advantages, config.clip_param, weights=acting)
    value = clipped_value_loss(output.values, batch["returns"], batch["values"], config.value_clip, weights=everyone)
    bonus = masked_mean(entropy(table), everyone)
    cloning = torch.zeros_like(value)
    if plan.bc_weight > 0.0 and expert is not None:
        expert_table = torch.log_softmax(learner.forward(expert).logits, dim=-1)
        cloning = cloning_loss(expert_table, expert["actions"], weights=expert.weights)
    elif plan.bc_weight > 0.0:
        cloning = cloning_loss(table, batch["labels"], weights=everyone)
    total = surrogate + config.value_loss_coef * value - plan.entropy_coef * bonus + plan.bc_weight * cloning
    loss = config.value_loss_coef * value if plan.value_only else total
    with torch.no_grad():
        kl = approximate_kl(new, old, weights=acting)
    metrics = (surrogate, value, bonus, loss, clipped, kl, spread, cloning)
    return loss, [metric.detach() for metric in metrics]


def ppo_step(
    learner: Learner, batch: MiniBatch, config: PPOConfig, *, plan: UpdatePlan, expert: MiniBatch | None = None
) -> Tensor:
    """Descend once on a mini-batch; return nine metrics as :data:`UPDATE_METRICS`, still on the device."""
    if learner.handwritten is None:
        loss, found = ppo_loss(learner, batch, config, plan=plan, expert=expert)
        norm, metrics = learner.step(loss), torch.stack(found)
    else:
        with torch.no_grad():
            metrics = _differentiate(learner, learner.handwritten, batch, config, plan, expert)
            norm = learner.clip()
    learner.apply()
    return _with_norm(metrics, norm)


def _with_norm(metrics: Tensor, norm: Tensor) -> Tensor:
    """Put the gradient norm between the metrics, where :data:`UPDATE_METRICS` has it."""
    if metrics.device.type == "cpu":  # three views and a copy by torch take longer than a small matrix product
        given = metrics.numpy()
        row = np.empty(len(given) + 1, given.dtype)
        row[:5], row[5], row[6:] = given[:5], norm.item(), given[5:]
        return torch.from_numpy(row)
    return torch.cat([metrics[:5], norm.view(1), metrics[5:]])


def _differentiate(
    learner: Learner,
    network: HandwrittenNetwork,
    batch: MiniBatch,
    config: PPOConfig,
    plan: UpdatePlan,
    expert: MiniBatch | None,
) -> Tensor:
    """Fill the learner's gradients; return the eight metrics of :func:`ppo_loss`."""
    expert = expert if plan.bc_weight > 0.0 else None
    observations = batch.observations
    if expert is not None:  # one pass over both
        observations = {name: torch.cat([rows, expert.observations[name]]) for name, rows in observations.items()}
    logits, values = network.forward(observations)
    rows = len(batch["actions"])
    found = learner.ppo_gradients(
        logits[:, :rows],
        values[:rows],
        actions=batch["actions"],
        old_log_probs=batch["log_probs"],
        advantages=batch["advantages"],
        returns=batch["returns"],
        old_values=batch["values"],
        mask=None if batch.action_mask is None else batch.action_mask.t(),
        everyone=batch.weights,
        acting=_acting(batch),
        labels=batch["labels"] if plan.bc_weight > 0.0 and expert is None else None,
        clip_param=config.clip_param,
        value_clip=config.value_clip,
        value_loss_coef=config.value_loss_coef,
        entropy_coef=plan.entropy_coef,
        bc_weight=plan.bc_weight,
        normalize=config.advantage_normalization,
    )
    towards, towards_values, metrics = found
    if expert is not None:
        mask = None if expert.action_mask is None else expert.action_mask.t()
        cloned = learner.cloning_gradients(logits[:, rows:], expert["actions"], mask=mask, weights=expert.weights)
        towards = torch.cat([towards, plan.bc_weight * cloned.logits], dim=1)
        towards_values = torch.cat([towards_values, torch.zeros_like(values[rows:])])
        metrics[7] = cloned.loss
        metrics[3] += plan.bc_weight * cloned.loss
    if plan.value_only:
        metrics[3] = config.value_loss_coef * metrics[1]
        towards.zero_()
    network.backward(towards, towards_values, value_only=plan.value_only)
    return metrics


def cloning_step(
    learner: Learner,
    batch: MiniBatch,
    *,
    label_smoothing: float,
    class_weights: Tensor | None,
    value_coef: float,
) -> Tensor:
    """Descend once on cross-entropy plus ``value_coef`` times half the squared error of the value.

    Returns
    -------
    Tensor
        ``(4,)`` on the device: loss, cross-entropy, accuracy, gradient norm before clipping.
    """
    network, mask, weights = learner.handwritten, batch.action_mask, batch.weights
    if network is None:
        output = learner.forward(batch)
        table = torch.log_softmax(output.logits, dim=-1)
        cloning = cloning_loss(
            table,
            batch["actions"],
            mask=mask,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            weights=weights,
        )
        loss = cloning + value_coef * 0.5 * masked_mean((output.values - batch["returns"]).square(), weights)
        norm = learner.step(loss)
        best = output.logits.argmax(dim=-1)
    else:
        with torch.no_grad():
            logits, values = network.forward(batch.observations)
            towards, cloning, table = learner.cloning_gradients(
                logits,
                batch["actions"],
                mask=None if mask is None else mask.t(),
                label_smoothing=label_smoothing,
                class_weights=class_weights,
                weights=weights,
            )
            error = values - batch["returns"]
            share = 1.0 / len(error) if weights is None else weights / weights.sum().clamp_min(1e-8)
            loss = cloning + value_coef * 0.5 * masked_mean(error.square(), weights)
            network.backward(towards, error * (value_coef * share))
            norm = learner.clip()
            best = table.argmax(dim=0)
    learner.apply()
    hits = masked_mean((best == batch["actions"]).to(loss.dtype), weights)
    return torch.stack([loss.detach(), cloning.detach(), hits, norm])


def _acting(batch: MiniBatch) -> Tensor | None:
    own = batch.columns.get("own")
    return batch.weights if own is None else own if batch.weights is None else batch.weights * own
