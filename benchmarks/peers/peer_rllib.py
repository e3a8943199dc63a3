"""RLlib: its PPO with a local learner and local environments on CartPole."""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import logging

import gymnasium
import problem as p
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from torch import Tensor, nn
from worker import Round, serve, threads

torch.set_num_threads(threads())


class Logits(nn.Module):
    """The trained module, as a function of observations alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, seen: Tensor) -> Tensor:
        found: Tensor = self.module.forward_inference({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]  # type: ignore[operator]
        return found


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch; without actors, since two cores gain nothing from processes that wait."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    frames = p.CARTPOLE_ENVS * p.CARTPOLE_STEPS
    config = (
        PPOConfig()
        .environment(p.CARTPOLE)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=p.CARTPOLE_ENVS,
            rollout_fragment_length=p.CARTPOLE_STEPS,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.SYNC,
        )
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=frames,
            minibatch_size=p.CARTPOLE_BATCH,
            num_epochs=p.EPOCHS,
            lr=[[0, p.CARTPOLE_RATE], [frames * iterations, 0.0]],
            gamma=p.GAMMA,
            lambda_=p.GAE_LAMBDA,
            clip_param=p.CLIP,
            vf_clip_param=float("inf"),
            vf_loss_coeff=p.VALUE_COEF,
            entropy_coeff=p.ENTROPY_COEF,
            grad_clip=p.MAX_GRAD_NORM,
            use_kl_loss=False,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[p.CARTPOLE_HIDDEN] * 2, fcnet_activation="relu", vf_share_layers=False
            )
        )
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm = config.build_algo()
    torch.set_num_threads(threads())

    def work() -> None:
        for _ in range(iterations):
            algorithm.train()

    def after() -> dict[str, float]:
        module = algorithm.get_module(DEFAULT_MODULE_ID)
        found = p.judge(p.greedy_of(Logits(module)), seed=seed)
        algorithm.stop()
        ray.shutdown()  # its daemons would take time from the others' rounds
        return {"return": found}

    return Round(work=work, after=after)


if __name__ == "__main__":
    serve({"cartpole": cartpole}, ("ray", "torch", "numpy", "gymnasium"))
