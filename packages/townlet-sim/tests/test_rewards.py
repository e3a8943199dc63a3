"""Every term of the reward fires, with the number that the rules give; guards and clips hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_sim import columns as c
from townlet_sim.config import TownConfig
from townlet_sim.engine import GivenAgent, GivenTown, StepRows, TownBatch
from townlet_sim.layout import Layout, PlacedObject
from townlet_sim.spaces import REWARD_TERMS

QUIET: dict[str, Any] = {"perturbations": {"enabled": False}, "profiles": ["balanced"]}


def open_town(options: dict[str, Any], *agents: GivenAgent) -> tuple[TownBatch, StepRows]:
    """A 12 x 12 floor with a bed, a fridge, a workplace and a table."""
    things = (
        PlacedObject("bed", 0, 0),
        PlacedObject("fridge", 3, 3),
        PlacedObject("workplace", 8, 8),
        PlacedObject("table", 6, 5),
    )
    walkable = np.ones((12, 12), np.bool_)
    for thing in things:
        walkable[thing.y, thing.x] = False
    config = TownConfig.model_validate({**QUIET, **options, "agents": len(agents)})
    town = TownBatch(config, 1, given=GivenTown(layout=Layout(walkable, things), agents=agents))
    rows = town.allocate()
    town.reset(seed=5, out=rows)
    return town, rows


def at(y: int, x: int, *needs: float) -> GivenAgent:
    hunger, hygiene, energy = needs or (0.8, 0.8, 0.8)
    return GivenAgent(position=(y, x), needs=(hunger, hygiene, energy), wallet=3.0)


def terms(town: TownBatch, slot: int = 0) -> dict[str, float]:
    return dict(zip(REWARD_TERMS, town.reward_terms[0, slot].tolist(), strict=True))


def play(town: TownBatch, rows: StepRows, *actions: int) -> dict[str, float]:
    town.step(np.array(actions, np.int64), rows)
    found = terms(town)
    assert sum(value for name, value in found.items() if name != "total") == pytest.approx(found["total"], abs=1e-6)
    assert found["total"] == rows.rewards[0]
    return found


def test_survival_and_needs_by_hand() -> None:
    town, rows = open_town({}, at(5, 5, 0.5, 0.6, 0.7))
    found = play(town, rows, c.STAY)
    # After one tick of decay: .498, .599, .69875.
    expected = -0.05 * (1.0 * 0.502**2 + 0.6 * 0.401**2 + 0.8 * 0.30125**2)
    assert found["survival"] == pytest.approx(0.002)
    assert found["needs_penalty"] == pytest.approx(expected, rel=1e-5)
    assert found["total"] == pytest.approx(0.002 + expected, rel=1e-5)


def test_wage_and_punctuality_by_hand() -> None:
    town, rows = open_town({"jobs": [{"name": "clerk", "start": 0, "end": 100}]}, at(8, 7))
    first = play(town, rows, c.WORK)
    second = play(town, rows, c.WORK)
    assert first["wage"] == pytest.approx(0.0118)
    assert [first["punctuality"], second["punctuality"]] == pytest.approx([0.02 / 100, 0.04 / 100])
    assert play(town, rows, c.STAY)["punctuality"] == 0.0


def test_withheld_wages_count_against_the_agent() -> None:
    town, rows = open_town({"jobs": [{"name": "clerk", "start": 0, "end": 100}]}, at(0, 5))
    found = [play(town, rows, c.STAY)["wage"] for _ in range(10)]
    assert found == [0.0] * 6 + [pytest.approx(-0.0118)] * 4
    assert rows.observations["features"][0, 9] == pytest.approx(4 * 0.0118)


def test_wages_can_be_left_out() -> None:
    options = {"jobs": [{"name": "clerk", "start": 0, "end": 100}], "rewards": {"wage": False}}
    town, rows = open_town(options, at(8, 7))
    assert play(town, rows, c.WORK)["wage"] == 0.0
    assert town.arrays.agent_f[0, 0, c.WALLET] > 3.0


@pytest.mark.parametrize(("stage", "gain"), [("OFF", 0.0), ("C1", 0.6 * 0.02), ("C3", 0.05), ("C2", 0.6 * 0.02)])
def test_a_chat_pays_both_by_the_social_stage(stage: str, gain: float) -> None:
    options = {"social": {"chat_success": 1.0}, "rewards": {"social_stage": stage}}
    town, rows = open_town(options, at(5, 5), at(5, 6))
    for n in range(2):
        town.arrays.tie_other[0, n, 0] = 1 - n
        town.arrays.tie[0, n, 0] = (0.4, 0.2, 0.0)
    found = play(town, rows, c.CHAT, c.STAY)
    # Quality .5 + .2 x .4 + .1 x .2 = .6; in C3 .6 x (.02 + .3 x .4 + .2 x .2) = .108 is capped.
    assert found["social_bonus"] == pytest.approx(gain)
    assert terms(town, 1)["social_bonus"] == pytest.approx(gain)


def test_a_failed_chat_costs_the_speaker_twice_as_much() -> None:
    town, rows = open_town({"social": {"chat_success": 0.0}}, at(5, 5), at(5, 6))
    assert play(town, rows, c.CHAT, c.STAY)["social_penalty"] == pytest.approx(-0.01)
    assert terms(town, 1)["social_penalty"] == pytest.approx(-0.005)


def test_no_social_bonus_in_dire_need() -> None:
    town, rows = open_town({"social": {"chat_success": 1.0}}, at(5, 5, 0.1, 0.8, 0.8), at(5, 6))
    assert play(town, rows, c.CHAT, c.STAY)["social_bonus"] == 0.0
    assert terms(town, 1)["social_bonus"] > 0.0


def test_a_shared_meal_pays_both() -> None:
    town, rows = open_town({}, at(5, 5), at(5, 6, 0.4, 0.8, 0.8))
    town.arrays.agent_i[0, 0, c.PORTIONS] = 2
    town.publish(rows)
    assert play(town, rows, c.SHARE, c.STAY)["social_bonus"] == pytest.approx(0.03)
    assert terms(town, 1)["social_bonus"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("profile", "term", "factor"),
    [
        ("stoic", "survival", 1.1),
        ("stoic", "needs_penalty", 1 / 1.1),
        ("industrious", "wage", 1.25),
        ("industrious", "punctuality", 1.25),
        ("socialite", "social_bonus", 1.2),
        ("stoic", "social_bonus", 1.0),
    ],
)
def test_a_profile_values_its_own_terms_when_asked(profile: str, term: str, factor: float) -> None:
    found = []
    for multipliers in (False, True):
        options = {
            "profiles": [profile],
            "personality": {"reward_multipliers": multipliers},
            "jobs": [{"name": "clerk", "start": 0, "end": 100}],
        }
        town, rows = open_town(options, at(7, 6), at(7, 5, 0.4, 0.8, 0.8))  # at the table, and at work
        town.arrays.agent_i[0, 0, c.PORTIONS] = 2
        town.publish(rows)
        action = c.SHARE if term == "social_bonus" else c.WORK
        found.append(play(town, rows, action, c.STAY)[term])
    assert found[0] != 0.0
    assert found[1] == pytest.approx(factor * found[0], rel=1e-6)


def test_withheld_wages_weigh_less_on_the_industrious() -> None:
    options = {
        "profiles": ["industrious"],
        "personality": {"reward_multipliers": True},
        "jobs": [{"name": "clerk", "start": 0, "end": 100}],
    }
    town, rows = open_town(options, at(0, 5))
    found = [play(town, rows, c.STAY)["wage"] for _ in range(7)]
    assert found[-1] == pytest.approx(-0.0118 / 1.25)


@pytest.mark.parametrize(("stage", "gain"), [("C1", 0.0), ("C2", 0.005)])
def test_leaving_a_rivals_queue_is_avoidance(stage: str, gain: float) -> None:
    town, rows = open_town({"rewards": {"social_stage": stage}}, at(2, 3), at(4, 3))
    town.arrays.tie_other[0, 0, 0] = 1
    town.arrays.tie[0, 0, 0, c.RIVALRY] = 0.9
    play(town, rows, c.STAY, c.USE)
    play(town, rows, c.USE, c.STAY)
    assert play(town, rows, c.LEAVE, c.STAY)["social_avoidance"] == pytest.approx(gain)
    assert not rows.action_mask[0, c.USE]  # the cooldown keeps this from being farmed


def test_shaping_is_the_discounted_change_of_potential() -> None:
    town, rows = open_town({"rewards": {"shaping": True}}, at(5, 5))
    before = -(0.2 + 0.6 * 0.2 + 0.8 * 0.2) * 0.05
    after = -(0.202 + 0.6 * 0.201 + 0.8 * 0.20125) * 0.05
    assert play(town, rows, c.STAY)["shaping"] == pytest.approx(0.99 * after - before, rel=1e-5)


def test_a_faint_is_felt_in_full_after_the_clip() -> None:
    town, rows = open_town({"needs": {"faint_ticks": 1}}, at(5, 5, 0.0, 0.0, 0.9))
    found = play(town, rows, c.STAY)
    assert found["terminal_penalty"] == -1.0
    assert found["total"] < -1.0
    assert found["survival"] == 0.0


def test_nothing_positive_for_a_while_after_an_exit() -> None:
    options = {"needs": {"faint_ticks": 1, "initial_low": 1.0}, "rewards": {"needs_scale": 0.0}}
    town, rows = open_town(options, at(5, 5, 0.0, 0.8, 0.8))
    play(town, rows, c.STAY)
    totals = [play(town, rows, c.STAY) for _ in range(11)]
    assert [found["total"] for found in totals] == [0.0] * 10 + [pytest.approx(0.002)]
    assert totals[0]["clip_adjustment"] == pytest.approx(-0.002)


def test_running_terms_are_clipped_per_tick_and_per_episode() -> None:
    rewards = {"needs_scale": 1.0, "clip_per_episode": 1.0}
    town, rows = open_town({"rewards": rewards}, at(5, 5, 0.3, 0.3, 0.3))
    totals = [play(town, rows, c.STAY)["total"] for _ in range(8)]
    assert totals == [pytest.approx(-0.2, abs=1e-6)] * 5 + [pytest.approx(0.0, abs=1e-6)] * 3


def test_the_expert_lives_with_a_reward_that_is_alive() -> None:
    town = TownBatch(TownConfig(episode_ticks=1000), 16)
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    seen, clipped, totals = np.zeros(len(REWARD_TERMS)), 0, []
    for _ in range(1000):
        town.step(town.expert_actions(), rows)
        seen += np.abs(town.reward_terms).sum(axis=(0, 1))
        clipped += int((np.abs(town.reward_terms[..., c.T_CLIP]) > 1e-6).sum())
        totals.append(rows.rewards.copy())
    assert clipped <= 0.05 * 1000 * 16 * 8
    assert np.std(totals) > 0.005
    for name in ("survival", "needs_penalty", "wage", "punctuality", "social_bonus", "social_penalty"):
        assert seen[REWARD_TERMS.index(name)] > 0, name
