"""Tianshou: its PPO's ``update`` on a filled buffer, its trainer on CartPole."""

from __future__ import annotations

from typing import Any

import problem as p
import torch
from gymnasium import spaces
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ModuleWithVectorOutput
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch import Tensor, nn
from worker import Round, serve, threads

torch.set_num_threads(threads())

COMMON: dict[str, Any] = {
    "gamma": p.GAMMA,
    "gae_lambda": p.GAE_LAMBDA,
    "eps_clip": p.CLIP,
    "ent_coef": p.ENTROPY_COEF,
    "vf_coef": p.VALUE_COEF,
    "max_grad_norm": p.MAX_GRAD_NORM,
    "advantage_normalization": True,
    "max_batchsize": 4096,
}


class Encoder(ModuleWithVectorOutput):  # type: ignore[misc]  # the library is not installed where types are checked
    """The contract's trunk; actor and critic share it."""

    def __init__(self) -> None:
        super().__init__(p.HIDDEN)
        self.trunk = p.Trunk()

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        del info
        return self.trunk(torch.as_tensor(obs["map"]), torch.as_tensor(obs["features"])), state


class Layers(ModuleWithVectorOutput):  # type: ignore[misc]  # see above
    """CartPole's hidden layers."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__(p.CARTPOLE_HIDDEN)
        self.layers = layers

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        del info
        return self.layers(torch.as_tensor(obs, dtype=torch.float32)), state


def heads(actor_body: Any, critic_body: Any, actions: int) -> tuple[Any, Any]:
    """Actor and critic with everyone's initial weights in the heads."""
    actor = DiscreteActor(preprocess_net=actor_body, action_shape=actions, softmax_output=False)
    critic = DiscreteCritic(preprocess_net=critic_body)
    for head, gain in ((actor, 0.01), (critic, 1.0)):
        for layer in head.last.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)
    return actor, critic


def update() -> Round:
    """``PPO.update``, which computes values, advantages and four passes; filling the buffer is not timed."""
    arrays = p.rollout()
    encoder = Encoder()
    actor, critic = heads(encoder, encoder, p.ACTIONS)
    policy = DiscreteActorPolicy(actor=actor, action_space=spaces.Discrete(p.ACTIONS))
    algorithm = PPO(
        policy=policy,
        critic=critic,
        optim=AdamOptimizerFactory(lr=p.LEARNING_RATE, eps=p.ADAM_EPS),
        value_clip=True,
        **COMMON,
    )
    buffer = VectorReplayBuffer(p.STEPS * p.SLOTS, p.SLOTS)
    for step in range(p.STEPS):
        following = min(step + 1, p.STEPS - 1)
        buffer.add(
            Batch(
                obs=Batch(map=arrays["map"][step], features=arrays["features"][step]),
                act=arrays["actions"][step],
                rew=arrays["rewards"][step],
                terminated=arrays["terminated"][step],
                truncated=arrays["terminated"][step] & False,
                obs_next=Batch(map=arrays["map"][following], features=arrays["features"][following]),
            )
        )
    algorithm.train()

    def work() -> None:
        with torch.no_grad():
            policy.is_within_training_step = True
        algorithm.update(buffer=buffer, batch_size=p.MINI_BATCH, repeat=p.EPOCHS)

    return Round(work=work)


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    torch.manual_seed(seed)
    envs = DummyVectorEnv([p.cartpole_env] * p.CARTPOLE_ENVS)
    envs.seed(seed)
    actor_layers, critic_layers = p.cartpole_actor()[:-1], p.cartpole_critic()[:-1]
    actor, critic = heads(Layers(actor_layers), Layers(critic_layers), 2)
    frames = p.CARTPOLE_ENVS * p.CARTPOLE_STEPS
    rate = AdamOptimizerFactory(lr=p.CARTPOLE_RATE, eps=p.ADAM_EPS).with_lr_scheduler_factory(
        LRSchedulerFactoryLinear(1, frames * iterations, frames)
    )
    policy = DiscreteActorPolicy(actor=actor, action_space=spaces.Discrete(2))
    algorithm = PPO(policy=policy, critic=critic, optim=rate, value_clip=False, **COMMON)
    collector = Collector(algorithm, envs, VectorReplayBuffer(frames, p.CARTPOLE_ENVS))
    wanted = OnPolicyTrainerParams(
        training_collector=collector,
        test_collector=None,
        max_epochs=1,
        epoch_num_steps=frames * iterations,
        collection_step_num_env_steps=frames,
        batch_size=p.CARTPOLE_BATCH,
        update_step_num_repetitions=p.EPOCHS,
        show_progress=False,
        verbose=False,
    )
    network = nn.Sequential(actor_layers, actor.last)
    return Round(
        work=lambda: algorithm.run_training(wanted),
        after=lambda: {"return": p.judge(p.greedy_of(network), seed=seed)},
    )


if __name__ == "__main__":
    serve({"update": update, "cartpole": cartpole}, ("tianshou", "torch", "numpy", "gymnasium"))
