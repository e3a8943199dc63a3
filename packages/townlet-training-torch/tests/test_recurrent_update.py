"""Recurrent policies: sequences of one step are rows, and an update equals a reference written step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.config.requests import PPORequest
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.streams import generator, stream_seed
from townlet_training_torch.checkpoint import read_snapshot
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.seeding import torch_generator


@pytest.mark.parametrize("variant", ["gru", "lstm"])
@pytest.mark.parametrize("remembers", [False, True])
def test_a_sequence_of_length_one_is_one_step(workshop: Any, variant: str, remembers: bool) -> None:
    config = workshop.config(network={"recurrent": variant, "hidden_dim": 8})
    network = build_network(
        describe(workshop.toy(5, task="masked").spec, config.network), generator=torch_generator(0, "one")
    )
    rng = np.random.default_rng(1)
    seen = {
        "features": torch.from_numpy(rng.normal(size=(5, 5)).astype(np.float32)),
        ACTION_MASK: torch.from_numpy(rng.random((5, 4)) < 0.7) | torch.eye(5, 4, dtype=torch.bool),
    }
    seen[ACTION_MASK][4, 0] = True
    memory = {name: torch.from_numpy(rng.normal(size=(5, 8)).astype(np.float32)) for name in network.initial_memory(5)}
    starts = torch.full((1, 5), not remembers)
    before = memory if remembers else network.initial_memory(5)
    step = network(seen, seen[ACTION_MASK], before)
    lifted = {name: array.unsqueeze(0) for name, array in seen.items()}
    sequence = network.forward_sequence(lifted, lifted[ACTION_MASK], memory, starts)
    torch.testing.assert_close(sequence.logits[0], step.logits)
    torch.testing.assert_close(sequence.values[0], step.values)
    for name, array in step.memory.items():
        torch.testing.assert_close(sequence.memory[name], array)


@pytest.mark.parametrize("length", [1, 5, 16])
@pytest.mark.parametrize("variant", ["gru", "lstm"])
def test_a_recurrent_update_equals_a_reference_written_step_by_step(workshop: Any, variant: str, length: int) -> None:
    workshop.use(task="masked", agents=2, ticks=7)  # episodes begin inside sequences
    ppo = {"num_epochs": 2, "learning_rate": 2e-3, "iterations": 1, "sequence_length": length, "mini_batch_size": 48}
    config = workshop.config(ppo=ppo, network={"recurrent": variant})
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    trained = read_snapshot(context.run.path / str(result.checkpoint)).tensors

    simulation, settings = workshop.make(num_envs=6), config.ppo
    network = build_network(
        describe(simulation.spec, config.network), generator=torch_generator(config.seed, "network"), orthogonal=True
    )
    rollout = RolloutCollector(
        simulation, TorchPolicy(network), steps=16, seed=stream_seed(config.seed, "rollout")
    ).collect()
    steps, slots = rollout.rewards.shape
    advantages = _advantages(rollout, settings)
    features = torch.from_numpy(rollout.observations["features"].copy())
    masks = torch.from_numpy(np.array(rollout.action_mask))

    def play(slot: int, first: int, last: int, memory: dict[str, torch.Tensor]) -> tuple[Any, Any, Any]:
        logits, values = [], []
        for step in range(first, last):
            if rollout.episode_starts[step, slot]:
                memory = {name: torch.zeros_like(array) for name, array in memory.items()}
            output = network({"features": features[step, slot : slot + 1]}, masks[step, slot : slot + 1], memory)
            memory = output.memory
            logits.append(output.logits[0])
            values.append(output.values[0])
        return torch.stack(logits), torch.stack(values), memory

    with torch.no_grad():  # what the acting policy remembered before each sequence
        kept: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
        for slot in range(slots):
            memory = network.initial_memory(1)
            for first in range(0, steps, length):
                kept[first, slot] = memory
                memory = play(slot, first, min(first + length, steps), memory)[2]
    sequences = [(first, slot) for first in range(0, steps, length) for slot in range(slots)]
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, eps=settings.adam_eps)
    stream = generator(config.seed, "minibatches")
    for _ in range(settings.num_epochs):
        parts = -(-len(sequences) // max(1, 48 // length))
        for part in np.array_split(stream.permutation(len(sequences)), parts):
            pieces: list[tuple[Any, Any, int, int, int]] = []
            for number in part:
                first, slot = sequences[number]
                last = min(first + length, steps)
                logits, values, _ = play(slot, first, last, kept[first, slot])
                pieces.append((logits, values, first, last, slot))
            loss = _loss(rollout, advantages, pieces, settings)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            optimizer.step()
    for name, tensor in network.state_dict().items():
        np.testing.assert_allclose(trained[name], tensor.numpy(), atol=1e-6, rtol=1e-5, err_msg=name)


def _advantages(rollout: Any, settings: Any) -> Any:
    found = np.zeros(rollout.rewards.shape, np.float32)
    for slot in range(found.shape[1]):
        running = 0.0
        for step in reversed(range(found.shape[0])):
            go_on = not (rollout.terminated[step, slot] or rollout.truncated[step, slot])
            bootstrap = 0.0 if rollout.terminated[step, slot] else float(rollout.next_values[step, slot])
            delta = float(rollout.rewards[step, slot]) + settings.gamma * bootstrap - float(rollout.values[step, slot])
            running = delta + (settings.gamma * settings.gae_lambda * running if go_on else 0.0)
            found[step, slot] = running
    return found


def _loss(rollout: Any, advantages: Any, pieces: Any, settings: Any) -> torch.Tensor:
    def column(array: Any) -> torch.Tensor:
        return torch.cat([torch.from_numpy(array[first:last, slot].copy()) for _, _, first, last, slot in pieces])

    logits, values = torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])
    old, old_values, adv = column(rollout.log_probs), column(rollout.values), column(advantages)
    returns = adv + old_values
    distribution: Any = torch.distributions.Categorical(logits=logits, validate_args=False)
    ratio = (distribution.log_prob(column(rollout.actions)) - old).exp()
    adv = (adv - adv.mean()) / (adv.std(unbiased=False) + 1e-8)
    surrogate = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
    near = old_values + (values - old_values).clamp(-0.2, 0.2)
    value = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
    loss: torch.Tensor = (
        surrogate + settings.value_loss_coef * value - settings.entropy_coef * distribution.entropy().mean()
    )
    return loss
