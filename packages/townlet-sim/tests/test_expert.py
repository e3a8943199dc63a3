"""The economy closes, the expert lives on it, weaker policies do worse, and the expert can be cloned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_sim import columns as c
from townlet_sim.config import TownConfig
from townlet_sim.engine import GivenTown, TownBatch
from townlet_sim.layout import Layout, PlacedObject
from townlet_sim.scores import normalised, reference_ceiling
from townlet_sim.spaces import SCRIPTED_POLICIES, ScriptedPolicy


def episode(policy: ScriptedPolicy, *, towns: int, seed: int = 0, **options: Any) -> tuple[TownBatch, float]:
    """Play one episode in every town; return the towns and the mean return of a slot per day."""
    town = TownBatch(TownConfig.model_validate(options), towns)
    rows = town.allocate()
    town.reset(seed=seed, out=rows)
    total = 0.0
    for _ in range(town.config.horizon):
        town.step(town.scripted_actions(policy), rows)
        total += float(rows.rewards.mean())
    return town, total * town.config.ticks_per_day / town.config.horizon


def test_a_full_shift_pays_for_the_basket_with_some_slack() -> None:
    config = TownConfig()
    for job in config.jobs:
        income = job.wage * (job.end - job.start)
        assert 0.10 <= 1 - config.economy.basket / income <= 0.20, job.name


def test_the_expert_lives_and_attends_and_its_income_covers_its_basket() -> None:
    town, _ = episode("expert", towns=24, seed=1000)
    kpis = town.kpis()
    assert kpis["exits"].sum() == 0
    assert kpis["attendance"].mean() > 0.9
    assert kpis["attendance"].min() > 0.75


@pytest.mark.deep
def test_the_expert_lives_four_days_on_a_hundred_seeds() -> None:
    town, _ = episode("expert", towns=100, seed=0)
    assert town.kpis()["exits"].sum() == 0
    assert town.kpis()["attendance"].mean() > 0.9


def test_what_the_expert_earns_exceeds_what_a_day_costs() -> None:
    town = TownBatch(TownConfig(), 16)
    rows = town.allocate()
    town.reset(seed=3, out=rows)
    earned = np.zeros((16, 8))
    for _ in range(3999):
        town.step(town.expert_actions(), rows)
        earned += town.arrays.agent_f[..., c.PAID]
    per_day = float(earned.mean()) / 4
    assert 1.8 < per_day < 2.12 + 1e-9
    assert float(town.arrays.agent_f[..., c.WALLET].mean()) > town.config.economy.start_wallet


def test_the_order_of_the_policies_is_as_it_should_be() -> None:
    names: tuple[ScriptedPolicy, ...] = ("random", "greedy", "expert")
    found = {name: episode(name, towns=24, episode_days=2)[1] for name in names}
    assert found["random"] < found["greedy"] < found["expert"]
    ceiling = reference_ceiling(TownConfig(episode_days=2))
    scores = {name: normalised(value, random=found["random"], ceiling=ceiling) for name, value in found.items()}
    assert 0.1 < scores["greedy"] < scores["expert"] - 0.05
    assert 0.5 < scores["expert"] < 0.7


def test_the_ceiling_by_hand() -> None:
    config = TownConfig.model_validate(
        {
            "jobs": [{"name": "only", "start": 0, "end": 100, "wage": 0.01}],
            "economy": {"rent": 0.0, "shower_cost": 1.0, "ingredients_cost": 0.0, "meal_cost": 0.0},
            "affordances": {"eat_ticks": 100, "cook_ticks": 200, "shower_ticks": 100, "shower_hygiene": 1.0},
            "rewards": {"social_stage": "OFF"},
        }
    )
    # One wage pays one shower; 1,000 ticks less 125 of sleep, 100 of work, 100 of shower leave three meals of 200.
    hunger, hygiene, energy = (2 / 3) ** 2 / 3, 0.6 * 1.0 / 3, 0.8 * (1.25 / 12) ** 2 / 3
    expected = 2.0 + 1.0 + 0.02 * 101 / 2 - 50 * (hunger + hygiene + energy)
    assert reference_ceiling(config) == pytest.approx(expected)


def test_an_impossible_day_has_no_ceiling() -> None:
    with pytest.raises(ValueError, match="no day is possible"):
        reference_ceiling(TownConfig(jobs=()))


@pytest.mark.parametrize("policy", SCRIPTED_POLICIES)
def test_every_scripted_policy_plays_inside_the_mask(policy: ScriptedPolicy) -> None:
    town = TownBatch(TownConfig(ticks_per_day=800, random_start=True), 4)
    rows = town.allocate()
    town.reset(seed=7, out=rows)
    for _ in range(500):
        actions = town.scripted_actions(policy)
        assert rows.action_mask[np.arange(len(actions)), actions].all()
        town.step(actions, rows)


def first_commute(profile: str, *, behaviour: bool) -> int:
    """Tick in which a lone agent sets off for a shift that begins at 300."""
    options = {"jobs": [{"name": "clerk", "start": 300, "end": 400}], "personality": {"behaviour": behaviour}}
    quiet = {"agents": 1, "perturbations": {"enabled": False}, "needs": {"initial_low": 1.0}, **options}
    town = TownBatch(TownConfig.model_validate({**quiet, "profiles": [profile]}), 1)
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    for tick in range(300):
        if town.arrays.agent_i[0, 0, c.ERRAND] == c.E_WORK:
            return tick
        town.step(town.expert_actions(), rows)
    pytest.fail("it never went")


def test_the_industrious_leave_earlier_for_work() -> None:
    assert first_commute("industrious", behaviour=True) == first_commute("balanced", behaviour=True) - 2
    assert first_commute("industrious", behaviour=False) == first_commute("balanced", behaviour=True)


@pytest.mark.parametrize(("behaviour", "talks"), [(True, True), (False, False)])
def test_a_socialite_chats_in_lesser_comfort(behaviour: bool, talks: bool) -> None:
    options = {"agents": 2, "profiles": ["socialite"], "personality": {"behaviour": behaviour}, "jobs": []}
    config = TownConfig.model_validate({**options, "needs": {"initial_low": 0.57, "initial_high": 0.57}})
    walkable = np.ones((12, 12), np.bool_)
    walkable[5, 5] = False
    home = Layout(walkable, (PlacedObject("bed", 5, 5),))  # shared: both begin beside it
    town = TownBatch(config, 1, given=GivenTown(layout=home))
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    actions: list[int] = []
    for _ in range(5):
        actions += town.expert_actions().tolist()
        town.step(town.expert_actions(), rows)
    assert (c.CHAT in actions) == talks


def test_partners_can_be_mixed_in_one_town() -> None:
    town = TownBatch(TownConfig(agents=3), 2)
    rows = town.allocate()
    town.reset(seed=7, out=rows)
    mixed = town.scripted_actions(["expert", None, "random"]).reshape(2, 3)
    assert (mixed[:, 0] == town.scripted_actions("expert").reshape(2, 3)[:, 0]).all()
    assert (mixed[:, 1] == 0).all()
    assert (mixed[:, 2] == town.scripted_actions("random").reshape(2, 3)[:, 2]).all()


def demonstrations(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    town = TownBatch(TownConfig(random_start=True), 6)
    rows = town.allocate()
    town.reset(seed=seed, out=rows)
    features, labels = [], []
    for _ in range(1500):
        actions = town.expert_actions()
        features.append(rows.observations["features"].copy())
        labels.append(actions)
        town.step(actions, rows)
    return np.concatenate(features), np.concatenate(labels)


def test_a_plain_classifier_clones_the_expert() -> None:
    trees = pytest.importorskip("sklearn.tree")
    metrics = pytest.importorskip("sklearn.metrics")
    features, labels = demonstrations(0)
    held_out, truth = demonstrations(100)
    model = trees.DecisionTreeClassifier(min_samples_leaf=3, random_state=0).fit(features, labels)
    found = model.predict(held_out)
    assert metrics.accuracy_score(truth, found) >= 0.9
    assert metrics.f1_score(truth, found, average="macro") >= 0.8
