"""The quick forward pass for acting equals the network's, follows the learner, and hands out what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.config.models import NetworkConfig
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_torch.acting import DenseForward
from townlet_training_torch.learner import Learner
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.seeding import torch_generator

VARIANTS: dict[str, dict[str, Any]] = {
    "contract": {},
    "separate": {"separate_trunks": True},
    "normalised": {"normalise": True},
}


def _network(workshop: Any, variant: str, *, hidden: int = 16) -> PolicyValueNetwork:
    options = dict(VARIANTS[variant])
    normalise = options.pop("normalise", False)
    workshop.use(task="masked", with_map=True)
    description = describe(workshop.make().spec, NetworkConfig(hidden_dim=hidden, **options), normalise=normalise)
    network = build_network(description, generator=torch_generator(2, variant))
    for name in description.normalised:
        network.normaliser.update(name, np.random.default_rng(0).normal(1.0, 2.0, (40, 5)))
    return network


def _observations(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "map": rng.integers(0, 3, (rows, 2, 3, 3)).astype(np.uint8),
        "features": rng.normal(size=(rows, 5)).astype(np.float32),
        ACTION_MASK: np.ones((rows, 4), np.bool_),
    }


def _by_module(network: PolicyValueNetwork, observations: dict[str, Any]) -> tuple[Any, Any]:
    with torch.no_grad():
        inputs = {name: torch.from_numpy(observations[name]) for name in network.description.inputs}
        output = network(inputs)
    return output.logits.numpy(), output.values.numpy()


@pytest.mark.parametrize("rows", [1, 6, 600])  # numpy multiplies few rows, torch many
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_the_networks(workshop: Any, variant: str, rows: int) -> None:
    network, observations = _network(workshop, variant), _observations(rows)
    logits, values = DenseForward(network, rows=rows)(observations)
    expected = _by_module(network, observations)
    np.testing.assert_allclose(logits, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [6, 600])
def test_weights_are_those_that_a_learner_changes(workshop: Any, rows: int) -> None:
    network, observations = _network(workshop, "contract"), _observations(rows)
    forward = DenseForward(network, rows=rows)
    before = forward(observations)[0].copy()
    learner = Learner(network, learning_rate=1e-3)  # moves the parameters into one tensor
    with torch.no_grad():
        network.get_parameter("shared.0.weight").mul_(2.0)
    after = forward(observations)[0].copy()
    np.testing.assert_allclose(after, _by_module(network, observations)[0], rtol=1e-5, atol=1e-6)
    assert np.abs(after - before).max() > 1e-4
    network.get_parameter("policy_head.bias").data.add_(1.0)
    np.testing.assert_allclose(forward(observations)[0], after + 1.0, rtol=1e-5, atol=1e-5)
    assert learner.handwritten is not None


@pytest.mark.parametrize("num_envs", [3, 300])
def test_a_rollout_equals_that_of_the_network_as_a_module(workshop: Any, num_envs: int) -> None:
    network, found = _network(workshop, "contract"), []
    for quick in (True, False):
        policy = TorchPolicy(network)
        if not quick:
            policy._dense_for = lambda observations: None  # type: ignore[method-assign]
        found.append(RolloutCollector(workshop.make(num_envs), policy, steps=7, seed=3).collect())
    np.testing.assert_array_equal(found[0].actions, found[1].actions)
    for name in ("log_probs", "values", "next_values"):
        np.testing.assert_allclose(getattr(found[0], name), getattr(found[1], name), rtol=1e-4, atol=1e-6)


def test_decisions_stay_when_the_policy_acts_again(workshop: Any) -> None:
    network = _network(workshop, "contract")
    policy = TorchPolicy(network)
    policy.bind(workshop.make(6))
    first = policy.act(_observations(6), np.random.default_rng(0))
    values = policy.values(_observations(6))
    assert first.values is not None
    kept = first.values.copy()
    other = _observations(6)
    other["features"] += 1.0
    policy.act(other, np.random.default_rng(0))
    np.testing.assert_array_equal(first.values, kept)
    np.testing.assert_array_equal(values, kept)
