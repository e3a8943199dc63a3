"""BC and PPO: the update alone, cloning, advantages; beside loops as they are usually written.

The peers here are loops in the style of CleanRL and of a ``DataLoader``, written out below, on the same network and
data in the same process, in alternation. Libraries with environments of their own live under ``benchmarks/peers``;
one that is not installed there is skipped and said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import Report, alternate
from torch.utils.data import DataLoader, TensorDataset

from townlet_training_core.arrays import ArraySpec, RolloutArrays
from townlet_training_core.config.models import NetworkConfig, PPOConfig
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_torch.advantages import gae
from townlet_training_torch.experience import estimate_advantages
from townlet_training_torch.learner import Learner
from townlet_training_torch.losses import cloning_loss
from townlet_training_torch.minibatches import Rows, deal, rows_of
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.ppo import ppo_loss
from townlet_training_torch.seeding import torch_generator
from townlet_training_torch.sources import UpdatePlan

THREADS = 2
STEPS, SLOTS, EPOCHS, MINI_BATCH = 256, 16, 4, 256
PEERS = ("stable-baselines3", "torchrl", "tianshou", "imitation")


def spec() -> EnvironmentSpec:
    """Return the spaces of the contract: map (4, 11, 11), 68 features, 8 actions."""
    return EnvironmentSpec(
        name="bench-v1",
        num_envs=SLOTS,
        agents_per_env=1,
        observations={
            "map": ArraySpec((4, 11, 11), np.dtype(np.float32)),
            "features": ArraySpec((68,), np.dtype(np.float32)),
        },
        action_names=tuple(f"action_{number}" for number in range(8)),
        rules_hash="bench",
    )


def network() -> PolicyValueNetwork:
    """Make the contract's network."""
    return build_network(describe(spec(), NetworkConfig()), generator=torch_generator(0, "bench"))


def rollout(rng: np.random.Generator) -> RolloutArrays:
    """Draw a rollout of 16 x 256 transitions."""
    shape = (STEPS, SLOTS)
    ended = rng.random(shape) < 0.01
    return RolloutArrays(
        observations={
            "map": rng.random((*shape, 4, 11, 11), dtype=np.float32),
            "features": rng.random((*shape, 68), dtype=np.float32),
        },
        actions=rng.integers(0, 8, shape),
        valid=np.ones(shape, np.bool_),
        rewards=rng.normal(size=shape).astype(np.float32),
        terminated=ended,
        truncated=np.zeros(shape, np.bool_),
        episode_starts=np.zeros(shape, np.bool_),
        log_probs=np.full(shape, -np.log(8.0), np.float32),
        values=rng.normal(size=shape).astype(np.float32),
        next_values=rng.normal(size=shape).astype(np.float32),
    )


def our_update(learner: Learner, arrays: RolloutArrays, config: PPOConfig, rng: np.random.Generator) -> None:
    """Compute advantages and update: what PPOStrategy does after a capture."""
    found = estimate_advantages(
        arrays, gamma=config.gamma, gae_lambda=config.gae_lambda, reward_scale=1.0, dataset="bench", batch=0
    )
    columns = {
        "advantages": found.advantages,
        "returns": found.returns,
        "log_probs": np.asarray(arrays.log_probs),
        "values": np.asarray(arrays.values),
    }
    rows = rows_of(arrays, columns, inputs=("map", "features"), device=torch.device("cpu"))
    plan = UpdatePlan(learning_rate=config.learning_rate, entropy_coef=config.entropy_coef)
    table = []
    for _ in range(EPOCHS):
        for units in deal(rows, MINI_BATCH, rng):
            loss, metrics = ppo_loss(learner, rows.gather(units), config, plan=plan)
            norm = learner.step(loss)
            learner.apply()
            table.append(torch.stack([*metrics, norm]))
    torch.stack(table).numpy()


def cleanrl_update(
    net: PolicyValueNetwork, optimizer: torch.optim.Optimizer, arrays: RolloutArrays, config: PPOConfig
) -> None:
    """Update as CleanRL's ppo.py does, on tensors: same network, same hyper-parameters."""
    maps, features, actions, old, values, rewards, dones = (
        torch.from_numpy(np.asarray(array))
        for array in (
            arrays.observations["map"],
            arrays.observations["features"],
            arrays.actions,
            arrays.log_probs,
            arrays.values,
            arrays.rewards,
            arrays.terminated.astype(np.float32),
        )
    )
    next_value, next_done = torch.from_numpy(np.asarray(arrays.next_values)[-1]), dones[-1]
    with torch.no_grad():
        advantages, last = torch.zeros_like(rewards), torch.zeros(SLOTS)
        for step in reversed(range(STEPS)):
            nonterminal = 1.0 - (next_done if step == STEPS - 1 else dones[step + 1])
            following = next_value if step == STEPS - 1 else values[step + 1]
            delta = rewards[step] + config.gamma * following * nonterminal - values[step]
            advantages[step] = last = delta + config.gamma * config.gae_lambda * nonterminal * last
        returns = advantages + values
    flat = [
        array.reshape(STEPS * SLOTS, *array.shape[2:])
        for array in (maps, features, actions, old, values, advantages, returns)
    ]
    indices, clip_fractions = np.arange(STEPS * SLOTS), []
    for _ in range(EPOCHS):
        np.random.shuffle(indices)  # noqa: NPY002  # as CleanRL does
        for start in range(0, STEPS * SLOTS, MINI_BATCH):
            chosen = indices[start : start + MINI_BATCH]
            b_maps, b_features, b_actions, b_old, b_values, b_advantages, b_returns = (array[chosen] for array in flat)
            logits, new_values, _ = net({"map": b_maps, "features": b_features})
            distribution: Any = torch.distributions.Categorical(logits=logits)
            log_ratio = distribution.log_prob(b_actions) - b_old
            ratio = log_ratio.exp()
            with torch.no_grad():
                ((ratio - 1) - log_ratio).mean()
                clip_fractions += [((ratio - 1.0).abs() > config.clip_param).float().mean().item()]
            b_advantages = (b_advantages - b_advantages.mean()) / (b_advantages.std() + 1e-8)
            clipped = torch.clamp(ratio, 1 - config.clip_param, 1 + config.clip_param)
            policy = torch.max(-b_advantages * ratio, -b_advantages * clipped).mean()
            near = b_values + torch.clamp(new_values - b_values, -config.value_clip, config.value_clip)
            value = 0.5 * torch.max((new_values - b_returns) ** 2, (near - b_returns) ** 2).mean()
            loss = policy - config.entropy_coef * distribution.entropy().mean() + value * config.value_loss_coef
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
            optimizer.step()


def bench_update(report: Report) -> None:
    """Measure the update alone."""
    config, arrays, rng = PPOConfig(), rollout(np.random.default_rng(0)), np.random.default_rng(1)
    learner = Learner(network(), learning_rate=config.learning_rate)
    peer = network()
    optimizer = torch.optim.Adam(peer.parameters(), lr=config.learning_rate, eps=1e-5)
    ours, theirs = alternate(
        [lambda: our_update(learner, arrays, config, rng), lambda: cleanrl_update(peer, optimizer, arrays, config)]
    )
    rows = STEPS * SLOTS * EPOCHS
    report.add(
        "update.fp32",
        value=rows / ours,
        unit="rows/s",
        peer="CleanRL-style loop",
        peer_value=rows / theirs,
        bound=1.4,
        note="16 x 256 transitions, 4 epochs, mini-batches of 256, advantages included",
    )
    left, right = torch.randn(MINI_BATCH, 484), torch.randn(484, 256)
    (seconds,) = alternate([lambda: [left @ right for _ in range(200)]])
    flops = 200 * 2 * MINI_BATCH * 484 * 256 / seconds
    weights = (484 + 68 + 512 + 8 + 1) * 256
    needed = 2 * (2 * weights + (512 + 9) * 256)  # forward, weight gradients, and input gradients above the encoders
    report.add(
        "update.share_of_matrix_product_limit",
        value=rows / ours / (flops / needed),
        unit="share",
        bound=0.5,
        note=f"matrix products of this shape: {flops / 1e9:.0f} GFLOP/s",
    )


def bench_cloning(report: Report) -> None:
    """Measure behaviour cloning."""
    rng = np.random.default_rng(0)
    arrays = rollout(rng)
    rows: Rows = rows_of(arrays, {}, inputs=("map", "features"), device=torch.device("cpu"))
    learner, peer = Learner(network(), learning_rate=1e-3), network()
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-3)
    data = TensorDataset(rows.observations["map"], rows.observations["features"], rows.columns["actions"])

    def ours() -> None:
        for units in deal(rows, 64, rng):
            batch = rows.gather(units)
            loss = cloning_loss(torch.log_softmax(learner.forward(batch).logits, dim=-1), batch["actions"])
            learner.step(loss)
            learner.apply()

    def theirs() -> None:
        for maps, features, actions in DataLoader(data, batch_size=64, shuffle=True):
            logits, _, _ = peer({"map": maps, "features": features})
            loss = torch.nn.functional.cross_entropy(logits, actions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
            optimizer.step()

    our_seconds, their_seconds = alternate([ours, theirs])
    report.add(
        "bc.fp32",
        value=STEPS * SLOTS / our_seconds,
        unit="rows/s",
        peer="DataLoader loop",
        peer_value=STEPS * SLOTS / their_seconds,
        bound=1.4,
        note="mini-batches of 64",
    )


def bench_advantages(report: Report) -> None:
    """Measure advantages of 256 trajectories of 2,048 steps."""
    shape, rng = (2048, 256), np.random.default_rng(0)
    rewards, values, following = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    terminated, truncated = rng.random(shape) < 0.005, rng.random(shape) < 0.005
    tensors = [torch.from_numpy(array) for array in (rewards, values, terminated.astype(np.float32))]

    def ours() -> None:
        gae(rewards, values, following, terminated=terminated, truncated=truncated, gamma=0.99, gae_lambda=0.95)

    def theirs() -> None:
        reward, value, done = tensors
        advantages, last = torch.zeros_like(reward), torch.zeros(shape[1])
        for step in reversed(range(shape[0] - 1)):
            nonterminal = 1.0 - done[step + 1]
            delta = reward[step] + 0.99 * value[step + 1] * nonterminal - value[step]
            advantages[step] = last = delta + 0.99 * 0.95 * nonterminal * last

    our_seconds, their_seconds = alternate([ours, theirs])
    report.add(
        "gae.cpu",
        value=1000 * our_seconds,
        unit="ms",
        peer="CleanRL's loop",
        peer_value=1000 * their_seconds,
        bound=1 / 5,
        better="lower",
        note="256 trajectories of 2,048 steps; ours also tells truncation from termination",
    )


def main() -> None:
    """Measure and write ``results/train.json``."""
    torch.set_num_threads(THREADS)
    report = Report("train", threads=THREADS)
    bench_update(report)
    bench_cloning(report)
    bench_advantages(report)
    folder = Path(__file__).with_name("peers")
    for peer in PEERS:
        if not (folder / peer / ".venv").is_dir():
            print(f"train: {peer}: skipped, not installed under benchmarks/peers")
    report.write()


if __name__ == "__main__":
    main()
