"""TorchRL: GAE and ``ClipPPOLoss`` over a replay buffer, as its own PPO examples are written."""

from __future__ import annotations

from typing import Any

import gymnasium
import problem as p
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import GymWrapper
from torchrl.modules import ActorValueOperator, OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from torchrl.objectives.value.functional import generalized_advantage_estimate, vec_generalized_advantage_estimate
from worker import Round, serve, threads

torch.set_num_threads(threads())


def loss_of(actor: Any, critic: Any, *, value_clip: float | None) -> Any:
    """Make the clipped loss with everyone's coefficients."""
    return ClipPPOLoss(
        actor_network=actor,
        critic_network=critic,
        clip_epsilon=p.CLIP,
        loss_critic_type="l2",
        entropy_coeff=p.ENTROPY_COEF,
        critic_coeff=p.VALUE_COEF,
        normalize_advantage=True,
        clip_value=value_clip,
    )


def passes(data: Any, loss: Any, buffer: Any, optimizer: torch.optim.Optimizer) -> None:
    """Four passes over flat rows in mini-batches drawn without replacement."""
    for _ in range(p.EPOCHS):
        buffer.extend(data)
        for batch in buffer:
            optimizer.zero_grad(set_to_none=True)
            found = loss(batch)
            total = found["loss_objective"] + found["loss_entropy"] + found["loss_critic"]
            total.backward()
            nn.utils.clip_grad_norm_(loss.parameters(), p.MAX_GRAD_NORM)
            optimizer.step()


def rows_buffer(rows: int, batch: int) -> Any:
    return TensorDictReplayBuffer(
        storage=LazyTensorStorage(rows), sampler=SamplerWithoutReplacement(drop_last=True), batch_size=batch
    )


def update() -> Round:
    """Update alone, advantages included; values are given, so no forward pass is spent on them."""
    arrays = {name: torch.from_numpy(array) for name, array in p.rollout().items()}
    network = p.Network()
    operator = ActorValueOperator(
        TensorDictModule(network.trunk, in_keys=["map", "features"], out_keys=["hidden"]),
        ProbabilisticActor(
            TensorDictModule(network.policy_head, in_keys=["hidden"], out_keys=["logits"]),
            in_keys=["logits"],
            distribution_class=torch.distributions.Categorical,
            return_log_prob=True,
        ),
        ValueOperator(network.value_head, in_keys=["hidden"]),
    )
    loss = loss_of(operator.get_policy_operator(), operator.get_value_operator(), value_clip=p.VALUE_CLIP)
    optimizer = torch.optim.Adam(loss.parameters(), lr=p.LEARNING_RATE, eps=p.ADAM_EPS)
    estimator = GAE(gamma=p.GAMMA, lmbda=p.GAE_LAMBDA, value_network=None)
    buffer = rows_buffer(p.STEPS * p.SLOTS, p.MINI_BATCH)

    def column(name: str) -> Any:
        return arrays[name].transpose(0, 1).unsqueeze(-1).contiguous()

    data = TensorDict(
        {
            "map": arrays["map"].transpose(0, 1).contiguous(),
            "features": arrays["features"].transpose(0, 1).contiguous(),
            "action": arrays["actions"].transpose(0, 1).contiguous(),
            "action_log_prob": arrays["log_probs"].transpose(0, 1).contiguous(),
            "state_value": column("values"),
            "next": {
                "state_value": column("next_values"),
                "reward": column("rewards"),
                "done": column("terminated"),
                "terminated": column("terminated"),
            },
        },
        batch_size=[p.SLOTS, p.STEPS],
    )
    kept = ("map", "features", "action", "action_log_prob", "state_value", "advantage", "value_target")

    def work() -> None:
        found = estimator(data.clone(recurse=False))
        passes(found.select(*kept).reshape(-1), loss, buffer, optimizer)

    return Round(work=work)


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    torch.manual_seed(seed)
    actor, critic = p.cartpole_actor(), p.cartpole_critic()
    mode = gymnasium.vector.AutoresetMode.DISABLED
    env = GymWrapper(
        gymnasium.vector.SyncVectorEnv([p.cartpole_env] * p.CARTPOLE_ENVS, autoreset_mode=mode), device="cpu"
    )
    env.set_seed(seed)
    policy = ProbabilisticActor(
        TensorDictModule(actor, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )
    value = ValueOperator(critic, in_keys=["observation"])
    loss = loss_of(policy, value, value_clip=None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=p.CARTPOLE_RATE, eps=p.ADAM_EPS)
    estimator = GAE(gamma=p.GAMMA, lmbda=p.GAE_LAMBDA, value_network=value)
    frames = p.CARTPOLE_ENVS * p.CARTPOLE_STEPS
    buffer = rows_buffer(frames, p.CARTPOLE_BATCH)
    collector = Collector(
        env, policy, frames_per_batch=frames, total_frames=frames * iterations, device="cpu", max_frames_per_traj=-1
    )

    def work() -> None:
        for rate, data in zip(p.falling(p.CARTPOLE_RATE, iterations), collector, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            with torch.no_grad():
                estimator(data)
            passes(data.reshape(-1), loss, buffer, optimizer)

    return Round(work=work, after=lambda: {"return": p.judge(p.greedy_of(actor), seed=seed)})


def advantages(vectorised: bool) -> Round:
    """``(256, 2048, 1)``, by its vectorised way and by its loop."""
    columns = {
        name: torch.from_numpy(array).transpose(0, 1).unsqueeze(-1).contiguous()
        for name, array in p.advantage_columns().items()
    }
    done = columns["terminated"] | columns["truncated"]
    compute = vec_generalized_advantage_estimate if vectorised else generalized_advantage_estimate

    def work() -> None:
        compute(
            p.GAMMA,
            p.GAE_LAMBDA,
            columns["values"],
            columns["next_values"],
            columns["rewards"],
            done,
            columns["terminated"],
        )

    return Round(work=work)


if __name__ == "__main__":
    serve(
        {"update": update, "cartpole": cartpole, "advantages": advantages},
        ("torchrl", "tensordict", "torch", "numpy", "gymnasium"),
    )
