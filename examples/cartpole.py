"""PPO on a Gymnasium environment, then the policy that it left, evaluated without torch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from townlet_training_core import PPOTrainingResultDTO, TrainingOrchestrator, load_config
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.registry import make_policy


def main(*, iterations: int = 60) -> None:
    """Train, and compare with random play on the same seeds."""
    config = load_config(
        overrides=[
            "simulation.name=gymnasium",
            "simulation.options.env=CartPole-v1",
            "simulation.num_envs=8",
            "network.hidden_dim=64",
            "compute.threads=1",
            "ppo.rollout_steps=128",
            "ppo.mini_batch_size=256",
            "ppo.num_epochs=8",
            "ppo.gamma=0.99",
            "ppo.learning_rate=1e-3",
            "ppo.value_warmup_iterations=0",
            "ppo.normalize_returns=true",
            "evaluation.episodes=16",
            "evaluation.num_envs=16",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = TrainingOrchestrator(config, runs_dir=Path(folder))
        result = trainer.run("ppo", iterations=iterations)
        assert isinstance(result, PPOTrainingResultDTO)
        with trainer.services.evaluation as evaluation:
            trained = evaluation.evaluate(make_policy(folder), label="trained").summary.mean
            random = evaluation.evaluate(RandomPolicy(), label="random").summary.mean
    print(f"{result.steps:.0f} transitions: mean return {random.estimate:.1f} -> {trained.estimate:.1f}")


if __name__ == "__main__":
    main(iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 60)
