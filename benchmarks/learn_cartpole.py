"""CartPole-v1 from scratch, five seeds: at least 475 mean return over 100 fresh episodes within 150,000 steps.

Run: ``python benchmarks/learn_cartpole.py``; writes ``benchmarks/results/cartpole.json``. Interrupted, it goes on.
"""

from __future__ import annotations

from _learning import Bench, Job, rules_of, show, suite_of

from townlet_training_core.config.models import (
    ComputeConfig,
    NetworkConfig,
    PPOConfig,
    SimulationChoice,
    TrainingConfig,
)

SEEDS = range(5)
STEPS, ENVIRONMENTS, ITERATIONS = 128, 8, 120
CHOICE = SimulationChoice(name="gymnasium", num_envs=ENVIRONMENTS, options={"env": "CartPole-v1"})


def config(seed: int, *, tiny: bool) -> TrainingConfig:
    """Return the configuration; all seeds share every other number."""
    return TrainingConfig(
        config_id="cartpole",
        seed=seed,
        simulation=CHOICE,
        network=NetworkConfig(hidden_dim=64, separate_trunks=True),
        compute=ComputeConfig(threads=1),
        ppo=PPOConfig(
            rollout_steps=STEPS,
            iterations=2 if tiny else ITERATIONS,
            mini_batch_size=256,
            num_mini_batches=None,
            num_epochs=4,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            entropy_coef=0.01,
            value_clip=0.0,
            normalize_returns=True,
        ),
    )


def main() -> None:
    bench = Bench("cartpole", __doc__ or "")
    suite = suite_of("cartpole", CHOICE, episodes=8 if bench.tiny else 100, first_seed=1_000_000)
    rules = rules_of(CHOICE)
    seeds = SEEDS[:2] if bench.tiny else SEEDS
    jobs = [Job(arm="ppo", config=config(s, tiny=bench.tiny), strategy="ppo", rules=rules) for s in seeds]
    bench.run(jobs)
    for job in jobs:
        score = bench.evaluate(job, suite).summary.mean
        steps = STEPS * ENVIRONMENTS * job.config.ppo.iterations
        note = f"{steps} steps, {show(score, digits=1)} over {len(suite.seeds)} episodes, sampled actions"
        bench.report.add(f"return.seed_{job.seed}", value=score.estimate, unit="return", bound=475.0, note=note)
    bench.write({"rules_hash": rules, "settings": jobs[0].config.model_dump(mode="json")})


if __name__ == "__main__":
    main()
