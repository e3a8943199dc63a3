"""Hand-written gradients: by hand, against autograd of the pure losses, and as whole updates on every path."""

from __future__ import annotations

import importlib.util
import math
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.config.models import ComputeConfig, NetworkConfig, PPOConfig
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_torch import gradients, kernels
from townlet_training_torch.advantages import gae_tensors
from townlet_training_torch.flat import FlatAdam, FlatParameters
from townlet_training_torch.handwritten import covers
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
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.objectives import UpdatePlan, cloning_step, ppo_loss, ppo_step
from townlet_training_torch.seeding import torch_generator

SEEDS = st.integers(0, 2**32 - 1)


def _interpreted() -> ModuleType:
    """Load the kernels once more as what they are in Python: the compiler must not change what they say."""
    spec = importlib.util.spec_from_file_location("interpreted_kernels", str(kernels.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch("numba.njit", return_value=lambda function: function):
        spec.loader.exec_module(module)
    return module


INTERPRETED = _interpreted()
WAYS = pytest.mark.parametrize(
    "way", [gradients, kernels, INTERPRETED], ids=["tensors", "kernels", "interpreted kernels"]
)
KERNELS = pytest.mark.parametrize("way", [kernels, INTERPRETED], ids=["compiled", "interpreted"])


def _draw(seed: int, rows: int, actions: int) -> dict[str, Any]:
    """Draw rows in float64: ratios and values on both sides of their clips, every row with an allowed action."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, actions)) < 0.6
    chosen = rng.integers(0, actions, rows)
    mask[np.arange(rows), chosen] = True
    logits = rng.normal(size=(rows, actions)) * 2
    shown = np.where(mask, logits, -np.inf)
    table = shown - np.log(np.exp(shown).sum(axis=1, keepdims=True))
    old = table[np.arange(rows), chosen] + rng.normal(size=rows) * 0.4
    values = rng.normal(size=rows)
    drawn = {
        "logits": logits,
        "values": values,
        "mask": mask,
        "actions": chosen,
        "labels": rng.integers(0, actions, rows),
        "old_log_probs": old,
        "advantages": rng.normal(size=rows),
        "returns": rng.normal(size=rows),
        "old_values": values + rng.normal(size=rows) * 0.4,
        "weights": rng.random(rows) * (rng.random(rows) < 0.8),
        "own": (rng.random(rows) < 0.7).astype(np.float64),
        "class_weights": rng.random(actions) + 0.1,
    }
    return {name: torch.from_numpy(np.asarray(array)) for name, array in drawn.items()}


def _table(logits: Tensor, mask: Tensor | None) -> Tensor:
    # mask_logits itself works in float32
    return torch.log_softmax(logits if mask is None else logits.masked_fill(~mask, -1e30), dim=-1)


@WAYS
@given(
    seed=SEEDS,
    rows=st.integers(2, 12),
    actions=st.integers(2, 6),
    masked=st.booleans(),
    weighted=st.booleans(),
    blended=st.booleans(),
    labelled=st.booleans(),
    normalize=st.booleans(),
    value_clip=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=150, deadline=None)
def test_ppo_gradients_equal_autograd_of_the_losses(
    way: Any,
    seed: int,
    rows: int,
    actions: int,
    masked: bool,
    weighted: bool,
    blended: bool,
    labelled: bool,
    normalize: bool,
    value_clip: float,
) -> None:
    row = _draw(seed, rows, actions)
    mask = row["mask"] if masked else None
    everyone = row["weights"] if weighted else None
    acting = everyone
    if blended:
        acting = row["own"] if everyone is None else everyone * row["own"]
    logits, values = row["logits"].requires_grad_(), row["values"].requires_grad_()
    table = _table(logits, mask)
    new, old = action_log_probs(table, row["actions"]), row["old_log_probs"]
    advantages = row["advantages"]
    spread = masked_mean((advantages - masked_mean(advantages, acting)).square(), acting).sqrt()
    used = normalize_advantages(advantages, acting) if normalize else advantages
    surrogate, clipped = policy_surrogate(new, old, used, 0.2, weights=acting)
    value = clipped_value_loss(values, row["returns"], row["old_values"], value_clip, weights=everyone)
    bonus = masked_mean(entropy(table), everyone)
    cloning = cloning_loss(table, row["labels"], weights=everyone) if labelled else torch.zeros_like(value)
    loss = surrogate + 0.5 * value - 0.03 * bonus + 0.7 * cloning
    towards_logits, towards_values = torch.autograd.grad(loss, (logits, values))
    expected = [surrogate, value, bonus, loss, clipped, approximate_kl(new, old, weights=acting), spread, cloning]

    found = way.ppo_gradients(
        logits.detach().t(),
        values.detach(),
        actions=row["actions"],
        old_log_probs=old,
        advantages=advantages,
        returns=row["returns"],
        old_values=row["old_values"],
        mask=None if mask is None else mask.t(),
        everyone=everyone,
        acting=acting,
        labels=row["labels"] if labelled else None,
        clip_param=0.2,
        value_clip=value_clip,
        value_loss_coef=0.5,
        entropy_coef=0.03,
        bc_weight=0.7,
        normalize=normalize,
    )
    torch.testing.assert_close(found.logits.t(), towards_logits, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.values, towards_values, rtol=1e-9, atol=1e-12)
    if mask is not None and labelled:  # a forbidden label costs 1e30 there and the lowest float here
        wanted = mask[torch.arange(rows), row["labels"]]
        if not bool(wanted.all()):
            return
    wanted_metrics = torch.stack([metric.detach().double() for metric in expected])
    torch.testing.assert_close(found.metrics[4], wanted_metrics[4], rtol=0, atol=1e-6)  # counted in float32 there
    found.metrics[4] = wanted_metrics[4]
    torch.testing.assert_close(found.metrics, wanted_metrics, rtol=1e-9, atol=1e-10)


@WAYS
@given(
    seed=SEEDS,
    rows=st.integers(1, 12),
    actions=st.integers(2, 6),
    masked=st.booleans(),
    weighted=st.booleans(),
    balanced=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.6]),
)
@settings(max_examples=100, deadline=None)
def test_cloning_gradients_equal_autograd_of_the_loss(
    way: Any, seed: int, rows: int, actions: int, masked: bool, weighted: bool, balanced: bool, smoothing: float
) -> None:
    row = _draw(seed, rows, actions)
    mask = row["mask"] if masked else None
    logits = row["logits"].requires_grad_()
    shared: dict[str, Any] = {
        "label_smoothing": smoothing,
        "class_weights": row["class_weights"] if balanced else None,
        "weights": row["weights"] if weighted else None,
    }
    table = _table(logits, mask)
    loss = cloning_loss(table, row["actions"], mask=mask, **shared)
    (towards,) = torch.autograd.grad(loss, logits)
    turned = None if mask is None else mask.t()
    found = way.cloning_gradients(logits.detach().t().contiguous(), row["actions"], mask=turned, **shared)
    torch.testing.assert_close(found.logits.t(), towards, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-9, atol=1e-12)


@WAYS
def test_gradients_by_hand(way: Any) -> None:
    # Two actions at 1/2: the ratio is 1, so d/dlogit = -(advantage / rows) * (1 or 0, minus 1/2).
    found = way.ppo_gradients(
        torch.zeros(2, 2, dtype=torch.float64),
        torch.tensor([1.0, 2.0], dtype=torch.float64),
        actions=torch.tensor([0, 1]),
        old_log_probs=torch.full((2,), math.log(0.5), dtype=torch.float64),
        advantages=torch.tensor([3.0, -1.0], dtype=torch.float64),
        returns=torch.tensor([0.0, 2.0], dtype=torch.float64),
        old_values=torch.tensor([1.0, 2.0], dtype=torch.float64),
        mask=None,
        everyone=None,
        acting=None,
        labels=None,
        clip_param=0.2,
        value_clip=0.2,
        value_loss_coef=0.5,
        entropy_coef=0.0,
        bc_weight=0.0,
        normalize=False,
    )
    assert found.logits.tolist() == [[-0.75, -0.25], [0.75, 0.25]]
    assert found.values.tolist() == [0.25, 0.0]
    assert found.metrics[:5].tolist() == pytest.approx([-1.0, 0.25, math.log(2.0), -0.875, 0.0])


@KERNELS
def test_rectifiers_of_some_columns(way: Any) -> None:
    sums = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -3.0]], np.float32)
    way.rectify(sums, 1, np.array([1.0, 2.0], np.float32))
    assert sums.tolist() == [[1.0, 0.0, 5.0], [0.5, 5.0, 0.0]]
    slope, total = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3), np.zeros(2, np.float32)
    way.through_relu(slope, sums, 1, total)
    assert slope.tolist() == [[1.0, 0.0, 3.0], [4.0, 5.0, 0.0]]
    assert total.tolist() == [5.0, 3.0]


@KERNELS
@pytest.mark.parametrize("padded", [False, True])
def test_advantages_in_one_walk_are_those_of_tensors(way: Any, padded: bool) -> None:
    rng, shape = np.random.default_rng(5), (9, 4)
    rewards, values, following = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    terminated, truncated, valid = (rng.random(shape) < share for share in (0.2, 0.2, 0.8))
    found = [np.empty(shape, np.float32) for _ in range(2)]
    counts = valid if padded else np.zeros((0, 0), np.bool_)
    gamma, decay = np.float32(0.9), np.float32(0.9 * 0.8)
    way.estimate(rewards, values, following, terminated, truncated, counts, gamma, decay, *found)
    expected = gae_tensors(
        *(torch.from_numpy(column).double() for column in (rewards, values, following)),
        terminated=torch.from_numpy(terminated),
        truncated=torch.from_numpy(truncated),
        valid=torch.from_numpy(valid) if padded else None,
        gamma=0.9,
        gae_lambda=0.8,
    )
    for array, tensor in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-5, atol=1e-5)


def test_kernels_work_where_nothing_can_be_kept() -> None:
    def refusing(**options: Any) -> Any:
        if options.get("cache"):
            msg = "cannot cache function: no locator available"
            raise RuntimeError(msg)
        return lambda function: function

    with mock.patch.object(kernels, "_NJIT", refusing):
        assert kernels._kernel(math.sqrt) is math.sqrt


VARIANTS: dict[str, dict[str, Any]] = {
    "contract": {},
    "separate": {"separate_trunks": True},
    "features": {"inputs": ("features",)},
    "map": {"inputs": ("map",), "separate_trunks": True},
    "normalised": {"normalise": True},
    "odd": {"hidden_dim": 7, "actions": 5},
}


def _network(variant: str) -> PolicyValueNetwork:
    options = dict(VARIANTS[variant])
    inputs, normalise = options.pop("inputs", ("map", "features")), options.pop("normalise", False)
    shapes = {
        "map": ArraySpec((2, 3, 3), np.dtype(np.uint8)),
        "features": ArraySpec((5,), np.dtype(np.float32)),
    }
    spec = EnvironmentSpec(
        name="gradients-v1",
        num_envs=1,
        agents_per_env=1,
        observations={name: shapes[name] for name in inputs},
        action_names=tuple("abcdef"[: options.pop("actions", 4)]),
        rules_hash="",
    )
    config = NetworkConfig(**{"hidden_dim": 16, **options})
    network = build_network(describe(spec, config, normalise=normalise), generator=torch_generator(1, variant))
    for name in network.description.normalised:
        network.normaliser.update(name, np.random.default_rng(0).normal(2.0, 3.0, (50, 5)))
    return network


def _batch(network: PolicyValueNetwork, seed: int, rows: int = 33) -> MiniBatch:
    row = _draw(seed, rows, len(network.description.action_names))
    rng = np.random.default_rng(seed)
    drawn = {
        "map": torch.from_numpy(rng.integers(0, 3, (rows, 2, 3, 3)).astype(np.uint8)),
        "features": torch.from_numpy(rng.normal(size=(rows, 5)).astype(np.float32)),
    }
    names = {"old_log_probs": "log_probs", "old_values": "values"}
    floats = ("old_log_probs", "advantages", "returns", "old_values", "own")
    allowed = row["mask"].numpy()
    return MiniBatch(
        observations={name: drawn[name] for name in network.description.inputs},
        action_mask=row["mask"],
        columns={
            "actions": row["actions"],
            "labels": torch.from_numpy(allowed.argmax(axis=1)),
            **{names.get(name, name): row[name].float() for name in floats},
        },
        weights=None,
    )


def _moved(network: PolicyValueNetwork, start: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor - start[name] for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "labels": {"bc_weight": 0.5},
    "expert": {"bc_weight": 0.5},
    "value": {"value_only": True},
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_ppo_step_equals_that_of_autograd(variant: str, plan: str) -> None:
    made = UpdatePlan(learning_rate=1e-2, entropy_coef=0.02, **PLANS[plan])
    config, ends, tables = PPOConfig(), [], []
    for handwritten in (True, False):
        network = _network(variant)
        learner = Learner(network, learning_rate=1e-2, compute=ComputeConfig(handwritten=handwritten))
        assert (learner.handwritten is not None) == handwritten
        learner.train_value_only(made.value_only)
        start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        found = []
        for seed in range(3):
            expert = _batch(network, seed + 100, rows=9) if plan == "expert" else None
            found.append(ppo_step(learner, _batch(network, seed), config, plan=made, expert=expert))
        ends.append(_moved(network, start))
        tables.append(torch.stack(found))
    torch.testing.assert_close(tables[0], tables[1], rtol=2e-4, atol=2e-5)
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-3, atol=2e-5, msg=name)
    changed = {name for name, tensor in ends[0].items() if bool(tensor.any())}
    free = {n for n, p in _network(variant).named_parameters()}
    if made.value_only:
        free = {name for name in free if name.startswith("value_")}
    assert changed == free


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cloning_step_equals_that_of_autograd(variant: str, balanced: bool) -> None:
    ends, tables = [], []
    for handwritten in (True, False):
        network = _network(variant)
        learner = Learner(network, learning_rate=1e-2, compute=ComputeConfig(handwritten=handwritten))
        start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        weights = torch.linspace(0.5, 2.0, len(network.description.action_names)) if balanced else None
        found = [
            cloning_step(learner, _batch(network, seed), label_smoothing=0.1, class_weights=weights, value_coef=0.3)
            for seed in range(3)
        ]
        ends.append(_moved(network, start))
        tables.append(torch.stack(found))
    torch.testing.assert_close(tables[0], tables[1], rtol=2e-4, atol=2e-5)
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-3, atol=2e-5, msg=name)


def _gradients(learner: Learner) -> dict[str, Tensor]:
    found = {}
    for name, parameter in learner.network.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.double().clone()
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_in_bf16_are_those_of_float32_within_its_precision(variant: str) -> None:
    """bfloat16 has 8 bits: a gradient's direction is kept to 0.5 %, its length to 3 %."""
    plan, found = UpdatePlan(learning_rate=0.0, entropy_coef=0.02), []
    for bf16 in (False, True):
        network = _network(variant)
        learner = Learner(network, learning_rate=0.0, max_grad_norm=0.0, compute=ComputeConfig(bf16=bf16))
        ppo_step(learner, _batch(network, 0, rows=257), PPOConfig(), plan=plan)
        found.append(torch.cat([gradient.flatten() for gradient in _gradients(learner).values()]))
    cosine = torch.dot(found[0], found[1]) / (found[0].norm() * found[1].norm())
    assert cosine.item() > 0.995
    assert found[1].norm().item() == pytest.approx(found[0].norm().item(), rel=0.03)


def test_in_float64_the_networks_gradients_are_those_of_autograd() -> None:
    for variant in ("contract", "separate", "odd"):
        found = []
        for handwritten in (True, False):
            network = _network(variant).double()
            learner = Learner(network, learning_rate=1e-2, compute=ComputeConfig(handwritten=handwritten))
            batch = _batch(network, 5)
            inputs = {name: rows.double() for name, rows in batch.observations.items()}
            pull = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 33)))
            width = len(network.description.action_names)
            if learner.handwritten is not None:
                learner.handwritten.forward(inputs)
                learner.handwritten.backward(pull[:width], pull[-1])
            else:
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter.grad.zero_()
                latents = {
                    prefix: network.get_submodule(f"{prefix}shared")(
                        torch.cat(
                            [
                                network.get_submodule(f"{prefix}map_encoder")(inputs["map"]),
                                network.get_submodule(f"{prefix}feature_encoder")(inputs["features"]),
                            ],
                            dim=1,
                        )
                    )
                    for prefix in (("", "value_") if network.description.separate_trunks else ("",))
                }
                logits = network.policy_head(latents[""])
                values = network.value_head(latents.get("value_", latents[""])).squeeze(-1)
                ((logits.t() * pull[:width]).sum() + (values * pull[-1]).sum()).backward()
            found.append(_gradients(learner))
        for name, gradient in found[0].items():
            torch.testing.assert_close(gradient, found[1][name], rtol=1e-9, atol=1e-12, msg=f"{variant} {name}")


def test_flat_adam_equals_torchs_own() -> None:
    first, second = (
        torch.nn.ModuleDict({"policy_head": torch.nn.Linear(3, 5), "value_head": torch.nn.Linear(3, 2)})
        for _ in range(2)
    )
    second.load_state_dict(first.state_dict())
    flat = FlatParameters(first, value_only=list(first["value_head"].parameters()))
    ours = FlatAdam(flat, learning_rate=1e-2, eps=1e-5, weight_decay=0.1)
    theirs = torch.optim.AdamW(second.parameters(), lr=1e-2, eps=1e-5, weight_decay=0.1)
    for step in range(6):
        only_value = step in (1, 2)
        for seed, (name, parameter) in enumerate(second.named_parameters()):
            drawn = torch.from_numpy(np.random.default_rng([step, seed]).normal(size=parameter.shape)).float()
            flat.view(name, flat.gradients).copy_(drawn)
            parameter.grad = None if only_value and name.startswith("policy") else drawn
        ours.step(value_only=only_value)
        theirs.step()
    for name, parameter in second.named_parameters():
        torch.testing.assert_close(flat.view(name, flat.values), parameter.detach(), rtol=1e-6, atol=1e-7)
    assert ours.arrays()["policy_head.weight/step"] == 4.0
    assert ours.arrays()["value_head.bias/step"] == 6.0


def test_moments_too_small_to_matter_become_zero_at_the_same_step_after_a_restart() -> None:
    def fresh() -> tuple[FlatParameters, FlatAdam]:
        network = torch.nn.ModuleDict({"policy_head": torch.nn.Linear(3, 5), "value_head": torch.nn.Linear(3, 2)})
        flat = FlatParameters(network, value_only=list(network["value_head"].parameters()))
        return flat, FlatAdam(flat, learning_rate=1e-2, eps=1e-5, weight_decay=0.0)

    def moment(adam: FlatAdam) -> float:
        return float(adam.arrays()["policy_head.weight/exp_avg"].max())

    flat, adam = fresh()
    flat.gradients.fill_(1e-28)
    adam.step()
    assert moment(adam) == pytest.approx(1e-29)
    flat.gradients.zero_()
    for _ in range(39):
        adam.step()
    _, again = fresh()
    for path, array in adam.arrays().items():
        name, _, key = path.rpartition("/")
        assert again.load(name, key, array)
    for one in (adam, again):
        for _ in range(23):
            one.step()
        assert 0.0 < moment(one) < 1e-30
        one.step()  # the 64th
        assert moment(one) == 0.0


def test_parameters_stay_views_and_gaps_stay_zero() -> None:
    network = _network("odd")
    learner = Learner(network, learning_rate=1e-2)
    ppo_step(learner, _batch(network, 0), PPOConfig(), plan=UpdatePlan(learning_rate=1e-2, entropy_coef=0.0))
    learner.load_tensors(learner.tensors(), source="itself")
    flat = learner._flat
    total = sum(float(parameter.detach().double().square().sum()) for parameter in network.parameters())
    assert float(flat.values.double().square().sum()) == pytest.approx(total, rel=1e-12)
    for name, parameter in network.named_parameters():
        assert parameter.data_ptr() == flat.view(name, flat.values).data_ptr()
    with pytest.raises(ValueError, match="no neighbours"):
        flat.together("shared.0.weight", "policy_head.weight", flat.values)


def test_what_is_not_covered_is_left_to_autograd(workshop: Any) -> None:
    for options in ({"recurrent": "gru"}, {"kind": "convolutional"}):
        workshop.use(task="identity", with_map=True)
        network = build_network(describe(workshop.make().spec, NetworkConfig(hidden_dim=8, **options)))
        assert not covers(network.description)
        assert Learner(network, learning_rate=1e-3).handwritten is None


def test_the_loss_that_is_read_is_the_loss_that_is_descended() -> None:
    network = _network("contract")
    learner = Learner(network, learning_rate=0.0)
    plan, batch = UpdatePlan(learning_rate=0.0, entropy_coef=0.02, bc_weight=0.3), _batch(network, 3)
    loss, metrics = ppo_loss(learner, batch, PPOConfig(), plan=plan)
    found = ppo_step(learner, batch, PPOConfig(), plan=plan)
    assert found[3].item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(torch.cat([found[:5], found[6:]]), torch.stack(metrics), rtol=1e-4, atol=1e-6)
