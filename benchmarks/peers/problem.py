"""The work that every contestant is given: sizes, numbers and networks, in plain numpy and torch.

Nothing here is ours: these are the shapes of the contract's network and the usual hyper-parameters of PPO, written
once so that no contestant gets easier work than another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MAP, FEATURES, ACTIONS, HIDDEN = (4, 11, 11), 68, 8, 256
STEPS, SLOTS, EPOCHS, MINI_BATCH = 256, 16, 4, 256
"""Of the update: T, S, passes and rows of a mini-batch."""
LEARNING_RATE, ADAM_EPS = 3e-4, 1e-5
GAMMA, GAE_LAMBDA, CLIP, VALUE_CLIP, VALUE_COEF, ENTROPY_COEF, MAX_GRAD_NORM = 0.99, 0.95, 0.2, 0.2, 0.5, 0.01, 0.5

CLONING_ROWS, CLONING_BATCH, CLONING_RATE = 16_384, 64, 1e-3

TRAJECTORIES, LENGTH = 256, 2048
"""Of the advantages."""

CARTPOLE = "CartPole-v1"
CARTPOLE_ENVS, CARTPOLE_STEPS, CARTPOLE_HIDDEN, CARTPOLE_RATE = 8, 128, 64, 1e-3
CARTPOLE_BATCH = 256
JUDGED_EPISODES = 20


def rollout(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Draw a rollout of T x S transitions, time-major."""
    rng, shape = np.random.default_rng(seed), (STEPS, SLOTS)
    return {
        "map": rng.random((*shape, *MAP), dtype=np.float32),
        "features": rng.random((*shape, FEATURES), dtype=np.float32),
        "actions": rng.integers(0, ACTIONS, shape),
        "rewards": rng.normal(size=shape).astype(np.float32),
        "terminated": rng.random(shape) < 0.01,
        "log_probs": np.full(shape, -math.log(ACTIONS), np.float32),
        "values": rng.normal(size=shape).astype(np.float32),
        "next_values": rng.normal(size=shape).astype(np.float32),
    }


def decisions(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Draw rows to clone."""
    rng = np.random.default_rng(seed)
    return {
        "map": rng.random((CLONING_ROWS, *MAP), dtype=np.float32),
        "features": rng.random((CLONING_ROWS, FEATURES), dtype=np.float32),
        "actions": rng.integers(0, ACTIONS, CLONING_ROWS),
    }


def advantage_columns(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Draw 256 trajectories of 2,048 steps, time-major ``(2048, 256)``."""
    rng, shape = np.random.default_rng(seed), (LENGTH, TRAJECTORIES)
    return {
        **{name: rng.normal(size=shape).astype(np.float32) for name in ("rewards", "values", "next_values")},
        **{name: rng.random(shape) < 0.005 for name in ("terminated", "truncated")},
    }


def dense(inputs: int, outputs: int, gain: float = math.sqrt(2.0)) -> nn.Linear:
    """Make an orthogonal layer."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Trunk(nn.Module):
    """Encoders of map and features, and the shared layer over both: the contract's network without its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.map_encoder = nn.Sequential(nn.Flatten(), dense(math.prod(MAP), HIDDEN), nn.ReLU())
        self.feature_encoder = nn.Sequential(dense(FEATURES, HIDDEN), nn.ReLU())
        self.shared = nn.Sequential(dense(2 * HIDDEN, HIDDEN), nn.ReLU())

    def forward(self, maps: Tensor, features: Tensor) -> Tensor:
        """Return ``(R, 256)``."""
        latent: Tensor = self.shared(torch.cat([self.map_encoder(maps), self.feature_encoder(features)], dim=1))
        return latent


class Network(nn.Module):
    """The contract's network: logits ``(R, 8)`` and values ``(R,)``."""

    def __init__(self, actions: int = ACTIONS, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.trunk = trunk or Trunk()
        self.policy_head, self.value_head = dense(HIDDEN, actions, 0.01), dense(HIDDEN, 1, 1.0)

    def forward(self, maps: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both heads on one trunk."""
        latent = self.trunk(maps, features)
        return self.policy_head(latent), self.value_head(latent).squeeze(-1)


def perceptron(outputs: int, gain: float) -> nn.Sequential:
    """Make CartPole's network of actor or critic: 4-64-64-outputs with ReLU."""
    width = CARTPOLE_HIDDEN
    return nn.Sequential(dense(4, width), nn.ReLU(), dense(width, width), nn.ReLU(), dense(width, outputs, gain))


def cartpole_actor() -> nn.Sequential:
    return perceptron(2, 0.01)


def cartpole_critic() -> nn.Sequential:
    return perceptron(1, 1.0)


def cartpole_env() -> Any:
    """Make an environment, as everyone does; eight of these are stepped one after another."""
    import gymnasium

    return gymnasium.make(CARTPOLE)


def judge(greedy: Callable[[NDArray[np.float32]], NDArray[Any]], *, seed: int) -> float:
    """Mean return of 20 episodes, untimed: ``greedy`` takes ``(R, 4)`` and returns ``(R,)`` actions."""
    environments = [cartpole_env() for _ in range(JUDGED_EPISODES)]
    seen = np.stack([env.reset(seed=100_000 + 1000 * seed + number)[0] for number, env in enumerate(environments)])
    returns, running = np.zeros(JUDGED_EPISODES), np.ones(JUDGED_EPISODES, np.bool_)
    while running.any():
        actions = greedy(seen.astype(np.float32))
        for number in np.flatnonzero(running):
            seen[number], reward, terminated, truncated, _ = environments[number].step(int(actions[number]))
            returns[number] += float(reward)
            running[number] = not (terminated or truncated)
    return float(returns.mean())


def greedy_of(actor: nn.Module) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Take the likeliest action of a network that returns logits."""

    def act(seen: NDArray[np.float32]) -> NDArray[Any]:
        with torch.no_grad():
            chosen: NDArray[Any] = actor(torch.from_numpy(seen)).argmax(dim=-1).numpy()
        return chosen

    return act


def falling(rate: float, total: int) -> Iterator[float]:
    """Yield the step size of each of ``total`` iterations, falling linearly to 0."""
    for done in range(total):
        yield rate * (1.0 - done / total)
