"""Our side: what the strategies call, on the same problem."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import problem as p
import torch
from worker import Round, serve, threads

from townlet_sim import make_simulation
from townlet_training_core.arrays import ACTION_MASK, ArraySpec, RolloutArrays
from townlet_training_core.config.models import (
    BCTrainingSettings,
    CheckpointConfig,
    ComputeConfig,
    NetworkConfig,
    PPOConfig,
    SimulationChoice,
    TrainingConfig,
)
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation import gymnasium as environments
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_core.streams import generator
from townlet_training_torch.advantages import gae
from townlet_training_torch.cloning import train_epoch
from townlet_training_torch.experience import estimate_advantages
from townlet_training_torch.learner import Learner
from townlet_training_torch.minibatches import rows_of
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.seeding import torch_generator
from townlet_training_torch.sources import Harvest, UpdatePlan

torch.set_num_threads(threads())

PPO: dict[str, Any] = {
    "num_epochs": p.EPOCHS,
    "num_mini_batches": None,
    "gamma": p.GAMMA,
    "gae_lambda": p.GAE_LAMBDA,
    "clip_param": p.CLIP,
    "value_loss_coef": p.VALUE_COEF,
    "entropy_coef": p.ENTROPY_COEF,
    "max_grad_norm": p.MAX_GRAD_NORM,
    "adam_eps": p.ADAM_EPS,
}
SPACES = {
    "map": ArraySpec(p.MAP, np.dtype(np.float32)),
    "features": ArraySpec((p.FEATURES,), np.dtype(np.float32)),
}
CPU = torch.device("cpu")


def learner_of(rate: float, compute: ComputeConfig) -> Learner:
    """Make the contract's network and its learner."""
    spec = EnvironmentSpec(
        name="bench-v1",
        num_envs=p.SLOTS,
        agents_per_env=1,
        observations=SPACES,
        action_names=tuple(f"action_{number}" for number in range(p.ACTIONS)),
        rules_hash="bench",
    )
    network = build_network(describe(spec, NetworkConfig()), generator=torch_generator(0, "bench"))
    return Learner(network, learning_rate=rate, eps=p.ADAM_EPS, max_grad_norm=p.MAX_GRAD_NORM, compute=compute)


def session_of(learner: Learner, *, ppo: PPOConfig | None = None, bc: BCTrainingSettings | None = None) -> Any:
    """As much of a session as an update or an epoch looks at."""
    config = SimpleNamespace(ppo=ppo, training=SimpleNamespace(bc=bc))
    return SimpleNamespace(
        context=SimpleNamespace(config=config),
        learner=learner,
        streams={"minibatches": np.random.default_rng(1)},
        check_stop=lambda: None,
    )


def update(**compute: bool) -> Round:
    """Advantages, rows and passes, as :class:`PPOStrategy` does them after a capture."""
    drawn = p.rollout()
    config = PPOConfig(**PPO, value_clip=p.VALUE_CLIP, mini_batch_size=p.MINI_BATCH, learning_rate=p.LEARNING_RATE)
    nothing = np.zeros((p.STEPS, p.SLOTS), np.bool_)
    arrays = RolloutArrays(
        observations={name: drawn[name] for name in SPACES},
        actions=drawn["actions"],
        rewards=drawn["rewards"],
        terminated=drawn["terminated"],
        log_probs=drawn["log_probs"],
        values=drawn["values"],
        next_values=drawn["next_values"],
        valid=~nothing,
        truncated=nothing,
        episode_starts=nothing,
    )
    session = session_of(learner_of(p.LEARNING_RATE, ComputeConfig(**compute)), ppo=config)
    plan = UpdatePlan(learning_rate=p.LEARNING_RATE, entropy_coef=p.ENTROPY_COEF)
    source: Any = SimpleNamespace()
    strategy = PPOStrategy()

    def work() -> None:
        found = estimate_advantages(
            arrays, gamma=p.GAMMA, gae_lambda=p.GAE_LAMBDA, reward_scale=1.0, dataset="bench", batch=0
        )
        columns = {name: drawn[name] for name in ("log_probs", "values", "rewards")}
        columns |= {"advantages": found.advantages, "returns": found.returns}
        rows = rows_of(arrays, columns, inputs=tuple(SPACES), device=CPU)
        harvest = Harvest(rows=rows, size=p.MINI_BATCH, summary={}, health={})
        strategy._update(session, source, harvest, plan)

    return Round(work=work)


def products() -> Round:
    """Compute the matrix products of the update and nothing else: what no update can be faster than."""

    def shapes(inputs: int, outputs: int, *, upwards: bool) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        rows, weights, errors = (
            torch.randn(p.MINI_BATCH, inputs),
            torch.randn(inputs, outputs),
            torch.randn(p.MINI_BATCH, outputs),
        )
        found = [(rows, weights, torch.empty_like(errors)), (rows.T, errors, torch.empty_like(weights))]
        return [*found, (errors, weights.T, torch.empty_like(rows))] if upwards else found

    width = p.HIDDEN
    pairs = [
        *shapes(int(np.prod(p.MAP)), width, upwards=False),
        *shapes(p.FEATURES, width, upwards=False),
        *shapes(2 * width, width, upwards=True),
        *shapes(width, p.ACTIONS + 1, upwards=True),
    ]

    def work() -> None:
        for _ in range(p.EPOCHS * p.STEPS * p.SLOTS // p.MINI_BATCH):
            for left, right, out in pairs:
                torch.mm(left, right, out=out)

    return Round(work=work)


def cloning() -> Round:
    """One pass of behaviour cloning, without the value's share of its loss: the others have none."""
    drawn = p.decisions()
    shape = (p.CLONING_ROWS, 1)
    nothing = np.zeros(shape, np.bool_)
    arrays = RolloutArrays(
        observations={name: drawn[name][:, None] for name in SPACES},
        actions=drawn["actions"].reshape(shape),
        valid=~nothing,
        rewards=np.zeros(shape, np.float32),
        terminated=nothing,
        truncated=nothing,
        episode_starts=nothing,
    )
    rows = rows_of(arrays, {"returns": np.zeros(shape, np.float32)}, inputs=tuple(SPACES), device=CPU)
    settings = BCTrainingSettings(batch_size=p.CLONING_BATCH, value_coef=0.0)
    session = session_of(learner_of(p.CLONING_RATE, ComputeConfig()), bc=settings)
    return Round(work=lambda: train_epoch(session, rows, class_weights=None))


def advantages() -> Round:
    """256 trajectories of 2,048 steps; truncation is told from termination."""
    columns = p.advantage_columns()
    ends = {name: columns.pop(name) for name in ("terminated", "truncated")}
    rewards, values, following = columns["rewards"], columns["values"], columns["next_values"]
    return Round(work=lambda: gae(rewards, values, following, **ends, gamma=p.GAMMA, gae_lambda=p.GAE_LAMBDA))


def trained(config: TrainingConfig, *, iterations: int, told: Callable[[Path], dict[str, float]]) -> Round:
    """Whole ``ppo`` runs of the orchestrator, run directory and checkpoints included; ``told`` reads the directory."""
    folder = Path(tempfile.mkdtemp())
    trainer = TrainingOrchestrator(config, runs_dir=folder)

    def after() -> dict[str, float]:
        found = told(folder / "run")
        shutil.rmtree(folder)
        folder.mkdir()
        return found

    return Round(work=lambda: trainer.run("ppo", iterations=iterations, run_id="run"), after=after)


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    config = TrainingConfig(
        config_id="bench",
        seed=seed,
        simulation=SimulationChoice(name="gymnasium", num_envs=p.CARTPOLE_ENVS, options={"env": p.CARTPOLE}),
        network=NetworkConfig(hidden_dim=p.CARTPOLE_HIDDEN, separate_trunks=True),
        checkpoint=CheckpointConfig(every=10**6),  # threads: our default, one for a network as small as this
        ppo=PPOConfig(
            **PPO,
            rollout_steps=p.CARTPOLE_STEPS,
            mini_batch_size=p.CARTPOLE_BATCH,
            learning_rate=p.CARTPOLE_RATE,
            learning_rate_schedule="linear",
            value_clip=0.0,
        ),
    )

    def told(run: Path) -> dict[str, float]:
        policy = ExportedPolicy.load(run)
        policy.bind(environments.make_simulation(p.JUDGED_EPISODES, {"env": p.CARTPOLE}))
        mask, stream = np.ones((p.JUDGED_EPISODES, 2), np.bool_), generator(0, "judge")

        def greedy(seen: Any) -> Any:
            return policy.act({"features": seen, ACTION_MASK: mask}, stream, greedy=True).actions

        return {"return": p.judge(greedy, seed=seed)}

    return trained(config, iterations=iterations, told=told)


def town(towns: int, steps: int, iterations: int, batch: int) -> Round:
    """Capture and update on the town; tells how long the updates alone took."""
    config = TrainingConfig(
        config_id="bench",
        simulation=SimulationChoice(name="town", num_envs=towns, threads=threads()),
        compute=ComputeConfig(threads=threads()),
        checkpoint=CheckpointConfig(every=10**6),
        ppo=PPOConfig(
            **PPO, rollout_steps=steps, mini_batch_size=batch, learning_rate=p.LEARNING_RATE, value_clip=p.VALUE_CLIP
        ),
    )

    def told(run: Path) -> dict[str, float]:
        records = [json.loads(line) for line in (run / "telemetry.jsonl").read_text(encoding="utf-8").splitlines()]
        rows = [record["health"] for record in records if "health" in record]
        return {"updates": sum(row["update_sec"] for row in rows), "captures": sum(row["capture_sec"] for row in rows)}

    return trained(config, iterations=iterations, told=told)


def acting(towns: int, steps: int, bare: bool) -> Round:
    """Step the town with the policy; or, ``bare``, the same number of forward passes of the same batch and no more."""
    simulation = make_simulation(towns, {}, threads=threads())
    network = build_network(describe(simulation.spec, NetworkConfig()), generator=torch_generator(0, "bench"))
    collector = RolloutCollector(simulation, TorchPolicy(network), steps=steps, seed=0)
    if not bare:
        return Round(work=collector.collect)
    collector.collect()
    rows = collector.current
    seen = {name: torch.from_numpy(rows.observations[name].copy()) for name in network.description.inputs}
    mask = torch.from_numpy(rows.action_mask.copy())

    def work() -> None:
        with torch.inference_mode():
            for _ in range(steps):
                network(seen, mask)

    return Round(work=work)


if __name__ == "__main__":
    serve(
        {
            "update": update,
            "products": products,
            "cartpole": cartpole,
            "cloning": cloning,
            "advantages": advantages,
            "town": town,
            "acting": acting,
        },
        ("townlet-training-torch", "townlet-training-core", "townlet-sim", "torch", "numpy", "gymnasium"),
    )
