"""skrl: its PPO agent and sequential trainer on CartPole."""

from __future__ import annotations

from typing import Any

import gymnasium
import problem as p
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import Tensor
from worker import Round, serve, threads

torch.set_num_threads(threads())


class Actor(CategoricalMixin, Model):  # type: ignore[misc]  # the library is not installed where types are checked
    """CartPole's actor."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        CategoricalMixin.__init__(self, unnormalized_log_prob=True)
        self.layers = p.cartpole_actor()

    def compute(self, inputs: dict[str, Tensor], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        del role
        return self.layers(inputs["observations"]), {}


class Critic(DeterministicMixin, Model):  # type: ignore[misc]  # see above
    """CartPole's critic."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        DeterministicMixin.__init__(self, clip_actions=False)
        self.layers = p.cartpole_critic()

    def compute(self, inputs: dict[str, Tensor], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        del role
        return self.layers(inputs["observations"]), {}


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    set_seed(seed)
    env = wrap_env(gymnasium.vector.SyncVectorEnv([p.cartpole_env] * p.CARTPOLE_ENVS))
    actor = Actor(env.observation_space, env.action_space)
    config = PPO_CFG(
        rollouts=p.CARTPOLE_STEPS,
        learning_epochs=p.EPOCHS,
        mini_batches=p.CARTPOLE_ENVS * p.CARTPOLE_STEPS // p.CARTPOLE_BATCH,
        discount_factor=p.GAMMA,
        gae_lambda=p.GAE_LAMBDA,
        learning_rate=p.CARTPOLE_RATE,
        # Stepped after every pass: linear in the iterations, as everyone's.
        learning_rate_scheduler=torch.optim.lr_scheduler.LambdaLR,
        learning_rate_scheduler_kwargs={"lr_lambda": lambda done: max(0.0, 1.0 - done // p.EPOCHS / iterations)},
        grad_norm_clip=p.MAX_GRAD_NORM,
        ratio_clip=p.CLIP,
        value_clip=0.0,
        entropy_loss_scale=p.ENTROPY_COEF,
        value_loss_scale=p.VALUE_COEF,
    )
    config.experiment.write_interval = 0
    config.experiment.checkpoint_interval = 0
    agent = PPO(
        models={"policy": actor, "value": Critic(env.observation_space, env.action_space)},
        memory=RandomMemory(memory_size=p.CARTPOLE_STEPS, num_envs=p.CARTPOLE_ENVS, device="cpu"),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device="cpu",
        cfg=config,
    )
    wanted = {
        "timesteps": iterations * p.CARTPOLE_STEPS,
        "disable_progressbar": True,
        "close_environment_at_exit": False,
        "headless": True,
    }
    trainer = SequentialTrainer(env=env, agents=agent, cfg=wanted)
    return Round(work=trainer.train, after=lambda: {"return": p.judge(p.greedy_of(actor.layers), seed=seed)})


if __name__ == "__main__":
    serve({"cartpole": cartpole}, ("skrl", "torch", "numpy", "gymnasium"))
