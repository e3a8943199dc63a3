"""The town: behaviour cloning reaches the scripted expert, PPO from there clearly beats it; five seeds.

For each seed the expert is captured and cloned, and PPO goes on from the clone for two million agent-steps.
Everything is then played on the same 32 seeds of the default town (four days, sampled actions). The bound of PPO is the
upper end of the expert's 95 % interval; what is held against it is the lower end of an interval of PPO's, once over
the episodes of every single seed, and once over the five seeds.

Run: ``python benchmarks/learn_town.py``; writes ``benchmarks/results/town_learning.json`` and
``docs/images/town_learning.png``. Interrupted, it goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

from _learning import Bench, Job, Line, curve, draw, over_seeds, rules_of, show
from _town import Town, agent_steps, indicators, iterations_for, settings

from townlet_training_core.statistics import Interval

SEEDS = range(5)
STEPS = 2_000_000
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "town_learning.png"
CLONING = ("training.bc.epochs=12", "training.bc.capture_steps=1024")
IMPROVING = ("ppo.learning_rate_schedule=linear", "ppo.entropy_coef=0.03", "ppo.entropy_schedule=linear")


def clone_of(seed: int, *, rules: str, tiny: bool) -> Job:
    """Return the job that clones the expert."""
    return Job(arm="clone", config=settings(seed, *CLONING, tiny=tiny), strategy="bc", rules=rules)


def main() -> None:
    bench = Bench("town_learning", __doc__ or "")
    town, report = Town.of(bench), bench.report
    seeds = SEEDS[:2] if bench.tiny else SEEDS
    rules = rules_of(settings(0, tiny=bench.tiny).simulation)
    iterations = 2 if bench.tiny else iterations_for(STEPS) // 15 * 15  # the last evaluation is at the end
    every = 1 if bench.tiny else 15
    clones = [clone_of(seed, rules=rules, tiny=bench.tiny) for seed in seeds]
    trained = [
        Job(
            arm="ppo",
            config=settings(seed, *IMPROVING, f"evaluation.every={every}", tiny=bench.tiny),
            strategy="ppo",
            request={"iterations": iterations},
            rules=rules,
            start=clone,
            watch=town.watch,
        )
        for seed, clone in zip(seeds, clones, strict=True)
    ]
    bench.run(trained)

    played, expert = town.play("scripted")
    report.add("expert: score", value=expert.estimate, unit="random 0, ceiling 1",
        note=f"{show(expert, digits=3)} over {len(played.returns)} episodes; {indicators(played)}")  # fmt: skip
    whole = played.summary.mean
    per_day = Interval(whole.estimate / town.days, whole.low / town.days, whole.high / town.days, whole.confidence)
    for seed, clone in zip(seeds, clones, strict=True):
        judged = bench.document(clone, "bc-report")
        report.add(f"clone.seed_{seed}: held-out accuracy", value=judged["accuracy"], unit="share", bound=0.9)
        report.add(f"clone.seed_{seed}: macro-F1", value=judged["macro_f1"], unit="share", bound=0.8)
        result, score = town.play(clone)
        mean = result.summary.mean.estimate / town.days
        note = f"expert {show(per_day)}; score {show(score, digits=3)}; {indicators(result)}"
        report.add(f"clone.seed_{seed}: return, above the expert's lower end", value=mean - per_day.low,
            unit="return per day", bound=0.0, note=note)  # fmt: skip
    each, over = town.scores_over_seeds(trained)
    steps = agent_steps(trained[0].config, iterations)
    for job, interval in zip(trained, each, strict=True):
        result, _ = town.play(job)
        note = f"score {show(interval, digits=3)}, return per day {result.summary.mean.estimate / town.days:.2f}; "
        note += f"{steps} agent-steps; {indicators(result)}"
        report.add(f"ppo.seed_{job.seed}: score, lower end over episodes", value=interval.low,
            unit="random 0, ceiling 1", bound=expert.high, note=note)  # fmt: skip
    report.add("ppo: score, lower end over seeds", value=over.low, unit="random 0, ceiling 1", bound=expert.high,
        note=f"{show(over, digits=3)} over {len(each)} seeds, expert {show(expert, digits=3)}")  # fmt: skip
    over_clones = over_seeds([town.play(clone)[1].estimate for clone in clones])
    report.add("clone: score over seeds", value=over_clones.estimate, unit="random 0, ceiling 1",
        note=show(over_clones, digits=3))  # fmt: skip

    per_iteration = agent_steps(trained[0].config, 1)
    curves = {f"ppo.seed_{job.seed}": curve(job, bench.work, steps_per_iteration=per_iteration) for job in trained}
    scored = [
        {"steps": one["steps"], "return_mean": [town.score(value / town.days) for value in one["return_mean"]]}
        for one in curves.values()
    ]
    draw(
        bench.work / "curve.png" if bench.tiny else PICTURE,
        [Line(label="PPO from the clone", colour="tab:blue", curves=scored)],
        levels={"scripted expert": expert},
        ylabel="score (random 0, ceiling 1)",
        title=f"Default town, {len(town.watch.seeds)} episodes per point, {len(scored)} seeds",
    )
    bench.write(town.details({"clone": clones[0], "ppo": trained[0]}, curves))


if __name__ == "__main__":
    main()
