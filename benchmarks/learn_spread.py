"""``simple_spread`` of MPE2, three agents behind the PettingZoo adapter: PPO against random play; three seeds.

One policy serves all agents (IPPO). Both play the same 100 seeds; the bound asks that the 95 % interval of the paired
difference in return, over episodes for every seed and over seeds, lies above 0.

Run: ``python benchmarks/learn_spread.py``; writes ``benchmarks/results/spread.json``. Interrupted, it goes on.
"""

from __future__ import annotations

from _learning import Bench, Job, over_seeds, rules_of, show, suite_of

from townlet_training_core.config.models import (
    ComputeConfig,
    EvaluationConfig,
    NetworkConfig,
    PPOConfig,
    SimulationChoice,
    TrainingConfig,
)
from townlet_training_core.evaluation.compare import compare_paired

SEEDS = range(3)
ENVIRONMENTS, STEPS, ITERATIONS, AGENTS = 16, 100, 50, 3
CHOICE = SimulationChoice(
    name="pettingzoo",
    num_envs=ENVIRONMENTS,
    options={"env": "mpe2.simple_spread_v3:parallel_env", "kwargs": {"max_cycles": 25}},
)


def config(seed: int, *, tiny: bool) -> TrainingConfig:
    """Return the configuration; all seeds share every other number."""
    return TrainingConfig(
        config_id="simple_spread",
        seed=seed,
        simulation=CHOICE,
        network=NetworkConfig(hidden_dim=64, separate_trunks=True),
        compute=ComputeConfig(threads=1),
        ppo=PPOConfig(
            rollout_steps=25 if tiny else STEPS,
            iterations=2 if tiny else ITERATIONS,
            mini_batch_size=512,
            num_mini_batches=None,
            num_epochs=8,
            # Episodes are cut after 25 steps, and what comes after the cut is never seen: a longer horizon would
            # stand on values that nothing anchors.
            gamma=0.9,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            entropy_coef=0.01,
            value_clip=0.0,
            normalize_returns=True,
        ),
        evaluation=EvaluationConfig(episodes=16, num_envs=16),
    )


def main() -> None:
    bench = Bench("spread", __doc__ or "")
    suite = suite_of("spread", CHOICE, episodes=8 if bench.tiny else 100, first_seed=2_000_000)
    rules = rules_of(CHOICE)
    jobs = [
        Job(arm="ppo", config=config(seed, tiny=bench.tiny), strategy="ppo", rules=rules)
        for seed in (SEEDS[:2] if bench.tiny else SEEDS)
    ]
    bench.run(jobs)
    random = bench.evaluate("random", suite)
    steps = STEPS * ENVIRONMENTS * AGENTS * ITERATIONS
    differences = []
    for job in jobs:
        found = bench.evaluate(job, suite)
        compared = compare_paired(found, random)
        differences.append(compared.difference.estimate)
        note = f"{show(compared.difference)} above random, paired; return {show(found.summary.mean)} against "
        note += f"{show(random.summary.mean)}; {steps} agent-steps"
        bench.report.add(f"ppo.seed_{job.seed}: difference, lower end over episodes",
            value=compared.difference.low, unit="return", bound=0.0, note=note)  # fmt: skip
    over = over_seeds(differences)
    bench.report.add("ppo: difference, lower end over seeds", value=over.low, unit="return", bound=0.0,
        note=f"{show(over)} over {len(jobs)} seeds")  # fmt: skip
    bench.write({"rules_hash": rules, "suite": {"seeds": [suite.seeds[0], suite.seeds[-1]]},
        "settings": jobs[0].config.model_dump(mode="json")})  # fmt: skip


if __name__ == "__main__":
    main()
