"""What blocks a gain: indicators that regressed, and what earlier releases could do."""

from __future__ import annotations

from collections.abc import Sequence

from townlet_training_core import statistics
from townlet_training_core.config.models import KpiGuardrail
from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.release import ForgettingVerdict, GuardrailVerdict
from townlet_training_core.evaluation.compare import compare_paired, interval_of, kpi_differences

__all__ = ["DEFAULT_GUARDRAILS", "Pair", "check_default_guardrails", "check_forgetting", "check_guardrails"]

Pair = tuple[EvaluationResult, EvaluationResult]
"""Candidate and release on one suite."""

DEFAULT_GUARDRAILS = (
    KpiGuardrail(kpi="attendance", direction="higher_is_better", margin=0.05),
    KpiGuardrail(kpi="lateness", direction="lower_is_better", margin=0.05),
    KpiGuardrail(kpi="starvation", direction="lower_is_better", margin=0.1),
    KpiGuardrail(kpi="conflicts", direction="lower_is_better", margin=0.5),
)
"""What a town must not lose while its return grows: shares of shifts, incidents and conflicts per agent and day."""


def check_guardrails(
    pairs: Sequence[Pair], guardrails: Sequence[KpiGuardrail], *, resamples: int = 2000
) -> tuple[GuardrailVerdict, ...]:
    """Compare the guarded indicators; episodes without a value on either side are left out."""
    verdicts = []
    for rail in guardrails:
        sign = 1.0 if rail.direction == "higher_is_better" else -1.0
        found = [kpi_differences(first, second).get(rail.kpi) for first, second in pairs]
        measured = [sign * values for values in found if values is not None]
        if len(measured) < len(pairs):
            verdicts.append(
                GuardrailVerdict(
                    kpi=rail.kpi, direction=rail.direction, margin=rail.margin, difference=None, status="missing"
                )
            )
            continue
        interval = statistics.bootstrap_means(measured, resamples=resamples)
        regressed = interval.estimate < -rail.margin
        verdicts.append(
            GuardrailVerdict(
                kpi=rail.kpi,
                direction=rail.direction,
                margin=rail.margin,
                difference=interval_of(interval),
                status="regressed" if regressed else "ok" if interval.low >= -rail.margin else "unclear",
            )
        )
    return tuple(verdicts)


def check_default_guardrails(pairs: Sequence[Pair], *, resamples: int) -> tuple[GuardrailVerdict, ...]:
    """Check what is measured of the default guardrails, over the suites that measure it."""
    verdicts: list[GuardrailVerdict] = []
    for rail in DEFAULT_GUARDRAILS:
        measured = [pair for pair in pairs if rail.kpi in kpi_differences(*pair)]
        verdicts += check_guardrails(measured, (rail,), resamples=resamples) if measured else ()
    return tuple(verdicts)


def check_forgetting(
    pairs: Sequence[tuple[str, EvaluationResult, EvaluationResult]], *, margin: float = 0.0
) -> tuple[ForgettingVerdict, ...]:
    """Compare a candidate with what earlier releases reached on their golden suites.

    ``pairs`` holds (digest, candidate's result, earlier result). Intervals are Bonferroni-corrected for the
    number of pairs, so that a long history does not block by chance.
    """
    verdicts = []
    for digest, candidate, earlier in pairs:
        comparison = compare_paired(candidate, earlier, confidence=1.0 - 0.05 / len(pairs))
        verdicts.append(
            ForgettingVerdict(
                release=digest,
                suite=earlier.suite.name,
                difference=comparison.difference,
                forgotten=comparison.difference.high < -margin,
            )
        )
    return tuple(verdicts)
