"""Losses against hand-computed numbers, independent float64 loops, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_torch.losses import (
    action_log_probs,
    approximate_kl,
    clipped_value_loss,
    cloning_loss,
    entropy,
    explained_variance,
    mask_logits,
    masked_mean,
    normalize_advantages,
    policy_surrogate,
)

SEEDS = st.integers(0, 2**32 - 1)


def _rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_surrogate_by_hand() -> None:
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 0.5, 1.5, 1.0]))
    advantages = torch.tensor([1.0, 1.0, -1.0, 2.0])
    loss, clipped = policy_surrogate(new, old, advantages, 0.2)
    # min(1.5, 1.2), min(0.5, 0.8), min(-1.5, -1.2), 2.0
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 + 2.0) / 4)
    assert clipped.item() == pytest.approx(0.75)


def test_value_loss_by_hand() -> None:
    new, old, returns = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])
    assert clipped_value_loss(new, returns, old, 0.0).item() == pytest.approx(0.5 * (0.0 + 1.0) / 2)
    # clipped first value: 0.2, error 0.64
    assert clipped_value_loss(new, returns, old, 0.2).item() == pytest.approx(0.5 * (0.64 + 1.0) / 2)


def test_entropy_and_kl_by_hand() -> None:
    table = torch.log_softmax(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]), dim=-1)
    expected = [math.log(2.0), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))]
    assert entropy(table).tolist() == pytest.approx(expected)
    new, old = torch.log(torch.tensor([0.5])), torch.log(torch.tensor([0.25]))
    assert approximate_kl(new, old).item() == pytest.approx((2.0 - 1.0) - math.log(2.0), rel=1e-6)


def test_masked_actions_have_probability_zero_and_no_gradient() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True]])
    table = torch.log_softmax(mask_logits(logits, mask), dim=-1)
    assert table.exp()[0, 1].item() == 0.0
    loss = entropy(table).sum() + cloning_loss(table, torch.tensor([0]), mask=mask, label_smoothing=0.3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1].item() == 0.0
    alone = torch.log_softmax(torch.tensor([[1.0, 2.0]]), dim=-1)
    assert entropy(table).item() == pytest.approx(entropy(alone).item())


def test_mask_logits_leaves_float32_whatever_comes_in() -> None:
    logits = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert mask_logits(logits, None).dtype == torch.float32


@given(SEEDS, st.integers(1, 9), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_surrogate_equals_a_float64_loop(seed: int, rows: int, clip: float) -> None:
    new, old, advantages = (_rows(seed + k, rows) for k in range(3))
    weights = (_rows(seed + 3, rows) > 0).float()
    weights[0] = 1.0
    total, outside = 0.0, 0.0
    for n, o, a, w in zip(new.tolist(), old.tolist(), advantages.tolist(), weights.tolist(), strict=True):
        ratio = math.exp(n - o)
        total += w * min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a)
        outside += w * (abs(float(np.float32(ratio)) - 1.0) > clip)
    loss, fraction = policy_surrogate(new, old, advantages, clip, weights=weights)
    assert loss.item() == pytest.approx(-total / weights.sum().item(), rel=1e-4, abs=1e-5)
    assert fraction.item() == pytest.approx(outside / weights.sum().item(), abs=1.0 / rows + 1e-6)


@given(SEEDS, st.integers(1, 9), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_value_loss_equals_a_float64_loop(seed: int, rows: int, clip: float) -> None:
    new, old, returns = (_rows(seed + k, rows) for k in range(3))
    weights = (_rows(seed + 3, rows) > 0).float()
    weights[0] = 1.0
    total, counted = 0.0, 0.0
    for n, o, r, w in zip(new.tolist(), old.tolist(), returns.tolist(), weights.tolist(), strict=True):
        error = (n - r) ** 2
        if clip > 0:
            error = max(error, (o + min(max(n - o, -clip), clip) - r) ** 2)
        total += 0.5 * error
        counted += w * 0.5 * error
    assert clipped_value_loss(new, returns, old, clip).item() == pytest.approx(total / rows, rel=1e-4, abs=1e-5)
    found = clipped_value_loss(new, returns, old, clip, weights=weights)
    assert found.item() == pytest.approx(counted / weights.sum().item(), rel=1e-4, abs=1e-5)


@given(SEEDS, st.integers(1, 9), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_entropy_and_kl_equal_float64_loops(seed: int, rows: int, actions: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, actions)) < 0.6
    chosen = rng.integers(0, actions, rows)
    mask[np.arange(rows), chosen] = True
    weights = (rng.random(rows) < 0.7).astype(np.float32)
    weights[0] = 1.0
    tables, entropies, log_probs = [], np.zeros(rows), np.zeros((2, rows))
    for which in range(2):
        logits = rng.normal(size=(rows, actions)).astype(np.float32)
        tables.append(torch.log_softmax(mask_logits(torch.from_numpy(logits), torch.from_numpy(mask)), dim=-1))
        for row in range(rows):
            allowed = [action for action in range(actions) if mask[row, action]]
            total = math.log(sum(math.exp(float(logits[row, action])) for action in allowed))
            known = {action: float(logits[row, action]) - total for action in allowed}
            log_probs[which, row] = known[int(chosen[row])]
            entropies[row] = -sum(math.exp(value) * value for value in known.values())
    np.testing.assert_allclose(entropy(tables[1]).numpy(), entropies, rtol=1e-4, atol=1e-5)
    picked = [action_log_probs(table, torch.from_numpy(chosen)) for table in tables]
    expected = 0.0
    for old, new, weight in zip(log_probs[0], log_probs[1], weights.tolist(), strict=True):
        expected += weight * (math.exp(new - old) - 1.0 - (new - old))
    found = approximate_kl(picked[1], picked[0], weights=torch.from_numpy(weights))
    assert found.item() == pytest.approx(expected / weights.sum(), rel=1e-3, abs=1e-5)
    assert found.item() >= 0.0


@given(SEEDS, st.integers(1, 6), st.integers(2, 5), st.floats(0.0, 0.9))
@settings(max_examples=40, deadline=None)
def test_cloning_loss_equals_a_float64_loop(seed: int, rows: int, actions: int, smoothing: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, actions)) < 0.6
    chosen = rng.integers(0, actions, rows)
    mask[np.arange(rows), chosen] = True
    logits = _rows(seed, rows, actions)
    balance = rng.random(actions).astype(np.float32) + 0.1
    total, weight = 0.0, 0.0
    for row in range(rows):
        allowed = np.flatnonzero(mask[row])
        scores = logits[row].double().numpy()[allowed]
        log_probs = scores - np.log(np.exp(scores).sum())
        picked = log_probs[list(allowed).index(chosen[row])]
        total += balance[chosen[row]] * -((1 - smoothing) * picked + smoothing * log_probs.mean())
        weight += balance[chosen[row]]
    table = torch.log_softmax(mask_logits(logits, torch.from_numpy(mask)), dim=-1)
    loss = cloning_loss(
        table,
        torch.from_numpy(chosen),
        mask=torch.from_numpy(mask),
        label_smoothing=smoothing,
        class_weights=torch.from_numpy(balance),
    )
    assert loss.item() == pytest.approx(total / weight, rel=1e-4, abs=1e-5)


@given(SEEDS, st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_normalised_advantages_have_mean_zero_and_deviation_one(seed: int, rows: int) -> None:
    advantages = _rows(seed, rows) * 7 + 3
    weights = torch.ones(rows)
    weights[rows // 2 :] = 0.0
    weights[:2] = 1.0
    found = normalize_advantages(advantages, weights)[weights > 0]
    assert found.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert found.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-2)


def test_gradients_agree_with_finite_differences() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    actions = torch.tensor([0, 2])

    def loss(logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        filled = logits.masked_fill(~mask, -1e30)  # float64 twin of mask_logits
        table = torch.log_softmax(filled, dim=-1)
        old = torch.tensor([-1.0, -0.9], dtype=torch.float64)
        advantages = torch.tensor([0.7, -1.3], dtype=torch.float64)
        surrogate, _ = policy_surrogate(action_log_probs(table, actions), old, advantages, 0.5)
        targets = torch.tensor([0.3, 1.1], dtype=torch.float64)
        before = torch.tensor([0.2, 0.9], dtype=torch.float64)
        value = clipped_value_loss(values, targets, before, 0.4)
        return surrogate + value + 0.1 * entropy(table).mean() + cloning_loss(table, actions, label_smoothing=0.0)

    logits = torch.tensor([[0.1, -0.4, 2.0], [0.3, 0.2, -0.1]], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([0.25, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logits, values))


def test_gradients_with_weights_smoothing_and_kl_agree_with_finite_differences() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    actions, weights = torch.tensor([0, 2, 1]), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    balance = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        table = torch.log_softmax(logits.masked_fill(~mask, -1e30), dim=-1)
        old = torch.tensor([-1.0, -0.9, -0.7], dtype=torch.float64)
        kl = approximate_kl(action_log_probs(table, actions), old, weights=weights)
        cloning = cloning_loss(table, actions, mask=mask, label_smoothing=0.2, class_weights=balance, weights=weights)
        return kl + cloning + masked_mean(entropy(table), weights)

    logits = torch.tensor(
        [[0.1, -0.4, 2.0], [0.3, 0.2, -0.1], [1.0, 0.5, -0.2]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(loss, (logits,))
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert not gradient[1].any()  # a row of weight 0
    assert gradient[0, 2] == gradient[2, 0] == 0.0  # what is masked


@pytest.mark.parametrize("loss", [policy_surrogate, clipped_value_loss])
def test_different_shapes_are_refused(loss: object) -> None:
    assert callable(loss)
    with pytest.raises(ValueError, match="same shape"):
        loss(torch.zeros(3), torch.zeros(3), torch.zeros(3, 1), 0.2)


def test_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(3), torch.zeros(3)).item() == 0.0


def test_explained_variance() -> None:
    targets = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(targets, targets).item() == pytest.approx(1.0)
    assert explained_variance(torch.zeros(3), targets).item() == pytest.approx(0.0)
    assert explained_variance(torch.zeros(3), torch.ones(3)).item() == 0.0
