"""What an episode is, what it returns, and that nothing else has a say in it."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from townlet_training_core.config.models import EvaluationConfig, SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.errors import (
    CapabilityError,
    ConfigurationError,
    DataError,
    NonFiniteError,
    SpaceMismatchError,
)
from townlet_training_core.evaluation import TownStreams, compare_paired, evaluate_policy, suite_from_config
from townlet_training_core.evaluation.scenarios import aggregate

SUITE = EvaluationSuite(simulation="fake", seeds=(30, 31, 32, 33, 34))


def test_the_return_is_the_mean_over_agents_of_the_summed_rewards(fake_town: Any, dial_policy: Any) -> None:
    # Every agent earns 1 a step, agent n adds 0.1 n: per step the three agents get 1.0, 1.1 and 1.2.
    result = evaluate_policy(fake_town(num_envs=2), dial_policy([0, 1, 0]), suite=SUITE)
    assert result.lengths == (4, 5, 6, 4, 5)
    np.testing.assert_allclose(result.agent_returns[0], [4.0, 4.4, 4.8], rtol=1e-6)
    np.testing.assert_allclose(result.returns, [4.4, 5.5, 6.6, 4.4, 5.5], rtol=1e-6)
    assert result.completed == (True,) * 5
    assert result.kpis == {"attendance": (1.0,) * 5}
    assert result.events == {"earned": (12, 15, 18, 12, 15), "rested": (0,) * 5}
    assert result.summary.mean.estimate == pytest.approx(np.mean(result.returns))


def test_a_slot_that_respawns_goes_on_earning_in_the_same_episode(fake_town: Any, dial_policy: Any) -> None:
    plain = evaluate_policy(fake_town(num_envs=2), dial_policy([0, 1, 0]), suite=SUITE)
    respawning = evaluate_policy(fake_town(num_envs=2, respawn_at=2), dial_policy([0, 1, 0]), suite=SUITE)
    assert respawning.lengths == plain.lengths
    assert respawning.agent_returns == plain.agent_returns


def test_a_slot_that_left_earns_nothing_and_does_not_hold_up_the_end(fake_town: Any, dial_policy: Any) -> None:
    # The last agent leaves in step 2, having earned 1.2 twice.
    result = evaluate_policy(fake_town(num_envs=2, leaves_at=2), dial_policy([0, 1, 0]), suite=SUITE)
    assert result.lengths == (4, 5, 6, 4, 5)
    np.testing.assert_allclose(result.agent_returns[2], [6.0, 6.6, 2.4], rtol=1e-6)


def test_a_single_agent_ends_its_episode_by_terminating(fake_town: Any, dial_policy: Any) -> None:
    result = evaluate_policy(fake_town(num_envs=1, agents=1, respawn_at=3), dial_policy([0, 1, 0]), suite=SUITE)
    assert result.lengths == (3,) * 5


def test_max_steps_cuts_and_leaves_no_indicator(fake_town: Any, dial_policy: Any) -> None:
    suite = SUITE.model_copy(update={"max_steps": 4})
    result = evaluate_policy(fake_town(num_envs=5), dial_policy([0, 1, 0]), suite=suite)
    assert result.lengths == (4,) * 5
    assert result.completed == (True, False, False, True, False)
    assert result.kpis["attendance"][0] == 1.0
    assert math.isnan(result.kpis["attendance"][1])
    restored = EvaluationResult.model_validate_json(result.model_dump_json())
    assert math.isnan(restored.kpis["attendance"][1])
    assert restored.returns == result.returns
    assert json.loads(result.model_dump_json())["kpis"]["attendance"][1] == "NaN"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    envs=st.integers(1, 7),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=9, unique=True),
    leaves=st.sampled_from([None, 2]),
    cut=st.sampled_from([None, 3, 70]),
)
def test_results_depend_neither_on_the_block_size_nor_on_the_other_seeds(
    fake_town: Any, dial_policy: Any, envs: int, seeds: list[int], leaves: int | None, cut: int | None
) -> None:
    suite = EvaluationSuite(simulation="fake", seeds=tuple(seeds), max_steps=cut, action_seed=3)
    policy = dial_policy([0.3, 0.4, 0.3])
    together = evaluate_policy(fake_town(num_envs=envs, noise=1.0, leaves_at=leaves), policy, suite=suite)
    for index, seed in enumerate(seeds):
        alone = evaluate_policy(
            fake_town(num_envs=1, noise=1.0, leaves_at=leaves),
            policy,
            suite=suite.model_copy(update={"seeds": (seed,)}),
        )
        assert alone.agent_returns[0] == together.agent_returns[index]
        assert alone.returns[0] == together.returns[index]
        assert alone.events["rested"][0] == together.events["rested"][index]
        assert repr(alone.kpis["attendance"][0]) == repr(together.kpis["attendance"][index])


def test_streams_hand_out_the_same_numbers_in_any_company() -> None:
    alone = TownStreams(9, [5], agents=2)
    mixed = TownStreams(9, [4, 5, 6], agents=2)
    for _ in range(130):  # past two refills
        np.testing.assert_array_equal(alone.random(2), mixed.random(6)[2:4])
    assert not np.array_equal(TownStreams(9, [5], agents=2).random(2), TownStreams(8, [5], agents=2).random(2))
    with pytest.raises(CapabilityError, match="one uniform per slot: 2 were expected, 3"):
        alone.random(3)


def test_the_callers_policy_is_left_alone(fake_town: Any, dial_policy: Any) -> None:
    policy = dial_policy([0, 1, 0])
    policy.state = 41
    evaluate_policy(fake_town(num_envs=2), policy, suite=SUITE)
    assert policy.state == 41
    assert policy.calls == 0


def test_greedy_takes_the_most_probable_action(fake_town: Any, dial_policy: Any) -> None:
    suite = SUITE.model_copy(update={"greedy": True})
    result = evaluate_policy(fake_town(num_envs=2), dial_policy([0.4, 0.1, 0.5]), suite=suite)
    assert result.returns[0] == pytest.approx(4 * 2.1)


def test_an_endless_episode_asks_for_max_steps(
    fake_town: Any, dial_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("townlet_training_core.evaluation.suite.STEP_LIMIT", 50)
    with pytest.raises(ConfigurationError, match=r"seeds \[30, 31\] did not end within 50 steps; give the suite"):
        evaluate_policy(fake_town(num_envs=2, endless=True), dial_policy([0, 1, 0]), suite=SUITE)


def test_rewards_that_are_not_finite_are_refused(fake_town: Any, dial_policy: Any) -> None:
    with pytest.raises(NonFiniteError, match=r"'fake-v1' gave rewards that are not finite .* \[30, 31\]"):
        evaluate_policy(fake_town(num_envs=2, broken_at=2), dial_policy([0, 1, 0]), suite=SUITE)


def test_a_policy_of_another_action_space_is_refused(fake_town: Any, dial_policy: Any) -> None:
    with pytest.raises(SpaceMismatchError, match="knows 5 actions"):
        evaluate_policy(fake_town(num_envs=2), dial_policy([0, 1, 0], actions=5), suite=SUITE)


def test_suites_refuse_repeated_and_negative_seeds() -> None:
    with pytest.raises(ValueError, match="all be different"):
        EvaluationSuite(simulation="fake", seeds=(1, 1))
    with pytest.raises(ValueError, match="not be negative"):
        EvaluationSuite(simulation="fake", seeds=(1, -1))


def test_hashes_tell_suites_apart_and_names_do_not_count() -> None:
    assert SUITE.content_hash() == SUITE.model_copy(update={"name": "other"}).content_hash()
    changed = SUITE.model_copy(update={"action_seed": 1})
    assert changed.content_hash() != SUITE.content_hash()
    assert changed.world_hash() == SUITE.world_hash()
    assert SUITE.model_copy(update={"options": {"agents": 2}}).world_hash() != SUITE.world_hash()


def test_the_suite_of_a_configuration() -> None:
    suite = suite_from_config(
        SimulationChoice(name="fake", options={"agents": 2}), EvaluationConfig(episodes=3, first_seed=7, max_steps=9)
    )
    assert (suite.simulation, suite.seeds, suite.max_steps) == ("fake", (7, 8, 9), 9)
    assert suite.options == {"agents": 2}


def test_a_paired_comparison_by_hand(fake_town: Any, dial_policy: Any) -> None:
    # Earning 2 instead of 1 a step: the difference is the length of the episode, whatever the noise.
    simulation = fake_town(num_envs=2, noise=5.0)
    better = evaluate_policy(simulation, dial_policy([0, 0, 1]), suite=SUITE, label="better")
    worse = evaluate_policy(simulation, dial_policy([0, 1, 0]), suite=SUITE, label="worse")
    comparison = compare_paired(better, worse)
    assert comparison.difference.estimate == pytest.approx(np.mean([4, 5, 6, 4, 5]), abs=1e-5)
    assert comparison.difference.low > 3.9
    assert comparison.difference_std == pytest.approx(np.std([4, 5, 6, 4, 5], ddof=1), abs=1e-5)
    assert comparison.effect_size == pytest.approx(4.8 / np.std([4, 5, 6, 4, 5], ddof=1), abs=1e-4)
    assert comparison.kpis["attendance"].estimate == 0.0
    assert comparison == compare_paired(better, worse)


def test_results_of_other_seeds_or_rules_are_not_paired(fake_town: Any, dial_policy: Any) -> None:
    policy = dial_policy([0, 1, 0])
    first = evaluate_policy(fake_town(num_envs=2), policy, suite=SUITE, label="first")
    other = evaluate_policy(
        fake_town(num_envs=2), policy, suite=SUITE.model_copy(update={"seeds": (1, 2, 3, 4, 5)}), label="second"
    )
    with pytest.raises(DataError, match="'first' and 'second' cannot be paired: they differ in seeds"):
        compare_paired(first, other)
    changed = evaluate_policy(fake_town(num_envs=2, rules_hash="rules-2"), policy, suite=SUITE, label="third")
    with pytest.raises(DataError, match="rules hash"):
        compare_paired(first, changed)


def test_records_refuse_columns_of_another_length(fake_town: Any, dial_policy: Any) -> None:
    result = evaluate_policy(fake_town(num_envs=2), dial_policy([0, 1, 0]), suite=SUITE)
    payload = json.loads(result.model_dump_json())
    payload["returns"] = payload["returns"][:-1]
    with pytest.raises(ValueError, match="'returns' has 4 entries, expected one for each of 5 seeds"):
        EvaluationResult.model_validate(payload)


def test_an_aggregate_weighs_every_episode_and_checks_its_sides(fake_town: Any, dial_policy: Any) -> None:
    simulation = fake_town(num_envs=2)
    other = EvaluationSuite(name="other", simulation="fake", seeds=(1, 2, 3))
    good = [evaluate_policy(simulation, dial_policy([0, 0, 1]), suite=suite) for suite in (SUITE, other)]
    poor = [evaluate_policy(simulation, dial_policy([0, 1, 0]), suite=suite) for suite in (SUITE, other)]
    both = aggregate(good, poor)
    assert both.suites == ("default", "other")
    assert both.mean.estimate == pytest.approx(np.mean([*good[0].returns, *good[1].returns]))
    assert both.probability_of_improvement is not None
    assert both.probability_of_improvement.estimate == 1.0
    assert aggregate(good).probability_of_improvement is None
    for wrong in ((good, poor[:1]), (good, poor[::-1]), ((), ())):
        with pytest.raises(DataError):
            aggregate(*wrong)


def test_slots_that_end_apart_have_episodes_of_their_own(fake_town: Any, dial_policy: Any) -> None:
    class Apart(fake_town):  # type: ignore[misc]  # a fixture's class
        """Slot n of an environment begins again after every 2 + n steps, whatever the others do."""

        def step(self, actions: Any, out: Any) -> None:
            super().step(actions, out)
            ticks = np.repeat(self._tick, self.spec.agents_per_env)
            slot = np.arange(out.terminated.size) % self.spec.agents_per_env
            out.terminated[:] = ticks % (2 + slot) == 0

    policy = dial_policy([0, 1, 0])  # earns 1 + 0.1 n a step
    suite = EvaluationSuite(simulation="fake", seeds=(3, 4, 5), episode="slot")
    result = evaluate_policy(Apart(num_envs=2, endless=True), policy, suite=suite)
    # Slots 0, 1, 2 end after 2, 3 and 4 steps, having earned 1, 1.1 and 1.2 in each.
    np.testing.assert_allclose(result.agent_returns, [[2.0, 3.3, 4.8]] * 3)
    assert result.lengths == (4, 4, 4)
    assert result.completed == (True, True, True)
    assert result.events == {"earned": (9, 9, 9), "rested": (0, 0, 0)}
    assert result.kpis == {}
    # The first time that all of them end together would be tick 12.
    together = evaluate_policy(
        Apart(num_envs=2, endless=True), policy, suite=suite.model_copy(update={"episode": "environment"})
    )
    assert together.lengths == (12, 12, 12)


def test_a_suite_of_whole_environments_hashes_as_before_there_was_a_choice() -> None:
    suite = EvaluationSuite(simulation="fake", seeds=(1, 2))
    described = suite.model_dump(mode="json", exclude={"name", "episode"})
    expected = hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert suite.content_hash() == expected
    assert suite.model_copy(update={"episode": "slot"}).content_hash() != expected
