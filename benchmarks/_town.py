"""The town of the learning benchmarks: what is trained on, what is played for the score, and both arms' settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _learning import Bench, Job, over_seeds, rules_of, suite_of

from townlet_sim.config import TownConfig
from townlet_sim.scores import normalised, reference_ceiling
from townlet_training_core.config.loader import load_config
from townlet_training_core.config.models import SimulationChoice, TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.statistics import Interval, bootstrap_mean

__all__ = ["AGENT_STEPS", "KPIS", "Town", "agent_steps", "iterations_for", "settings"]

KPIS = ("attendance", "lateness", "chats", "gini", "sustainability", "exits")
"""Indicators that are told beside every return."""

FINAL_SEED, WATCH_SEED = 2_000_000, 3_000_000
"""First seeds of the final evaluation and of those during a run; training uses neither."""

AGENT_STEPS = 32 * 8 * 128
"""Agent-steps of one iteration: towns, agents, steps."""

TINY = ("simulation.num_envs=6", "ppo.rollout_steps=16", "training.bc.capture_steps=32", "ppo.mini_batch_size=256")


def settings(seed: int, *overrides: str, tiny: bool) -> TrainingConfig:
    """Return the packaged default configuration (one-day towns begun at any hour) for one thread."""
    common = (f"seed={seed}", "compute.threads=1", "simulation.threads=1", *overrides)
    return load_config(None, overrides=(*common, *(TINY if tiny else ())))


def agent_steps(config: TrainingConfig, iterations: int) -> int:
    """Agent-steps of so many iterations of the default town."""
    return config.simulation.num_envs * TownConfig().agents * config.ppo.rollout_steps * iterations


def iterations_for(steps: int) -> int:
    """Return the most iterations that do not exceed ``steps`` agent-steps."""
    return max(1, steps // AGENT_STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """The default town as it is played for the score: whole episodes of four days, on fixed seeds.

    Returns are those of a slot per day; a score is 0 for random play and 1 at the documented ceiling.
    """

    bench: Bench
    choice: SimulationChoice
    final: EvaluationSuite
    watch: EvaluationSuite
    days: float
    random: float
    ceiling: float

    @classmethod
    def of(cls, bench: Bench) -> Town:
        """Make the suites, and play the random policy."""
        config = TownConfig()
        choice = SimulationChoice(name="town", threads=1)
        cut = {"max_steps": 40} if bench.tiny else {}
        episodes = (4, 4) if bench.tiny else (32, 8)
        final = suite_of("final", choice, episodes=episodes[0], first_seed=FINAL_SEED, **cut)
        watch = suite_of("watch", choice, episodes=episodes[1], first_seed=WATCH_SEED, **cut)
        days = (40 if bench.tiny else config.horizon) / config.ticks_per_day
        random = float(np.mean(bench.evaluate("random", final).returns)) / days
        return cls(
            bench=bench, choice=choice, final=final, watch=watch, days=days, random=random,
            ceiling=reference_ceiling(config),
        )  # fmt: skip

    def score(self, per_day: float) -> float:
        """Normalise a return per day."""
        return normalised(per_day, random=self.random, ceiling=self.ceiling)

    def play(self, policy: Job | str) -> tuple[EvaluationResult, Interval]:
        """Play the final suite; return the result, and the interval over episodes of the normalised score."""
        result = self.bench.evaluate(policy, self.final)
        return result, bootstrap_mean([self.score(value / self.days) for value in result.returns])

    def scores_over_seeds(self, jobs: Sequence[Job]) -> tuple[list[Interval], Interval]:
        """Return each seed's interval over episodes, and the interval over seeds."""
        each = [self.play(job)[1] for job in jobs]
        return each, over_seeds([interval.estimate for interval in each])

    def details(self, jobs: Mapping[str, Job], curves: Mapping[str, Any]) -> dict[str, Any]:
        """Say what the numbers were made of."""
        return {
            "rules_hash": rules_of(self.choice),
            "training_rules_hash": next(iter(jobs.values())).rules,
            "suite": {"seeds": [self.final.seeds[0], self.final.seeds[-1]], "episodes": len(self.final.seeds)},
            "random_return_per_day": self.random,
            "ceiling_return_per_day": self.ceiling,
            "settings": {
                arm: {
                    "strategy": job.strategy,
                    "request": dict(job.request),
                    "ppo": job.config.ppo.model_dump(mode="json"),
                    "bc": job.config.training.bc.model_dump(mode="json"),
                    "network": job.config.network.model_dump(mode="json"),
                    "simulation": job.config.simulation.model_dump(mode="json"),
                }
                for arm, job in jobs.items()
            },
            "curves": dict(curves),
        }


def indicators(result: EvaluationResult) -> str:
    """Write the mean of every indicator."""
    values = {name: np.asarray(result.kpis[name], np.float64) for name in KPIS if name in result.kpis}
    return ", ".join(f"{name} {np.nanmean(row):.3f}" for name, row in values.items() if np.isfinite(row).any())
