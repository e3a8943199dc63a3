"""Aggregates of one result, and two results paired by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from townlet_training_core import statistics
from townlet_training_core.dto.evaluation import EvaluationResult, IntervalDTO, PairedComparison, ReturnSummary
from townlet_training_core.errors import DataError

__all__ = ["compare_paired", "interval_of", "kpi_differences", "require_comparable", "summarise_returns"]


def interval_of(interval: statistics.Interval) -> IntervalDTO:
    """Turn an interval into its record."""
    return IntervalDTO(estimate=interval.estimate, low=interval.low, high=interval.high, confidence=interval.confidence)


def summarise_returns(returns: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000) -> ReturnSummary:
    """Aggregate ``(E,)`` episode returns; the bootstrap has a fixed seed, so the same returns give the same."""
    values = np.asarray(returns, np.float64)
    return ReturnSummary(
        mean=interval_of(statistics.bootstrap_mean(values, confidence=confidence, resamples=resamples)),
        iqm=interval_of(statistics.bootstrap_iqm([values], confidence=confidence, resamples=resamples)),
        median=float(np.median(values)),
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def require_comparable(candidate: EvaluationResult, baseline: EvaluationResult) -> None:
    """Check that two results were played on the same seeds, simulation and rules.

    Raises
    ------
    DataError
        Naming the first thing in which they differ.
    """
    pairs = {
        "simulation": (candidate.suite.simulation, baseline.suite.simulation),
        "simulation version": (candidate.simulation, baseline.simulation),
        "rules hash": (candidate.rules_hash, baseline.rules_hash),
        "options": (candidate.suite.options, baseline.suite.options),
        "seeds": (candidate.suite.seeds, baseline.suite.seeds),
        "max_steps": (candidate.suite.max_steps, baseline.suite.max_steps),
        "episode": (candidate.suite.episode, baseline.suite.episode),
        "greedy": (candidate.suite.greedy, baseline.suite.greedy),
    }
    for what, (first, second) in pairs.items():
        if first != second:
            msg = (
                f"results {candidate.label!r} and {baseline.label!r} cannot be paired: they differ in {what} "
                f"({_short(first)} and {_short(second)}); evaluate both on the same suite"
            )
            raise DataError(msg)


def compare_paired(
    candidate: EvaluationResult, baseline: EvaluationResult, *, confidence: float = 0.95, resamples: int = 2000
) -> PairedComparison:
    """Compare two results seed by seed.

    Raises
    ------
    DataError
        When they were played on different suites or rules. Different action streams are fine: two samples of
        one policy are a fair comparison.
    """
    require_comparable(candidate, baseline)
    first, second = np.array(candidate.returns), np.array(baseline.returns)
    difference = first - second
    improvement = statistics.probability_of_improvement([first], [second], confidence=confidence, resamples=resamples)
    several = difference.size > 1
    effect = statistics.cohens_dz(difference) if several else 0.0
    return PairedComparison(
        candidate=candidate.label,
        baseline=baseline.label,
        candidate_hash=candidate.policy_hash,
        baseline_hash=baseline.policy_hash,
        world_hash=candidate.world_hash(),
        episodes=difference.size,
        difference=interval_of(statistics.bootstrap_mean(difference, confidence=confidence, resamples=resamples)),
        difference_std=float(difference.std(ddof=1)) if several else 0.0,
        effect_size=effect,
        probability_of_improvement=interval_of(improvement),
        kpis={
            name: interval_of(statistics.bootstrap_mean(values, confidence=confidence, resamples=resamples))
            for name, values in kpi_differences(candidate, baseline).items()
        },
    )


def kpi_differences(candidate: EvaluationResult, baseline: EvaluationResult) -> dict[str, NDArray[np.float64]]:
    """Return paired differences of every indicator that both results have for at least one episode.

    Episodes in which either side has no value (cut by ``max_steps``) are left out.
    """
    differences = {}
    for name in candidate.kpis:
        if name in baseline.kpis:
            values = np.array(candidate.kpis[name]) - np.array(baseline.kpis[name])
            values = values[np.isfinite(values)]
            if values.size:
                differences[name] = values
    return differences


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
