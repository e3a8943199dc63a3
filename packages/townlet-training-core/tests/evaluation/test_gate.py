"""The gate passes gains, holds noise, and counts how often it is asked."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_core.config.models import KpiGuardrail, PromotionConfig, SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.dto.release import LegacyFlags, LookRecord
from townlet_training_core.errors import ArtifactError, ConfigurationError, DataError, SpaceMismatchError
from townlet_training_core.evaluation import evaluate_policy, summarise_returns
from townlet_training_core.promotion.gate import PromotionGate, check_forgetting, judge, with_streak
from townlet_training_core.promotion.looks import FIRST_FRESH_SEED, LookBook, look_level, spending
from townlet_training_core.statistics import mean_lower_bound

SUITE = EvaluationSuite(simulation="fake", seeds=(0,), options={"noise": 1.0, "length": 5})
CONFIG = PromotionConfig(episodes=16)


def result(returns: Any, *, label: str, kpis: dict[str, Any] | None = None, name: str = "default") -> EvaluationResult:
    values = tuple(float(v) for v in returns)
    count = len(values)
    return EvaluationResult(
        label=label,
        policy=label,
        policy_hash=label,
        suite=EvaluationSuite(name=name, simulation="fake", seeds=tuple(range(count))),
        simulation="fake-v1",
        rules_hash="r",
        returns=values,
        agent_returns=tuple((v,) for v in values),
        lengths=(1,) * count,
        completed=(True,) * count,
        kpis={key: tuple(float(v) for v in column) for key, column in (kpis or {}).items()},
        summary=summarise_returns(values, resamples=10),
    )


def look(number: int = 1, *, level: float = 0.05, candidate: str = "new") -> LookRecord:
    return LookRecord(look=number, candidate_hash=candidate, level=level, first_seed=0, episodes=4)


def make(fake_town: Any) -> Any:
    def factory(choice: SimulationChoice, /, *, num_envs: int) -> Any:
        return fake_town(num_envs=num_envs, **choice.options)

    return factory


def test_the_bound_by_hand() -> None:
    # Differences 1, 2, 3, 4: mean 2.5, Student bound 2.5 - 2.3534 * sqrt(5 / 3) / 2 = 0.98 at level 0.05.
    new, old = result([2, 4, 6, 8], label="new"), result([1, 2, 3, 4], label="old")
    verdict = judge([(new, old)], config=PromotionConfig(margin=0.9), look=look(), resamples=50)
    assert verdict.passed
    assert verdict.lower_bound == pytest.approx(0.98089, abs=1e-4)
    assert verdict.decision == "hold"  # one pass of two
    assert "1 of 2 passes in a row" in verdict.summary
    blocked = judge([(new, old)], config=PromotionConfig(margin=1.0), look=look(), resamples=50)
    assert not blocked.passed
    assert blocked.pass_streak == 0
    assert "does not clear the margin 1 at level 0.05" in blocked.summary


def test_equal_returns_never_pass_with_margin_zero() -> None:
    same = result([1, 2, 3, 4], label="x")
    assert not judge([(same, same)], config=PromotionConfig(), look=look(), resamples=50).passed


def test_suites_count_alike() -> None:
    gains = (result([3, 4, 5, 4], label="new"), result([1, 2, 3, 4], label="old"))
    losses = (result([0, 1, 2, 3], label="new", name="b"), result([1, 3, 4, 5], label="old", name="b"))
    verdict = judge([gains, losses], config=PromotionConfig(), look=look(), resamples=50)
    assert verdict.difference.estimate == pytest.approx((1.5 - 1.75) / 2)
    assert len(verdict.comparisons) == 2
    assert not verdict.passed


@given(st.integers(1, 5), st.floats(0.001, 0.5), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_all_streaks_together_spend_at_most_alpha(passes: int, alpha: float, looks: int) -> None:
    levels = [look_level(k, alpha=alpha, required_passes=passes) for k in range(1, looks + passes)]
    spent = math.fsum(math.prod(levels[k : k + passes]) for k in range(looks))
    assert spent <= alpha * (1 + 1e-9)
    assert all(later <= earlier for earlier, later in pairwise(levels))
    assert levels[0] == pytest.approx((alpha / 3) ** (1 / passes))


@pytest.mark.parametrize(
    ("direction", "change", "margin", "status"),
    [
        ("higher_is_better", -0.1, 0.2, "ok"),
        ("higher_is_better", -0.3, 0.2, "regressed"),
        ("higher_is_better", +0.3, 0.0, "ok"),
        ("lower_is_better", +0.3, 0.2, "regressed"),
        ("lower_is_better", -0.3, 0.0, "ok"),
    ],
)
def test_guardrails_know_their_direction(direction: Any, change: float, margin: float, status: str) -> None:
    base = np.linspace(0.4, 0.6, 8)
    new = result(np.arange(8) + 5, label="new", kpis={"k": base + change})
    old = result(np.arange(8), label="old", kpis={"k": base})
    config = PromotionConfig(kpis=(KpiGuardrail(kpi="k", direction=direction, margin=margin),))
    verdict = judge([(new, old)], config=config, look=look(), resamples=50)
    assert verdict.guardrails[0].status == status
    assert verdict.passed == (status != "regressed")
    if status == "regressed":
        assert "k: worse by 0.3, tolerated are 0.2" in verdict.summary


def test_a_guardrail_is_unclear_where_only_the_interval_reaches_beyond() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=8)
    new = result(np.arange(8) + 5, label="new", kpis={"k": noise - noise.mean()})
    old = result(np.arange(8), label="old", kpis={"k": np.zeros(8)})
    config = PromotionConfig(kpis=(KpiGuardrail(kpi="k", direction="higher_is_better", margin=0.1),))
    verdict = judge([(new, old)], config=config, look=look())
    assert verdict.guardrails[0].status == "unclear"
    assert verdict.passed


def test_an_indicator_that_is_not_measured_blocks() -> None:
    new, old = result([5, 6, 7], label="new", kpis={"k": [math.nan] * 3}), result([1, 2, 3.5], label="old")
    config = PromotionConfig(kpis=(KpiGuardrail(kpi="k", direction="higher_is_better", margin=0),))
    verdict = judge([(new, old)], config=config, look=look(), resamples=50)
    assert verdict.guardrails[0].status == "missing"
    assert verdict.blockers == ("k: not measured; the simulation must report it for completed episodes",)


def test_legacy_flags_are_reported_and_block_nothing() -> None:
    new, old = result([5, 6, 7], label="new"), result([1, 2, 3.5], label="old")
    verdict = judge([(new, old)], config=CONFIG, look=look(), legacy=LegacyFlags(loss_flag=True), resamples=50)
    assert verdict.legacy_status == "HOLD"
    assert verdict.passed
    assert LegacyFlags().status == "PASS"
    assert LegacyFlags(bc_failed=True, loss_flag=True).status == "FAIL"


def test_what_an_earlier_release_could_do_must_not_be_forgotten() -> None:
    earlier = result([5, 5.5, 6, 5], label="earlier", name="village")
    worse, same = result([1, 2, 1, 1], label="new", name="village"), result([5, 5, 6, 6], label="new", name="village")
    (forgotten,) = check_forgetting([("d" * 64, worse, earlier)])
    assert forgotten.forgotten
    assert not check_forgetting([("d", same, earlier)])[0].forgotten
    assert not check_forgetting([("d", worse, earlier)], margin=10.0)[0].forgotten
    assert check_forgetting([]) == ()
    pair = (result([5, 6, 7], label="new"), result([1, 2, 3.5], label="old"))
    verdict = judge([pair], config=CONFIG, look=look(), forgetting=[forgotten], resamples=50)
    assert not verdict.passed
    assert "below release dddddddddddd on suite 'village'" in verdict.summary


def test_mismatched_results_are_refused() -> None:
    new, old = result([5, 6, 7], label="new"), result([1, 2], label="old")
    with pytest.raises(DataError, match="differ in seeds"):
        judge([(new, old)], config=CONFIG, look=look())


def test_two_passes_on_fresh_seeds_promote_a_true_gain(fake_town: Any, dial_policy: Any) -> None:
    book = LookBook()
    gate = PromotionGate(make(fake_town), [SUITE], config=CONFIG, book=book, num_envs=8)
    better, release = dial_policy([0.1, 0.1, 0.8], name="better"), dial_policy([0.3, 0.4, 0.3], name="release")
    first = gate.ask(better, release, label="candidate")
    assert (first.passed, first.decision, first.pass_streak, first.look) == (True, "hold", 1, 1)
    second = gate.ask(better, release, label="candidate")
    assert (second.passed, second.decision, second.pass_streak, second.look) == (True, "promote", 2, 2)
    assert second.comparisons[0].world_hash != first.comparisons[0].world_hash
    looks = book.looks(release.content_hash())
    assert [entry.first_seed for entry in looks] == [FIRST_FRESH_SEED, FIRST_FRESH_SEED + 16]
    assert [entry.passed for entry in looks] == [True, True]
    assert second.summary.startswith("promote: 'candidate' returns ")


def test_identical_sampling_policies_differ_by_noise_and_are_held(fake_town: Any, dial_policy: Any) -> None:
    gate = PromotionGate(make(fake_town), [SUITE], config=CONFIG, book=LookBook(), num_envs=16)
    policy = dial_policy([0.3, 0.4, 0.3])
    verdicts = [gate.ask(policy, policy) for _ in range(10)]
    assert all(verdict.comparisons[0].difference_std > 0 for verdict in verdicts)
    assert all(verdict.decision == "hold" for verdict in verdicts)
    assert verdicts[9].level < verdicts[0].level


def test_a_gain_that_forgets_is_held(fake_town: Any, dial_policy: Any) -> None:
    golden_suite = SUITE.model_copy(update={"name": "golden", "seeds": tuple(range(50, 66))})
    better, release = dial_policy([0.1, 0.1, 0.8]), dial_policy([0.3, 0.4, 0.3])
    earlier = evaluate_policy(fake_town(num_envs=4, **SUITE.options), dial_policy([0, 0, 1]), suite=golden_suite)
    gate = PromotionGate(make(fake_town), [SUITE], config=CONFIG, book=LookBook())
    assert not gate.ask(better, release, golden=[("e" * 64, earlier)]).passed
    assert gate.ask(better, release, golden=[("e" * 64, earlier)], forgetting_margin=5.0).passed


def test_a_misfit_spends_no_look(fake_town: Any, dial_policy: Any) -> None:
    book = LookBook()
    gate = PromotionGate(make(fake_town), [SUITE], config=CONFIG, book=book)
    release = dial_policy([0.3, 0.4, 0.3])
    with pytest.raises(SpaceMismatchError):
        gate.ask(dial_policy([0.5, 0.5], actions=2), release)
    assert book.looks(release.content_hash()) == ()
    with pytest.raises(ConfigurationError, match="at least one suite"):
        PromotionGate(make(fake_town), [], config=CONFIG, book=book)


def reserve(book: LookBook, candidate: str = "new", *, passes: int = 2) -> LookRecord:
    return book.reserve(release_hash="old", candidate_hash=candidate, alpha=0.05, required_passes=passes, episodes=10)


def test_other_candidates_do_not_break_a_streak_and_broken_looks_do(tmp_path: Path) -> None:
    book = LookBook(tmp_path / "gate.json")
    book.complete(reserve(book), release_hash="old", passed=True)
    book.complete(reserve(book, "other"), release_hash="old", passed=False)
    again = LookBook(tmp_path / "gate.json")
    streak = again.complete(reserve(again), release_hash="old", passed=True)
    assert [entry.look for entry in streak] == [1, 3]
    reserve(again)  # broken off: never completed
    streak = again.complete(reserve(again), release_hash="old", passed=True)
    assert [entry.look for entry in streak] == [5]
    assert again.complete(reserve(again), release_hash="old", passed=False) == ()


def test_changing_the_number_of_passes_between_looks_does_not_loosen_the_gate() -> None:
    pair = (result([5, 6, 7], label="new"), result([1, 2, 3.5], label="old"))
    verdict = judge([pair], config=PromotionConfig(required_passes=1), look=look(level=0.05), resamples=50)
    assert verdict.decision == "hold"  # level 0.05 was meant for two passes; one pass may spend 0.05 / 3
    strict = judge([pair], config=PromotionConfig(required_passes=1), look=look(level=0.0166), resamples=50)
    assert strict.decision == "promote"
    both = with_streak(verdict, (look(1), look(2)))
    assert both.decision == "promote"


def test_a_corrupt_look_book_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text("{")
    with pytest.raises(ArtifactError, match="look book"):
        reserve(LookBook(path))
    assert path.read_text() == "{"


def spread(mean: float, *, episodes: int = 32, sharp: float = 1.0) -> Any:
    """Returns of a policy with the given mean: a fixed, symmetric spread around it."""
    return mean + sharp * np.tile([-1.0, 1.0], episodes // 2)


def test_all_looks_at_a_candidate_count_together_by_hand() -> None:
    # Now 16 pairs of 2 and 16 of 4, before 32 pairs of -1: mean (3 * 32 - 32) / 64 = 1 over 64 pairs.
    new, old = result(spread(3.0), label="new"), result(np.zeros(32), label="old")
    before = {new.scenario_hash(): (-1.0,) * 32}
    verdict = judge([(new, old)], config=PromotionConfig(margin=0.2), look=look(2), before=[before], resamples=50)
    assert (verdict.pooled_looks, verdict.pooled_pairs) == (2, 64)
    assert verdict.pooled_level == pytest.approx(0.05 / 6)
    # Squares around 1: 16 * 1 + 16 * 9 + 32 * 4 = 288; quantile 2.461 of Student(63) at 0.05 / 6.
    assert verdict.pooled_lower_bound == pytest.approx(1 - 2.4610 * math.sqrt(288 / 63 / 64), abs=1e-3)
    alone = judge([(new, old)], config=PromotionConfig(margin=0.2), look=look(2), resamples=50)
    assert (alone.pooled_looks, alone.pooled_pairs) == (1, 32)


def test_passes_in_a_row_do_not_promote_what_all_looks_together_do_not_carry() -> None:
    new, old = result(spread(1.0), label="new"), result(np.zeros(32), label="old")
    config = PromotionConfig()
    bad = {new.scenario_hash(): (-9.0,) * 32}
    streak = (look(2), look(3))
    held = with_streak(judge([(new, old)], config=config, look=look(3), before=[bad], resamples=50), streak)
    assert (held.passed, held.pass_streak, held.decision) == (True, 2, "hold")
    assert "all 2 looks at this candidate together: the lower bound" in held.summary
    # Looks at other scenarios, or under other rules, say nothing about this one.
    elsewhere = {"other": (-9.0,) * 32}
    free = with_streak(judge([(new, old)], config=config, look=look(3), before=[elsewhere], resamples=50), streak)
    assert (free.pooled_looks, free.decision, free.blockers) == (1, "promote", ())


def test_the_book_keeps_the_differences_for_later_looks(fake_town: Any, dial_policy: Any, tmp_path: Path) -> None:
    better, release = dial_policy([0.1, 0.1, 0.8]), dial_policy([0.3, 0.4, 0.3])
    suites = [SUITE, SUITE.model_copy(update={"name": "long", "options": {"noise": 1.0, "length": 7}})]
    for pairs in (32, 64):  # two gates, as two processes would have them
        gate = PromotionGate(make(fake_town), suites, config=CONFIG, book=LookBook(tmp_path / "gate.json"), num_envs=8)
        verdict = gate.ask(better, release)
        assert (verdict.pooled_looks, verdict.pooled_pairs) == (pairs // 32, pairs)
    other = gate.ask(dial_policy([0.1, 0.0, 0.9]), release)
    assert (other.pooled_looks, other.pooled_pairs) == (1, 32)
    kept = LookBook(tmp_path / "gate.json").looks(release.content_hash())
    assert [sorted(map(len, entry.differences.values())) for entry in kept] == [[16, 16]] * 3
    assert other.difference.estimate == pytest.approx(np.mean([np.mean(v) for v in kept[2].differences.values()]))


def test_a_scenario_under_two_names_is_refused(fake_town: Any) -> None:
    twice = [SUITE, SUITE.model_copy(update={"name": "again", "seeds": (7,), "action_seed": 3})]
    with pytest.raises(ConfigurationError, match="'default' and 'again' are one scenario"):
        PromotionGate(make(fake_town), twice, config=CONFIG, book=LookBook())


def test_what_a_town_must_not_lose_is_guarded_by_default() -> None:
    old = result(np.zeros(8), label="old", kpis={"attendance": [0.99] * 8, "starvation": [0.0] * 8, "gini": [0.1] * 8})
    # Attends less and shares worse; shares are not guarded, and lateness and conflicts are not measured.
    new = result(
        np.arange(8) + 5.0, label="new", kpis={"attendance": [0.76] * 8, "starvation": [0.0] * 8, "gini": [0.3] * 8}
    )
    verdict = judge([(new, old)], config=PromotionConfig(), look=look(), resamples=50)
    assert [(rail.kpi, rail.status) for rail in verdict.guardrails] == [
        ("attendance", "regressed"),
        ("starvation", "ok"),
    ]
    assert "attendance: worse by 0.23, tolerated are 0.05 (higher is better)" in verdict.summary
    assert judge([(new, old)], config=PromotionConfig(kpis=()), look=look(), resamples=50).passed
    # A second scenario without them does not switch them off.
    bare = (result(np.arange(8) + 5.0, label="new", name="b"), result(np.zeros(8), label="old", name="b"))
    assert not judge([bare, (new, old)], config=PromotionConfig(), look=look(), resamples=50).passed


@pytest.mark.deep
def test_two_thousand_gates_keep_their_word() -> None:
    """2,000 gates over equals, asked ten times each, and 2,000 over a gain of half a deviation, asked twice."""
    rng = np.random.default_rng(3)
    config = PromotionConfig()

    def promoted(draw: Any, gain: float, looks: int) -> bool:
        streak, everything = 0, np.empty(0)
        for number in range(1, looks + 1):
            level = look_level(number, alpha=config.alpha, required_passes=config.required_passes)
            differences = gain + draw(rng, config.episodes)
            everything = np.concatenate([everything, differences])
            streak = streak + 1 if mean_lower_bound([differences], alpha=level) > config.margin else 0
            together = mean_lower_bound([everything], alpha=config.alpha * spending(number))
            if streak >= config.required_passes and together > config.margin:
                return True
        return False

    deviation = math.sqrt((math.e - 1) * math.e)
    shapes = {
        "normal": lambda rng, n: rng.normal(size=n),
        "lognormal, skewed down": lambda rng, n: (math.sqrt(math.e) - np.exp(rng.normal(size=n))) / deviation,
    }
    for name, draw in shapes.items():
        assert sum(promoted(draw, 0.0, 10) for _ in range(2000)) < 0.05 * 2000, name
        assert sum(promoted(draw, 0.5, config.required_passes) for _ in range(2000)) > 0.9 * 2000, name
