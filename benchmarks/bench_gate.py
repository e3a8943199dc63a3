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
from townlet_training_core.promotion.gate import PromotionGate, judge, paired_differences, with_streak
from townlet_training_core.promotion.looks import LookBook, look_level, spending
from townlet_training_core.registry import make_simulation

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

CONFIG = PromotionConfig()
"""The defaults: 256 fresh pairs a look, two passes in a row, alpha 5 %, margin 0."""


def lognormal(sigma: float) -> Draw:
    """Draw a lognormal; mean 0 and deviation 1, as all draws here."""
    mean, deviation = np.exp(sigma**2 / 2), np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))
    return lambda rng, shape: (np.exp(sigma * rng.normal(size=shape)) - mean) / deviation


def gamma(k: float) -> Draw:
    """Draw a gamma; exponential for 1, more skewed below."""
    return lambda rng, shape: (rng.gamma(k, size=shape) - k) / np.sqrt(k)


def student(freedom: float) -> Draw:
    """Draw a Student."""
    return lambda rng, shape: rng.standard_t(freedom, size=shape) / np.sqrt(freedom / (freedom - 2))


def two_values(high: float) -> Draw:
    """Draw one of two values, the higher with probability ``high``."""
    return lambda rng, shape: ((rng.random(shape) < high) - high) / np.sqrt(high * (1 - high))


def disasters(share: float, *, depth: float) -> Draw:
    """Draw normal noise and, rarely, a loss of ``depth`` deviations of the noise."""
    deviation = np.sqrt(1 + share * (1 - share) * depth**2)
    return lambda rng, shape: (rng.normal(size=shape) - depth * ((rng.random(shape) < share) - share)) / deviation


def ties(share: float, draw: Draw) -> Draw:
    """Draw exactly 0 for a share, since both policies did the same."""
    return lambda rng, shape: draw(rng, shape) * (rng.random(shape) >= share) / np.sqrt(1 - share)


def down(draw: Draw) -> Draw:
    """Turn a draw round: long losses where it had long gains."""
    return lambda rng, shape: -draw(rng, shape)


DIFFERENCES: dict[str, Draw] = {  # all of mean 0 and deviation 1
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: (rng.random(shape) - 0.5) * np.sqrt(12),
    "Laplace": lambda rng, shape: rng.laplace(size=shape) / np.sqrt(2),
    "heavy tails (Student 3)": student(3),
    "heavier tails (Student 2.5)": student(2.5),
    "two peaks": lambda rng, shape: (
        (0.3 * rng.normal(size=shape) + rng.choice([-1.0, 1.0], size=shape)) / np.sqrt(1.09)
    ),
    "skewed up (exponential)": gamma(1),
    "skewed down (exponential)": down(gamma(1)),
    "skewed down (gamma 1/2)": down(gamma(0.5)),
    "skewed up (lognormal)": lognormal(1),
    "skewed down (lognormal)": down(lognormal(1)),
    "skewed down (lognormal 1.25)": down(lognormal(1.25)),
    "skewed down (Pareto 3)": lambda rng, shape: (0.5 - rng.pareto(3, size=shape)) / np.sqrt(0.75),
    "coin": two_values(0.5),
    "three values": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0], p=[0.25, 0.5, 0.25], size=shape) * np.sqrt(2),
    "rare luck (2 %)": two_values(0.02),
    "rare disasters (10 %)": down(two_values(0.1)),
    "rare disasters (5 %)": down(two_values(0.05)),
    "rare disasters (1 %)": down(two_values(0.01)),
    "noise and disasters (2 %, 10 deviations)": disasters(0.02, depth=10),
    "noise and disasters (1 %, 20 deviations)": disasters(0.01, depth=20),
    "ties (80 %)": ties(0.8, lambda rng, shape: rng.normal(size=shape)),
    "ties (80 %), skewed down": ties(0.8, down(gamma(1))),
    "ties (95 %), plus or minus one": ties(0.95, two_values(0.5)),
}

VALUES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Student 5": student(5),
    "uniform": lambda rng, shape: rng.random(shape),
    "two peaks": lambda rng, shape: rng.normal(size=shape) + 4 * (rng.random(shape) < 0.5),
    "gamma 4": gamma(4),
    "exponential": gamma(1),
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


def first_promotion(differences: NDArray[np.float64], *, fresh: int) -> int:
    """Ask a fresh gate about drawn differences ``(looks, episodes)``; return the look that promoted, 0 for none.

    Every ``fresh`` looks another candidate comes.
    """
    book = LookBook()
    for at, drawn in enumerate(differences):
        candidate = f"new {at // fresh}"
        look = book.reserve(
            release_hash="old",
            candidate_hash=candidate,
            alpha=CONFIG.alpha,
            required_passes=CONFIG.required_passes,
            episodes=CONFIG.episodes,
        )
        seeds = tuple(range(look.first_seed, look.first_seed + look.episodes))
        pair = (result(drawn, seeds=seeds, label=candidate), result(np.zeros_like(drawn), seeds=seeds, label="old"))
        before = [e.differences for e in book.looks("old") if e.candidate_hash == candidate and e.look != look.look]
        verdict = judge([pair], config=CONFIG, look=look, before=before, resamples=1)
        streak = book.complete(look, release_hash="old", passed=verdict.passed, differences=paired_differences([pair]))
        if with_streak(verdict, streak).decision == "promote":
            return look.look
    return 0


def lower_bounds(values: NDArray[np.float64], *, alpha: float) -> NDArray[np.float64]:
    """Bound the mean of every row of ``(gates, n)``; as :func:`townlet_training_core.statistics.mean_lower_bound`."""
    count = values.shape[1]
    mean = values.mean(axis=1)
    apart = values - mean[:, None]
    square = (apart**2).mean(axis=1)
    quantile = np.full(len(values), statistics.student_t_quantile(1 - alpha, count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = (apart**3).mean(axis=1) / square**1.5 / np.sqrt(count)
        widened = 3 / skewness * (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)
    quantile = np.where(skewness < -1e-9, np.maximum(quantile, widened), quantile)
    return np.asarray(mean - quantile * np.sqrt(square / (count - 1)))


def promotions(differences: NDArray[np.float64], *, fresh: int) -> NDArray[np.int64]:
    """Do what :func:`first_promotion` does for ``(gates, looks, episodes)`` at once, without building records."""
    gates, looks, _ = differences.shape
    when = np.zeros(gates, np.int64)
    streak = np.zeros(gates, np.int64)
    for number in range(1, looks + 1):
        first = (number - 1) // fresh * fresh
        if first == number - 1:
            streak[:] = 0
        level = look_level(number, alpha=CONFIG.alpha, required_passes=CONFIG.required_passes)
        better = lower_bounds(differences[:, number - 1], alpha=level) > CONFIG.margin
        streak = np.where(better, streak + 1, 0)
        asked = np.flatnonzero((streak >= CONFIG.required_passes) & (when == 0))
        if asked.size:
            together = differences[asked, first:number].reshape(asked.size, -1)
            bound = lower_bounds(together, alpha=CONFIG.alpha * spending(number))
            when[asked[bound > CONFIG.margin]] = number
    return when


def synthetic(report: Report, *, gates: int) -> None:
    """Measure false promotion within two and within ten questions, and power of two looks."""
    rng = np.random.default_rng(7)
    for name, draw in DIFFERENCES.items():
        asked = draw(rng, (gates, 10, CONFIG.episodes))
        for fresh in (10, 2):  # the quick way is the real one
            some = 0.1 + asked[:30, :4]
            outcome = [first_promotion(differences, fresh=fresh) for differences in some]
            if outcome != promotions(some, fresh=fresh).tolist():
                msg = f"{name}: the gate promotes at {outcome}, the quick way does not"
                raise AssertionError(msg)
        when, others = promotions(asked, fresh=10), promotions(asked, fresh=2)
        note = f"{gates} gates, no gain, margin 0, {CONFIG.episodes} pairs a look"
        ways = {
            "asked twice": (when > 0) & (when <= CONFIG.required_passes),
            "asked ten times": when > 0,
            "asked ten times about five candidates": others > 0,
        }
        for way, promoted in ways.items():
            label = f"false promotion, {name}, {way}"
            report.add(label, value=float(promoted.mean()), unit="share", bound=0.05, better="lower", note=note)
        power = promotions(0.5 + draw(rng, (gates, CONFIG.required_passes, CONFIG.episodes)), fresh=2) > 0
        report.add(
            f"power, {name}",
            value=float(power.mean()),
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
    return statistics.bootstrap_mean(draw(rng, (count,)), rng=rng).excludes(truth["mean"])


def iqm_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of the interquartile mean misses it."""
    return statistics.bootstrap_iqm([draw(rng, (count,))], rng=rng).excludes(truth["iqm"])


def difference_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of a paired difference of equals misses 0."""
    del truth  # known
    return statistics.paired_difference(draw(rng, (count,)), draw(rng, (count,)), rng=rng).excludes(0.0)


def improvement_misses(rng: np.random.Generator, draw: Draw, count: int, truth: dict[str, float]) -> bool:
    """Say whether an interval of the probability of improvement among equals misses one half."""
    del truth  # known
    first, second = [draw(rng, (count,))], [draw(rng, (count,))]
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
        large = draw(rng, (4_000_000,))
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
