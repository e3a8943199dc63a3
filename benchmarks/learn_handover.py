"""The hand-over in the town: cloning then PPO against PPO from scratch, and what ``bc_weight`` does; three seeds.

Equal agent-steps: one million of PPO after the clone, and for the run from scratch as many more as the clone's captures
of the expert took. The weight of the BC loss beside the PPO loss (0, 0.1, 0.5; constant) is compared at the same
budget, from the same clones. Everything is played on the same 32 seeds of the default town.

Run: ``python benchmarks/learn_handover.py``; writes ``benchmarks/results/town_handover.json``. Interrupted, it goes on
where it was.
"""

from __future__ import annotations

import numpy as np
from _learning import Bench, Job, over_seeds, rules_of, show
from _town import Town, agent_steps, indicators, iterations_for, settings
from learn_town import IMPROVING, clone_of

from townlet_training_core.runs import RunDirectory
from townlet_training_core.statistics import bootstrap_mean
from townlet_training_core.telemetry.curves import curves as curves_of

SEEDS = range(3)
STEPS = 1_050_000
WEIGHTS = (0.0, 0.1, 0.5)


def main() -> None:
    bench = Bench("town_handover", __doc__ or "")
    town, report = Town.of(bench), bench.report
    seeds = SEEDS[:2] if bench.tiny else SEEDS
    rules = rules_of(settings(0, tiny=bench.tiny).simulation)
    iterations = 2 if bench.tiny else iterations_for(STEPS)
    clones = [clone_of(seed, rules=rules, tiny=bench.tiny) for seed in seeds]
    arms: dict[str, list[Job]] = {}
    for weight in WEIGHTS:
        arms[f"bc_weight {weight:g}"] = [
            Job(
                arm=f"bc_weight_{weight:g}",
                config=settings(clone.seed, *IMPROVING, tiny=bench.tiny),
                strategy="ppo",
                request={"iterations": iterations, "bc_weight": weight},
                rules=rules,
                start=clone,
            )
            for clone in clones
        ]
    captured = clones[0].config.training.bc.capture_steps // clones[0].config.ppo.rollout_steps
    scratch_settings = (*IMPROVING, "ppo.value_warmup_iterations=0")
    arms["scratch"] = [
        Job(
            arm="scratch",
            config=settings(seed, *scratch_settings, tiny=bench.tiny),
            strategy="ppo",
            request={"iterations": iterations + captured},
            rules=rules,
        )
        for seed in seeds
    ]
    bench.run(job for jobs in arms.values() for job in jobs)

    played, expert = town.play("scripted")
    report.add("expert: score", value=expert.estimate, unit="random 0, ceiling 1",
        note=f"{show(expert, digits=3)}; {indicators(played)}")  # fmt: skip
    for arm, jobs in arms.items():
        each, over = town.scores_over_seeds(jobs)
        steps = agent_steps(jobs[0].config, int(jobs[0].request["iterations"]))
        agreement = [curves_of(RunDirectory.read(job.folder(bench.work)))["ppo.iteration"]["loss_bc"] for job in jobs]
        note = f"{show(over, digits=3)} over seeds, each {', '.join(f'{one.estimate:.3f}' for one in each)}; {steps} "
        note += f"agent-steps of PPO; {indicators(town.play(jobs[0])[0])} (seed {jobs[0].seed})"
        report.add(f"{arm}: score", value=over.estimate, unit="random 0, ceiling 1", note=note)
        if jobs[0].request.get("bc_weight"):
            last = float(np.mean([losses[-1] for losses in agreement]))
            report.add(f"{arm}: BC loss at the end", value=last, unit="nats",
                note="cross-entropy of the expert's answers in the states that the policy visits")  # fmt: skip
    for arm in ("scratch", *(f"bc_weight {weight:g}" for weight in WEIGHTS[1:])):
        handed, other = arms["bc_weight 0"], arms[arm]
        # Pairs of seeds and of episodes: the same clone, the same towns.
        differences = [
            (np.asarray(town.play(first)[0].returns) - np.asarray(town.play(second)[0].returns)) / town.days
            for first, second in zip(handed, other, strict=True)
        ]
        over = over_seeds([float(one.mean()) for one in differences])
        episodes = bootstrap_mean(np.mean(differences, axis=0))
        report.add(f"bc_weight 0 minus {arm}: return, lower end over seeds", value=over.low, unit="return per day",
            bound=0.0 if arm == "scratch" else None,
            note=f"{show(over)} over seeds, {show(episodes)} over episodes")  # fmt: skip
    bench.write(town.details({arm: jobs[0] for arm, jobs in arms.items()}, {}))


if __name__ == "__main__":
    main()
