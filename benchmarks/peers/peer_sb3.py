"""Stable-Baselines3: ``PPO.train`` on a filled rollout buffer, ``PPO.learn`` on CartPole."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import problem as p
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from worker import Round, serve, threads

torch.set_num_threads(threads())

COMMON: dict[str, Any] = {
    "n_epochs": p.EPOCHS,
    "gamma": p.GAMMA,
    "gae_lambda": p.GAE_LAMBDA,
    "clip_range": p.CLIP,
    "ent_coef": p.ENTROPY_COEF,
    "vf_coef": p.VALUE_COEF,
    "max_grad_norm": p.MAX_GRAD_NORM,
    "device": "cpu",
}


class Extractor(BaseFeaturesExtractor):  # type: ignore[misc]  # the library is not installed where types are checked
    """The contract's trunk; policy and value share it, and their heads follow at once (``net_arch=[]``)."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, p.HIDDEN)
        self.trunk = p.Trunk()

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        latent: Tensor = self.trunk(observations["map"], observations["features"])
        return latent


class Still(gymnasium.Env[Any, Any]):
    """Spaces for the buffer; never stepped."""

    observation_space = spaces.Dict(
        {
            "map": spaces.Box(-1.0, 2.0, p.MAP, np.float32),
            "features": spaces.Box(-1.0, 2.0, (p.FEATURES,), np.float32),
        }
    )
    action_space = spaces.Discrete(p.ACTIONS)


def update() -> Round:
    """``compute_returns_and_advantage`` and ``train``; filling the buffer is not timed."""
    arrays = p.rollout()
    model = PPO(
        "MultiInputPolicy",
        DummyVecEnv([Still] * p.SLOTS),
        n_steps=p.STEPS,
        batch_size=p.MINI_BATCH,
        learning_rate=p.LEARNING_RATE,
        clip_range_vf=p.VALUE_CLIP,
        policy_kwargs={"features_extractor_class": Extractor, "net_arch": [], "optimizer_kwargs": {"eps": p.ADAM_EPS}},
        **COMMON,
    )
    model.set_logger(configure(None, []))
    buffer = model.rollout_buffer
    last, dones = torch.from_numpy(arrays["next_values"][-1]), arrays["terminated"][-1]

    def fill() -> None:
        buffer.reset()
        for name in ("map", "features"):
            buffer.observations[name][...] = arrays[name]
        buffer.actions[...] = arrays["actions"][..., None]
        for name in ("rewards", "values", "log_probs"):
            getattr(buffer, name)[...] = arrays[name]
        buffer.episode_starts[1:] = arrays["terminated"][:-1]
        buffer.full, buffer.pos = True, p.STEPS

    def work() -> None:
        buffer.compute_returns_and_advantage(last_values=last, dones=dones)
        model.train()

    return Round(work=work, before=fill)


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    architecture = {"pi": [p.CARTPOLE_HIDDEN] * 2, "vf": [p.CARTPOLE_HIDDEN] * 2}
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([p.cartpole_env] * p.CARTPOLE_ENVS),
        n_steps=p.CARTPOLE_STEPS,
        batch_size=p.CARTPOLE_BATCH,
        learning_rate=lambda left: p.CARTPOLE_RATE * left,
        policy_kwargs={"net_arch": architecture, "activation_fn": nn.ReLU, "optimizer_kwargs": {"eps": p.ADAM_EPS}},
        seed=seed,
        **COMMON,
    )
    model.set_logger(configure(None, []))
    torch.set_num_threads(threads())
    total = iterations * p.CARTPOLE_STEPS * p.CARTPOLE_ENVS
    return Round(
        work=lambda: model.learn(total),
        after=lambda: {"return": p.judge(lambda seen: model.predict(seen, deterministic=True)[0], seed=seed)},
    )


if __name__ == "__main__":
    serve({"update": update, "cartpole": cartpole}, ("stable-baselines3", "torch", "numpy", "gymnasium"))
