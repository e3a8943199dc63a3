"""The hand-over in the town: cloning then PPO against PPO from scratch, and what ``bc_weight`` does; three seeds.

Equal agent-steps: one million of PPO after the clone, and for the run from scratch as many more as the clone's captures
of the expert took. The weight of the BC loss beside the PPO loss (0, 0.1, 0.5; constant) is compared at the same
budget, from the same clones. Everything is played on the same 32 seeds of the default town.

Run: ``python benchmarks/learn_handover.py``; writes ``benchmarks/results/town_handover.json`` and
``docs/images/town_handover.png``. Interrupted, it goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _learning import Bench, Job, Line, curve, draw, over_seeds, rules_of, show
from _town import Town, agent_steps, indicators, iterations_for, settings
from learn_town import IMPROVING, clone_of

from townlet_training_core.runs import RunDirectory
from townlet_training_core.statistics import bootstrap_mean
from townlet_training_core.telemetry.curves import curves as curves_of

SEEDS = range(3)
STEPS = 1_050_000
WEIGHTS = (0.0, 0.1, 0.5)
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "town_handover.png"
COLOURS = {"scratch": "tab:orange", "bc_weight 0": "tab:blue", "bc_weight 0.1": "tab:green", "bc_weight 0.5": "tab:red"}


def main() -> None:
    bench = Bench("town_handover", __doc__ or "")
    town, report = Town.of(bench), bench.report
    seeds = SEEDS[:2] if bench.tiny else SEEDS
    rules = rules_of(settings(0, tiny=bench.tiny).simulation)
    iterations = 2 if bench.tiny else iterations_for(STEPS)
    watching = f"evaluation.every={1 if bench.tiny else 16}"
    clones = [clone_of(seed, rules=rules, tiny=bench.tiny) for seed in seeds]
    arms: dict[str, list[Job]] = {}
    for weight in WEIGHTS:
        arms[f"bc_weight {weight:g}"] = [
            Job(
                arm=f"bc_weight_{weight:g}",
                config=settings(clone.seed, *IMPROVING, watching, tiny=bench.tiny),
                strategy="ppo",
                request={"iterations": iterations, "bc_weight": weight},
                rules=rules,
                start=clone,
                watch=town.watch,
            )
            for clone in clones
        ]
    captured = clones[0].config.training.bc.capture_steps // clones[0].config.ppo.rollout_steps
    scratch_settings = (*IMPROVING, watching, "ppo.value_warmup_iterations=0")
    arms["scratch"] = [
        Job(
            arm="scratch",
            config=settings(seed, *scratch_settings, tiny=bench.tiny),
            strategy="ppo",
            request={"iterations": iterations + captured},
            rules=rules,
            watch=town.watch,
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

    per_iteration = agent_steps(arms["scratch"][0].config, 1)
    found = {
        f"{arm}.seed_{job.seed}": curve(job, bench.work, steps_per_iteration=per_iteration)
        for arm, jobs in arms.items()
        for job in jobs
    }
    lines = []
    for arm in arms:
        scored = [
            {"steps": one["steps"], "return_mean": [town.score(value / town.days) for value in one["return_mean"]]}
            for name, one in found.items()
            if name.startswith(f"{arm}.seed_")
        ]
        lines.append(Line(label=arm if arm == "scratch" else f"clone, {arm}", colour=COLOURS[arm], curves=scored))
    draw(
        bench.work / "curve.png" if bench.tiny else PICTURE,
        lines,
        levels={"scripted expert": expert},
        ylabel="score (random 0, ceiling 1)",
        title=f"Default town, {len(town.watch.seeds)} episodes per point, {len(seeds)} seeds",
    )
    bench.write(town.details({arm: jobs[0] for arm, jobs in arms.items()}, found))


if __name__ == "__main__":
    main()
