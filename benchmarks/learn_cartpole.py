"""CartPole-v1 from scratch, five seeds: at least 475 mean return over 100 fresh episodes within 150,000 steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from _results import Report

from townlet_training_core.config.models import (
    ComputeConfig,
    EvaluationConfig,
    NetworkConfig,
    PPOConfig,
    SimulationChoice,
    TrainingConfig,
)
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.policy.exported import ExportedPolicy

SEEDS = range(5)
STEPS, ENVIRONMENTS, ITERATIONS = 128, 8, 120


def config(seed: int) -> TrainingConfig:
    """Return the configuration; all seeds share every other number."""
    return TrainingConfig(
        config_id="cartpole",
        seed=seed,
        simulation=SimulationChoice(name="gymnasium", num_envs=ENVIRONMENTS, options={"env": "CartPole-v1"}),
        network=NetworkConfig(hidden_dim=64, separate_trunks=True),
        compute=ComputeConfig(threads=1),
        ppo=PPOConfig(
            rollout_steps=STEPS,
            iterations=ITERATIONS,
            mini_batch_size=256,
            num_mini_batches=None,
            num_epochs=4,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            entropy_coef=0.01,
            value_clip=0.0,
            normalize_returns=True,
        ),
        evaluation=EvaluationConfig(episodes=100, num_envs=20),
    )


def main() -> None:
    """Train, evaluate and write ``results/cartpole.json``."""
    report = Report("cartpole", threads=1)
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            trainer = TrainingOrchestrator(config(seed), runs_dir=Path(folder))
            begun = time.perf_counter()
            result = trainer.run("ppo", run_id="run")
            seconds = time.perf_counter() - begun
            policy = ExportedPolicy.load(Path(folder) / "run")
            score = trainer.services.evaluation.evaluate(policy, label="final").summary.mean
            trainer.services.evaluation.close()
        steps = STEPS * ENVIRONMENTS * ITERATIONS
        report.add(
            f"return.seed_{seed}",
            value=score.estimate,
            unit="return",
            bound=475.0,
            note=f"{steps} steps, {seconds:.0f} s, 95 % interval [{score.low:.1f}, {score.high:.1f}], sampled actions",
        )
        assert result.run_id == "run"
    report.write()


if __name__ == "__main__":
    main()
