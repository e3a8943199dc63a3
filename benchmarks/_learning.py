"""What the learning benchmarks share: runs that go on where they stopped, two at a time, and scores on fixed seeds.

A :class:`Job` is one training run. Its folder is named by a hash of everything that it depends on (configuration,
request, start, rules), so a script that was interrupted skips what is done, resumes what was begun, and never takes
the result of other rules for its own. Evaluations are kept beside the runs in the same way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, Report

from townlet_training_core.config.models import SimulationChoice, TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite, IntervalDTO
from townlet_training_core.evaluation.parallel import evaluate_spec, simulation_maker
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.registry import make_simulation
from townlet_training_core.runs import RunDirectory
from townlet_training_core.services import TrainingServices
from townlet_training_core.statistics import Interval, student_t_quantile
from townlet_training_core.telemetry.curves import curves

__all__ = [
    "Bench",
    "Job",
    "Line",
    "curve",
    "draw",
    "over_seeds",
    "rules_of",
    "show",
    "suite_of",
]

ENVIRONMENTS = 16
"""Environments of an evaluation that are stepped together; no result depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training run.

    Attributes
    ----------
    arm:
        What is compared; the seed stands in ``config``.
    strategy, request:
        What is run, and the fields of its request.
    rules:
        Rules hash of the simulation that is trained on.
    start:
        Job whose policy this one starts from.
    watch:
        Suite of the evaluations during the run (``config.evaluation.every``); ``None`` takes the configured one.
    """

    arm: str
    config: TrainingConfig
    strategy: str
    rules: str
    request: Mapping[str, Any] = field(default_factory=dict)
    start: Job | None = None
    watch: EvaluationSuite | None = None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.seed

    def key(self) -> str:
        """Hash of everything that the trained weights depend on."""
        parts = [self.config.model_dump_json(), self.strategy, json.dumps(dict(self.request), sort_keys=True)]
        parts += [self.rules, self.start.key() if self.start else "", self.watch.content_hash() if self.watch else ""]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def folder(self, work: Path) -> Path:
        """Return the run directory below ``work``."""
        return work / f"{self.arm}-seed{self.seed}-{self.key()[:10]}"


def _train(job: Job, work: Path) -> str:
    """Run, resume or skip a job; return its folder's name."""
    folder = job.folder(work)
    services = TrainingServices.from_config(job.config)
    if job.watch is not None:
        watched = EvaluationService(simulation_maker, job.watch, num_envs=ENVIRONMENTS)
        services = replace(services, evaluation=watched)
    if not (folder / "run.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        start: dict[str, Any] = {} if job.start is None else {"init_from": job.start.folder(work)}
        trainer = TrainingOrchestrator(job.config, runs_dir=work, services=services)
        trainer.run(job.strategy, run_id=folder.name, **job.request, **start)
    elif RunDirectory.read(folder).manifest().get("status") != "done":
        TrainingOrchestrator.resume(folder, services=services)
    services.evaluation.close()
    return folder.name


class Bench:
    """One learning benchmark: its command line, its runs and evaluations, its report.

    Parameters
    ----------
    name:
        Of the result file.
    description:
        Shown by ``--help``.
    """

    def __init__(self, name: str, description: str, arguments: Sequence[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--work", type=Path, default=Path("runs") / "learning", help="folder of the runs")
        parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
        parser.add_argument("--tiny", action="store_true", help="a budget of seconds, to try the script itself")
        parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
        options = parser.parse_args(arguments)
        self.work: Path = options.work.resolve()
        self.workers: int = options.workers
        self.tiny: bool = options.tiny
        self.results: Path = options.results
        self.report = Report(name, threads=1)
        self._played: dict[tuple[str, str], EvaluationResult] = {}
        self.work.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the workers, before they load anything

    def run(self, jobs: Iterable[Job]) -> None:
        """Run the jobs and those that they start from, ``workers`` at a time."""
        levels: list[dict[str, Job]] = []
        for job in jobs:
            chain = [job]
            while chain[0].start is not None:
                chain.insert(0, chain[0].start)
            for depth, one in enumerate(chain):
                if depth == len(levels):
                    levels.append({})
                levels[depth][one.key()] = one
        context = multiprocessing.get_context("spawn")
        for level in levels:
            with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
                for name in pool.map(_train, level.values(), [self.work] * len(level)):
                    print(f"{self.report.name}: trained {name}", flush=True)

    def evaluate(self, policy: Job | str, suite: EvaluationSuite) -> EvaluationResult:
        """Play ``suite`` with a job's final policy, or a registered one; pieces that were played are kept."""
        spec = policy if isinstance(policy, str) else str(policy.folder(self.work))
        key = (spec, suite.content_hash())
        if key not in self._played:
            self._played[key] = evaluate_spec(
                spec,
                suite=suite,
                label=policy if isinstance(policy, str) else policy.arm,
                num_envs=ENVIRONMENTS,
                workers=self.workers,
                directory=self.work / "evaluations",
            )
        return self._played[key]

    def document(self, job: Job, name: str) -> dict[str, Any]:
        """Return a file of the job's results."""
        found = RunDirectory.read(job.folder(self.work)).read_result(name)
        assert found is not None, f"{job.folder(self.work)} holds no {name}"
        return found

    def write(self, details: Mapping[str, Any]) -> None:
        """Write the report; a tiny one beside the runs, because its numbers mean nothing."""
        self.report.details.update(details)
        print(self.report.write(self.work if self.tiny else self.results))


def rules_of(choice: SimulationChoice) -> str:
    """Return the rules hash of a simulation."""
    simulation = make_simulation(choice, num_envs=1)
    simulation.close()
    return str(simulation.spec.rules_hash)


def suite_of(
    name: str, choice: SimulationChoice, *, episodes: int, first_seed: int, max_steps: int | None = None
) -> EvaluationSuite:
    """Make a suite of ``episodes`` fixed seeds; actions are sampled."""
    return EvaluationSuite(
        name=name,
        simulation=choice.name,
        options=dict(choice.options),
        seeds=tuple(range(first_seed, first_seed + episodes)),
        max_steps=max_steps,
    )


def over_seeds(means: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean over training seeds: what another seed would be expected to reach."""
    values = np.asarray(means, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf, confidence)
    width = student_t_quantile(0.5 + confidence / 2, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - width, mean + width, confidence)


def show(interval: Interval | IntervalDTO, *, digits: int = 2) -> str:
    """Write an interval as ``estimate [low, high]``."""
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def curve(job: Job, work: Path, *, steps_per_iteration: int) -> dict[str, list[float]]:
    """Return the evaluations during a run: steps done, mean return, ends of its interval over episodes."""
    found = curves(RunDirectory.read(job.folder(work))).get("evaluation", {})
    if not found:
        return {}
    return {
        "steps": [epoch * steps_per_iteration for epoch in found["epoch"]],
        "return_mean": found["return_mean"],
        "return_low": found["return_low"],
        "return_high": found["return_high"],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Curves of one arm, one per seed, on common steps."""

    label: str
    colour: str
    curves: Sequence[Mapping[str, Sequence[float]]]


def draw(path: Path, lines: Sequence[Line], *, levels: Mapping[str, Interval], ylabel: str, title: str) -> Path:
    """Draw each seed thinly and the mean of an arm thickly; levels (e.g. the expert) as bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for label, interval in levels.items():
        axes.axhspan(interval.low, interval.high, color="0.6", alpha=0.35, linewidth=0)
        axes.axhline(interval.estimate, color="0.35", linewidth=1)
        axes.annotate(
            label, (1.0, interval.estimate), xycoords=("axes fraction", "data"), xytext=(-4, 3),
            textcoords="offset points", ha="right", fontsize=9, color="0.25",
        )  # fmt: skip
    for line in lines:
        for one in line.curves:
            axes.plot(one["steps"], one["return_mean"], color=line.colour, alpha=0.35, linewidth=0.9)
        shortest = min(len(one["steps"]) for one in line.curves)
        mean = np.mean([one["return_mean"][:shortest] for one in line.curves], axis=0)
        axes.plot(line.curves[0]["steps"][:shortest], mean, color=line.colour, linewidth=2.2, label=line.label)
    axes.set_xlabel("agent-steps")
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
