"""The gate: a candidate replaces the release when it is better, not when it was lucky.

A *look* plays candidate and release on the same fresh seeds, with independent action streams, and passes when

1. the one-sided Student bound of the paired difference in return clears the margin at the level of the look,
2. no guarded indicator regressed by more than its margin, and
3. nothing that an earlier release could do is forgotten.

``required_passes`` passes of one candidate in a row promote it, where all looks ever taken at it, the failed ones
too, clear the margin together. The levels of the looks spend ``alpha`` over an unlimited number of questions
(:func:`~townlet_training_core.promotion.looks.look_level`), so asking again and again, with one candidate or with
many, does not wear the gate down. The bounds presume that means over a look's episodes are about normal; that all
looks count together keeps the promise where they are not: a disaster that was seen once is not forgotten by asking
again. ``benchmarks/bench_gate.py`` measures it for skewed, heavy-tailed and lumpy returns.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from townlet_training_core import statistics
from townlet_training_core.config.models import PromotionConfig, SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.dto.release import (
    ForgettingVerdict,
    LegacyFlags,
    LookRecord,
    PromotionVerdict,
)
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.evaluation import compare_paired, evaluate_policy, interval_of
from townlet_training_core.evaluation.service import MakeSimulation
from townlet_training_core.policy.port import Policy
from townlet_training_core.promotion.checks import (
    DEFAULT_GUARDRAILS,
    Pair,
    check_default_guardrails,
    check_forgetting,
    check_guardrails,
)
from townlet_training_core.promotion.looks import LookBook, look_level, spending
from townlet_training_core.simulation.port import Simulation

__all__ = [
    "DEFAULT_GUARDRAILS",
    "PromotionGate",
    "check_forgetting",
    "check_guardrails",
    "judge",
    "look_level",
    "paired_differences",
    "with_streak",
]

Play = Callable[[Policy, EvaluationSuite, str], EvaluationResult]
"""Lets a policy play a suite under a label."""


class PromotionGate:
    """Puts candidates to the test against a release.

    Parameters
    ----------
    make_simulation:
        Makes the simulations of the suites.
    suites:
        What to play, one per scenario; their seeds are replaced by fresh ones at every look.
    config:
        Margins, guardrails and the error that may be spent.
    book:
        Where looks are counted; share it between everything that asks about the same releases.
    num_envs:
        Environments stepped together.
    play:
        Plays the looks, over processes for instance; in the simulations that ``make_simulation`` makes when ``None``.
    """

    def __init__(
        self,
        make_simulation: MakeSimulation,
        suites: Sequence[EvaluationSuite],
        *,
        config: PromotionConfig,
        book: LookBook,
        num_envs: int = 32,
        play: Play | None = None,
    ) -> None:
        if not suites:
            msg = "the gate needs at least one suite to play"
            raise ConfigurationError(msg)
        for at, suite in enumerate(suites):
            for other in suites[:at]:
                if _without_seeds(suite) == _without_seeds(other):
                    msg = (
                        f"suites {other.name!r} and {suite.name!r} are one scenario, which would count twice: "
                        "the gate gives all suites the same fresh seeds; name one, and raise promotion.episodes"
                    )
                    raise ConfigurationError(msg)
        self._make_simulation = make_simulation
        self._suites = tuple(suites)
        self._config = config
        self._book = book
        self._num_envs = num_envs
        self._play = play

    def ask(
        self,
        candidate: Policy,
        release: Policy,
        *,
        label: str | None = None,
        release_label: str | None = None,
        golden: Sequence[tuple[str, EvaluationResult]] = (),
        forgetting_margin: float = 0.0,
        legacy: LegacyFlags | None = None,
    ) -> PromotionVerdict:
        """Take one look and return the verdict; one more entry stands in the look book afterwards.

        Parameters
        ----------
        golden:
            What earlier releases reached, with their digests: nothing of it may be forgotten.
        forgetting_margin:
            How much worse than an earlier release is tolerated, in return.
        legacy:
            The predecessor's flags, to be reported.

        Raises
        ------
        SpaceMismatchError
            When either policy does not fit a simulation. No look is spent.
        """
        config = self._config
        with ExitStack() as stack:
            simulations = [self._open(suite, stack) for suite in self._suites]
            candidate_hash, release_hash = _hashes((candidate, release), simulations)
            look = self._book.reserve(
                release_hash=release_hash,
                candidate_hash=candidate_hash,
                alpha=config.alpha,
                required_passes=config.required_passes,
                episodes=config.episodes,
            )
            label, release_label = label or candidate.name, release_label or release.name
            seeds = tuple(range(look.first_seed, look.first_seed + look.episodes))
            pairs = []
            for suite, simulation in zip(self._suites, simulations, strict=True):
                fresh = [suite.model_copy(update={"seeds": seeds, "action_seed": stream}) for stream in (1, 0)]
                pairs.append(
                    (
                        self._evaluate(simulation, candidate, fresh[0], label),
                        self._evaluate(simulation, release, fresh[1], release_label),
                    )
                )
        forgetting = self._forgetting(candidate, label, golden, margin=forgetting_margin)
        before = [
            entry.differences
            for entry in self._book.looks(release_hash)
            if entry.candidate_hash == candidate_hash and entry.look != look.look
        ]
        verdict = judge(pairs, config=config, look=look, before=before, forgetting=forgetting, legacy=legacy)
        streak = self._book.complete(
            look, release_hash=release_hash, passed=verdict.passed, differences=paired_differences(pairs)
        )
        return with_streak(verdict, streak)

    def _evaluate(self, simulation: Simulation, policy: Policy, suite: EvaluationSuite, label: str) -> EvaluationResult:
        if self._play is not None:
            return self._play(policy, suite, label)
        return evaluate_policy(simulation, policy, suite=suite, label=label)

    def _open(self, suite: EvaluationSuite, stack: ExitStack) -> Simulation:
        count = min(self._num_envs, self._config.episodes)
        choice = SimulationChoice(name=suite.simulation, num_envs=count, options=dict(suite.options))
        simulation = self._make_simulation(choice, num_envs=count)
        stack.callback(simulation.close)
        return simulation

    def _forgetting(
        self, candidate: Policy, label: str, golden: Sequence[tuple[str, EvaluationResult]], *, margin: float
    ) -> tuple[ForgettingVerdict, ...]:
        results: dict[str, EvaluationResult] = {}
        for _, earlier in golden:
            key = earlier.suite.content_hash()
            if key not in results:
                with ExitStack() as stack:
                    simulation = self._open(earlier.suite, stack)
                    results[key] = self._evaluate(simulation, candidate, earlier.suite, label)
        pairs = [(digest, results[earlier.suite.content_hash()], earlier) for digest, earlier in golden]
        return check_forgetting(pairs, margin=margin)


def _hashes(policies: tuple[Policy, Policy], simulations: Sequence[Simulation]) -> tuple[str, str]:
    """Check that both policies fit every simulation; hash them as the first one binds them."""
    hashes = []
    for policy in policies:
        actors = [copy.copy(policy) for _ in simulations]
        for actor, simulation in zip(actors, simulations, strict=True):
            actor.bind(simulation)
        hashes.append(actors[0].content_hash())
    return hashes[0], hashes[1]


def _without_seeds(suite: EvaluationSuite) -> EvaluationSuite:
    return suite.model_copy(update={"name": "same", "seeds": (0,), "action_seed": 0})


def paired_differences(pairs: Sequence[Pair]) -> dict[str, tuple[float, ...]]:
    """Return candidate minus release by scenario, as the look book keeps them."""
    return {
        first.scenario_hash(): tuple(a - b for a, b in zip(first.returns, second.returns, strict=True))
        for first, second in pairs
    }


def judge(
    pairs: Sequence[Pair],
    *,
    config: PromotionConfig,
    look: LookRecord,
    before: Sequence[Mapping[str, Sequence[float]]] = (),
    forgetting: Sequence[ForgettingVerdict] = (),
    legacy: LegacyFlags | None = None,
    resamples: int = 2000,
) -> PromotionVerdict:
    """Judge one look from (candidate, release) results, one pair per suite; the streak counts this look only.

    Parameters
    ----------
    before:
        Differences of earlier looks at this candidate (:func:`paired_differences`), passed or not. Looks at other
        scenarios or under other rules are left out.

    Raises
    ------
    DataError
        When a pair was not played on the same seeds and rules.
    """
    comparisons = tuple(compare_paired(first, second, resamples=resamples) for first, second in pairs)
    differences = [np.array(first.returns) - np.array(second.returns) for first, second in pairs]
    bound = statistics.mean_lower_bound(differences, alpha=look.level)
    now = paired_differences(pairs)
    alike = [now, *(earlier for earlier in before if earlier.keys() == now.keys())]
    pooled = [[value for one in alike for value in one[key]] for key in now]
    pooled_level = config.alpha * spending(look.look)
    difference = statistics.stratified_bootstrap(differences, lambda x: float(x.mean()), resamples=min(resamples, 500))
    if config.kpis is None:
        guardrails = check_default_guardrails(pairs, resamples=resamples)
    else:
        guardrails = check_guardrails(pairs, config.kpis, resamples=resamples)
    candidate, baseline = pairs[0]
    blockers = []
    if not bound > config.margin:
        blockers.append(
            f"return: the lower bound {bound:.4g} of the difference does not clear the margin {config.margin:g} "
            f"at level {look.level:.3g}"
        )
    for rail in guardrails:
        if rail.status == "missing":
            blockers.append(f"{rail.kpi}: not measured; the simulation must report it for completed episodes")
        elif rail.status == "regressed" and rail.difference is not None:
            blockers.append(
                f"{rail.kpi}: worse by {-rail.difference.estimate:.4g}, tolerated are {rail.margin:g} "
                f"({rail.direction.replace('_', ' ')})"
            )
    blockers += [
        f"forgotten: {-check.difference.estimate:.4g} below release {check.release[:12]} on suite {check.suite!r}"
        for check in forgetting
        if check.forgotten
    ]
    verdict = PromotionVerdict(
        decision="hold",
        passed=not blockers,
        candidate=candidate.label,
        candidate_hash=candidate.policy_hash,
        baseline=baseline.label,
        baseline_hash=baseline.policy_hash,
        look=look.look,
        level=look.level,
        alpha=config.alpha,
        margin=config.margin,
        lower_bound=bound,
        difference=interval_of(difference),
        pooled_looks=len(alike),
        pooled_pairs=sum(map(len, pooled)),
        pooled_level=pooled_level,
        pooled_lower_bound=statistics.mean_lower_bound(pooled, alpha=pooled_level),
        pass_streak=0,
        required_passes=config.required_passes,
        comparisons=comparisons,
        guardrails=guardrails,
        forgetting=tuple(forgetting),
        legacy=legacy,
        legacy_status=None if legacy is None else legacy.status,
        blockers=tuple(blockers),
        summary="",
    )
    return with_streak(verdict, (look,) if verdict.passed else ())


def with_streak(verdict: PromotionVerdict, streak: Sequence[LookRecord]) -> PromotionVerdict:
    """Complete a verdict by the candidate's streak of passed looks that ends with it.

    The streak promotes when it is long enough, its looks together were strict enough (when the required number of
    passes was changed between looks, a longer streak may be needed), and all looks at the candidate clear the margin
    together.
    """
    enough = any(
        len(streak) - start >= verdict.required_passes
        and math.prod(look.level for look in streak[start:]) <= verdict.alpha * spending(streak[start].look) * 1.000001
        for start in range(len(streak))
    )
    bound = verdict.pooled_lower_bound
    blockers = verdict.blockers
    if enough and bound is not None and not bound > verdict.margin:
        enough = False
        blockers = (
            *blockers,
            f"all {verdict.pooled_looks} looks at this candidate together: the lower bound {bound:.4g} of the "
            f"difference over {verdict.pooled_pairs} pairs does not clear the margin {verdict.margin:g} at level "
            f"{verdict.pooled_level:.3g}",
        )
    completed = verdict.model_copy(
        update={"pass_streak": len(streak), "decision": "promote" if enough else "hold", "blockers": blockers}
    )
    return completed.model_copy(update={"summary": _sentence(completed)})


def _sentence(verdict: PromotionVerdict) -> str:
    word = "more" if verdict.difference.estimate >= 0 else "less"
    interval = verdict.difference
    text = (
        f"{verdict.decision}: {verdict.candidate!r} returns {abs(interval.estimate):.4g} {word} than "
        f"{verdict.baseline!r} ({interval.confidence:.0%} interval {interval.low:.4g} to {interval.high:.4g}) on "
        f"{sum(c.episodes for c in verdict.comparisons)} fresh pairs; look {verdict.look}, "
        f"{verdict.pass_streak} of {verdict.required_passes} passes in a row"
    )
    return f"{text}; blocked by {'; '.join(verdict.blockers)}" if verdict.blockers else text
