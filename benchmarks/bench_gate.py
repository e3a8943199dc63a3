"""Does the gate keep its word? False promotion, power, and coverage of the intervals; writes results/gate_*.json.

Synthetic gates draw returns and go through the same code as real ones (look book, levels, judge). Real gates put a
sampling policy against itself with independent action streams.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _results import Report
from numpy.typing import NDArray

from townlet_training_core import statistics
from townlet_training_core.config.models import PromotionConfig, SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.evaluation import summarise_returns
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.promotion.gate import PromotionGate, judge, with_streak
from townlet_training_core.promotion.looks import LookBook, look_level
from townlet_training_core.registry import make_simulation

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

CONFIG = PromotionConfig()
"""The defaults: 64 fresh pairs a look, two passes in a row, alpha 5 %, margin 0."""

DIFFERENCES: dict[str, Draw] = {  # all of mean 0 and deviation 1
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails (Student 3)": lambda rng, n: rng.standard_t(3, size=n) / np.sqrt(3),
    "skewed up (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "skewed down (exponential)": lambda rng, n: 1 - rng.exponential(size=n),
    "rare disasters (5 %)": lambda rng, n: (0.05 - (rng.random(n) < 0.05)) / np.sqrt(0.05 * 0.95),
    "skewed down (lognormal)": lambda rng, n: (np.sqrt(np.e) - np.exp(rng.normal(size=n))) / np.sqrt((np.e - 1) * np.e),
    "three values": lambda rng, n: rng.choice([-1.0, 0.0, 1.0], p=[0.25, 0.5, 0.25], size=n) * np.sqrt(2),
}

VALUES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Student 5": lambda rng, n: rng.standard_t(5, size=n),
    "uniform": lambda rng, n: rng.random(n),
    "two peaks": lambda rng, n: rng.normal(size=n) + 4 * (rng.random(n) < 0.5),
    "gamma 4": lambda rng, n: rng.gamma(4.0, size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
}


def result(returns: NDArray[np.float64], *, seeds: tuple[int, ...], label: str) -> EvaluationResult:
    """Wrap drawn returns."""
    values = tuple(returns.tolist())
    return EvaluationResult(
        label=label,
        policy=label,
        policy_hash=label,
        suite=EvaluationSuite(simulation="drawn", seeds=seeds),
        simulation="drawn-v1",
        rules_hash="drawn",
        returns=values,
        agent_returns=tuple((value,) for value in values),
        lengths=(1,) * len(values),
        completed=(True,) * len(values),
        summary=summarise_returns(values, resamples=1),
    )


def first_promotion(rng: np.random.Generator, draw: Draw, *, gain: float, looks: int) -> int:
    """Ask a fresh gate up to ``looks`` times; return the look that promoted, 0 for none."""
    book = LookBook()
    for number in range(1, looks + 1):
        look = book.reserve(
            release_hash="old",
            candidate_hash="new",
            alpha=CONFIG.alpha,
            required_passes=CONFIG.required_passes,
            episodes=CONFIG.episodes,
        )
        seeds = tuple(range(look.first_seed, look.first_seed + look.episodes))
        shared = 10 * rng.normal(size=look.episodes)
        new = result(shared + gain + draw(rng, look.episodes), seeds=seeds, label="new")
        old = result(shared, seeds=seeds, label="old")
        verdict = judge([(new, old)], config=CONFIG, look=look, resamples=1)
        streak = book.complete(look, release_hash="old", passed=verdict.passed)
        if with_streak(verdict, streak).decision == "promote":
            return number
    return 0


def quick_promotion(rng: np.random.Generator, draw: Draw, *, gain: float, looks: int) -> int:
    """Do what :func:`first_promotion` does with the same draws, without building records of every look."""
    passed = 0
    for number in range(1, looks + 1):
        rng.normal(size=CONFIG.episodes)  # the part that both policies share cancels
        level = look_level(number, alpha=CONFIG.alpha, required_passes=CONFIG.required_passes)
        better = statistics.mean_lower_bound([gain + draw(rng, CONFIG.episodes)], alpha=level) > CONFIG.margin
        passed = passed + 1 if better else 0
        if passed == CONFIG.required_passes:
            return number
    return 0


WAYS = (first_promotion, quick_promotion)


def synthetic(report: Report, *, gates: int) -> None:
    """Measure false promotion within two and within ten questions, and power of two looks."""
    rng = np.random.default_rng(7)
    for name, draw in DIFFERENCES.items():
        for seed in range(50):  # the quick way is the real one
            streams = np.random.default_rng(seed), np.random.default_rng(seed)
            outcome = [way(r, draw, gain=0.2, looks=5) for way, r in zip(WAYS, streams, strict=True)]
            if outcome[0] != outcome[1]:
                msg = f"{name}, seed {seed}: the gate promotes at {outcome[0]}, the quick way at {outcome[1]}"
                raise AssertionError(msg)
        when = np.array([quick_promotion(rng, draw, gain=0.0, looks=10) for _ in range(gates)])
        promoted = when > 0
        budget = promoted & (when <= CONFIG.required_passes)
        note = f"{gates} gates, identical policies, margin 0"
        label = f"false promotion, {name}"
        report.add(
            f"{label}, asked twice", value=float(budget.mean()), unit="share", bound=0.05, better="lower", note=note
        )
        report.add(
            f"{label}, asked ten times",
            value=float(promoted.mean()),
            unit="share",
            bound=0.05,
            better="lower",
            note=note,
        )
        hits = np.mean([
            quick_promotion(rng, draw, gain=0.5, looks=CONFIG.required_passes) > 0 for _ in range(gates)
        ])  # fmt: skip
        report.add(
            f"power, {name}",
            value=float(hits),
            unit="share",
            bound=0.9,
            note=f"{gates} gates, gain of half a deviation of the paired difference, {CONFIG.required_passes} looks",
        )


def real(report: Report, *, gates: int, choice: SimulationChoice, looks: int) -> None:
    """Put the random policy against itself, many times over, each gate with seeds of its own."""
    suite = EvaluationSuite(simulation=choice.name, options=choice.options, seeds=(0,))
    simulation = make_simulation(choice, num_envs=CONFIG.episodes)
    when, spread = [], []
    book = LookBook()
    for number in range(gates):
        # One book hands out fresh seeds to all gates; a release of its own lets each gate begin at look 1.
        class Numbered(RandomPolicy):
            """The random policy under another name for every gate."""

            def content_hash(self, tag: str = f"{number}") -> str:
                return f"{super().content_hash()}-{tag}"

        gate = PromotionGate(_keep(simulation), [suite], config=CONFIG, book=book, num_envs=CONFIG.episodes)
        verdicts = [gate.ask(Numbered(), Numbered()) for _ in range(looks)]
        when.append(next((v.look for v in verdicts if v.decision == "promote"), 0))
        spread += [comparison.difference_std for verdict in verdicts for comparison in verdict.comparisons]
    if min(spread) <= 0:
        msg = "paired differences without variance: the action streams are not independent"
        raise AssertionError(msg)
    for asked in (CONFIG.required_passes, looks):
        promoted = sum(0 < number <= asked for number in when)
        report.add(
            f"false promotion, real gates on {suite.simulation}, asked {asked} times",
            value=promoted / gates,
            unit="share",
            bound=0.05,
            better="lower",
            note=f"{promoted} of {gates} gates, {CONFIG.episodes} pairs a look, a sampling policy against itself",
        )
    report.add(
        "smallest deviation of paired differences", value=min(spread), unit="return", bound=1e-9, note="positive"
    )


class _Kept:
    """A simulation that closing leaves open, so that all gates share it."""

    def __init__(self, simulation: object) -> None:
        self._simulation = simulation

    def __getattr__(self, name: str) -> object:
        return getattr(self._simulation, name)

    def close(self) -> None:
        """Stay open."""


def _keep(simulation: object) -> Any:
    return lambda choice, /, *, num_envs: _Kept(simulation)  # noqa: ARG005  # the protocol names them


def mean_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of the mean misses it."""
    return statistics.bootstrap_mean(draw(rng, count), rng=rng).excludes(truth["mean"])


def iqm_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of the interquartile mean misses it."""
    return statistics.bootstrap_iqm([draw(rng, count)], rng=rng).excludes(truth["iqm"])


def difference_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of a paired difference of equals misses 0."""
    del truth  # known
    return statistics.paired_difference(draw(rng, count), draw(rng, count), rng=rng).excludes(0.0)


def improvement_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of the probability of improvement among equals misses one half."""
    del truth  # known
    first, second = [draw(rng, count)], [draw(rng, count)]
    return statistics.probability_of_improvement(first, second, resamples=1000, rng=rng).excludes(0.5)


def coverage(report: Report, *, draws: int) -> None:
    """Measure the share of 95 % intervals that hold the truth."""
    rng = np.random.default_rng(11)
    kinds = {
        "mean": mean_misses,
        "interquartile mean": iqm_misses,
        "paired difference": difference_misses,
        "probability of improvement": improvement_misses,
    }
    for name, draw in VALUES.items():
        large = draw(rng, 4_000_000)
        truth = {"mean": float(large.mean()), "iqm": statistics.interquartile_mean(large)}
        for count in (32, 64):
            for kind, misses in kinds.items():
                intervals = draws // 3 if misses is improvement_misses else draws  # the slow one
                share = 1.0 - sum(misses(rng, draw, count, truth) for _ in range(intervals)) / intervals
                report.add(
                    f"coverage, {kind}, {name}, {count} episodes",
                    value=abs(share - 0.95),
                    unit="distance from 95 %",
                    bound=0.02,
                    better="lower",
                    note=f"{share:.2%} of {intervals} intervals held the truth",
                )


def main() -> None:
    """Run what was asked for; every part writes a file of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["real", "synthetic", "coverage"])
    parser.add_argument("--gates", type=int, default=2000, help="synthetic gates per distribution")
    parser.add_argument("--real", type=int, default=100, help="real gates")
    parser.add_argument("--looks", type=int, default=10, help="looks of a real gate")
    parser.add_argument("--draws", type=int, default=6000, help="intervals per distribution and kind")
    arguments = parser.parse_args()
    for part in arguments.parts:
        report = Report(f"gate_{part}", threads=1)
        if part == "real":
            choice = SimulationChoice(name="town", threads=1, options={"episode_ticks": 100})
            real(report, gates=arguments.real, choice=choice, looks=arguments.looks)
        elif part == "synthetic":
            synthetic(report, gates=arguments.gates)
        else:
            coverage(report, draws=arguments.draws)
        report.write()


if __name__ == "__main__":
    main()
