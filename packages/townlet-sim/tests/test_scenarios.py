"""Scenarios load, refuse nonsense by its path, and tell their stories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import townlet_sim
from townlet_sim import columns as c
from townlet_sim.scenarios import Scenario, load_scenario, scenario_names
from townlet_sim.spaces import EVENT_KINDS, REWARD_TERMS
from townlet_sim.story import ScenarioBatch, ScheduledAgents

NAMES = (
    "employment_punctuality",
    "exit_review",
    "kitchen_breakfast",
    "observation_baseline",
    "queue_conflict",
    "rivalry_decay",
    "story_arc",
)

PREDECESSOR: dict[str, Any] = {
    "config_id": "scenario_queue",
    "seed": 7,
    "weather": {"mood": "grey"},
    "world": {"grid_size": [24, 24]},
    "features": {"stages": {"relationships": "B", "social_rewards": "C1"}, "systems": {"observations": "hybrid"}},
    "rewards": {
        "needs_weights": {"hunger": 1.0, "hygiene": 0.6, "energy": 0.8},
        "decay_rates": {"hunger": 0.0, "hygiene": 0.0, "energy": 0.0},
        "survival_tick": 0.0,
    },
    "economy": {"meal_cost": 0.3},
    "queue_fairness": {"cooldown_ticks": 5, "ghost_step_after": 2},
    "jobs": {"grocer": {"start_tick": 10, "end_tick": 30, "wage_rate": 0.02, "lateness_penalty": 0.1}},
    "scenario": {
        "description": "three agents and a shower",
        "ticks": 30,
        "mood": "tense",
        "objects": [{"id": "shower_1", "type": "shower", "position": [4, 4]}],
        "agents": [
            {"id": "a", "position": [3, 4], "needs": {"hygiene": 0.1}, "wallet": 1.5, "job": "grocer", "hat": "red"},
            {"id": "b", "position": [5, 4], "schedule": [{"kind": "request", "object": "shower_1"}]},
        ],
    },
}


def play(scenario: Scenario, *, seed: int = 1) -> tuple[Counter[str], dict[str, float]]:
    """Events and sums of absolute reward terms over a scenario that follows its schedules."""
    batch = ScenarioBatch(scenario, 1)
    rows = batch.allocate()
    batch.reset(seed=seed, out=rows)
    policy = ScheduledAgents(batch)
    events: Counter[str] = Counter()
    terms = np.zeros(len(REWARD_TERMS))
    for _ in range(scenario.ticks):
        batch.step(policy.actions(rows.action_mask), rows)
        events.update(EVENT_KINDS[kind].name for kind in batch.events["kind"])
        terms += np.abs(batch.reward_terms[0]).sum(axis=0)
    batch.close()
    return events, dict(zip(REWARD_TERMS, terms.tolist(), strict=True))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The predecessor's file with one key changed."""
    data: Any = yaml.safe_load(yaml.safe_dump(PREDECESSOR))
    place = data
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    return dict(data)


def test_the_packaged_scenarios_are_there() -> None:
    assert scenario_names() == NAMES


def test_every_event_and_every_reward_term_fires_in_the_suite() -> None:
    events: Counter[str] = Counter()
    terms: Counter[str] = Counter()
    for name in NAMES:
        found, sums = play(load_scenario(name))
        events += found
        terms.update(sums)

    assert {kind.name for kind in EVENT_KINDS} == set(events)
    assert [name for name in REWARD_TERMS if terms[name] == 0.0] == []


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("kitchen_breakfast", {"shared_meal"}),
        ("queue_conflict", {"queue_conflict", "queue_interaction"}),
        (
            "employment_punctuality",
            {"shift_late", "shift_absent", "employment_helped_when_late", "employment_took_my_shift"},
        ),
        (
            "exit_review",
            {"shift_departed_early", "employment_exit_pending", "employment_exit_queue_overflow"}
            | {f"employment_exit_{step}" for step in ("processed", "deferred", "manual_request")},
        ),
        ("rivalry_decay", {"chat_failure"}),
        ("story_arc", {"chat_success", "respawn", "price_spike", "exit"}),
    ],
)
def test_a_scenario_tells_its_story(name: str, kinds: set[str]) -> None:
    events, _ = play(load_scenario(name))

    assert kinds <= set(events)


def test_the_baseline_is_quiet() -> None:
    scenario = load_scenario("observation_baseline")
    batch = ScenarioBatch(scenario, 1)
    rows = batch.allocate()
    batch.reset(seed=0, out=rows)
    first = {name: array.copy() for name, array in rows.observations.items()}
    for _ in range(5):
        batch.step(np.zeros(1, np.int64), rows)
        assert not batch.events.size

    np.testing.assert_array_equal(rows.observations["map"], first["map"])


def test_a_rivalry_fades_until_the_two_talk() -> None:
    batch = ScenarioBatch(load_scenario("rivalry_decay"), 1)
    rows = batch.allocate()
    batch.reset(seed=0, out=rows)
    chat = batch.spec.action_names.index("chat")

    assert batch.arrays.tie[0, 0, 0, 2] == 0.9
    assert not rows.action_mask[0, chat]
    for _ in range(21):
        batch.step(np.zeros(2, np.int64), rows)
    assert batch.arrays.tie[0, 0, 0, 2] == pytest.approx(0.69)
    assert rows.action_mask[0, chat]


def test_the_timeline_moves_the_town() -> None:
    batch = ScenarioBatch(load_scenario("story_arc"), 2)
    rows = batch.allocate()
    batch.reset(seed=3, out=rows)
    slots = batch.scenario.slots
    tom = slots["old_tom"]
    alive_before, prices = [], []
    for _ in range(85):
        alive_before.append(rows.alive.reshape(2, -1)[:, slots["carol"]].tolist())
        prices.append(float(batch.arrays.town_f[1, c.PRICE]))
        batch.step(np.zeros(8, np.int64), rows)

    assert alive_before[39] == [False, False]
    assert alive_before[40] == [True, True]
    assert batch.arrays.agent_i[0, slots["carol"], c.SPAWNS] == 1
    assert prices[60] > 1.0
    assert set(prices[:60]) == {1.0}
    assert batch.arrays.agent_f[0, tom, c.HUNGER] == 0.0


def test_an_arrival_is_observed_where_it_stands() -> None:
    batch = ScenarioBatch(load_scenario("story_arc"), 1)
    rows = batch.allocate()
    batch.reset(seed=3, out=rows)
    for _ in range(40):
        batch.step(np.zeros(4, np.int64), rows)
    slot = batch.scenario.slots["carol"]

    assert tuple(batch.arrays.agent_i[0, slot, [c.Y, c.X]]) == (9, 9)
    assert batch.arrays.occupied[0, 9, 9] == slot
    assert (batch.arrays.occupied[0] == slot).sum() == 1
    assert batch.arrays.agent_f[0, slot, c.WALLET] == 2.0
    assert rows.observations["features"][slot, batch.spec.feature_names.index("ctx_reset_flag")] == 1.0


def test_make_simulation_takes_a_scenario_by_name_path_and_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PREDECESSOR), encoding="utf-8")
    for source in ("queue_conflict", str(path), PREDECESSOR):
        simulation = townlet_sim.make_simulation(2, {"scenario": source, "observation": "compact"})

        assert simulation.spec.num_envs == 2
        assert simulation.spec.observations["map"].shape[1:] == (7, 7)
        assert isinstance(simulation, ScenarioBatch)
        simulation.close()


def test_scenarios_have_a_rules_hash_of_their_own() -> None:
    with_story = townlet_sim.make_simulation(1, {"scenario": "rivalry_decay"})
    without = townlet_sim.make_simulation(1, with_story.config.model_dump())

    assert with_story.spec.rules_hash != without.spec.rules_hash


def test_a_predecessors_file_loads_with_its_own_numbers() -> None:
    scenario = load_scenario(PREDECESSOR, name="queue")
    config = scenario.config

    assert (config.agents, config.horizon, config.map_size) == (2, 30, 24)
    assert (config.needs.hunger_decay, config.economy.meal_cost) == (0.0, 0.3)
    assert (config.queues.cooldown_ticks, config.queues.ghost_step_after) == (5, 2)
    assert config.rewards.social_stage == "C1"
    assert [(job.name, job.start, job.end) for job in config.jobs] == [("grocer", 10, 30)]
    assert scenario.extra == {"weather": {"mood": "grey"}, "mood": "tense"}
    assert scenario.agents[0].extra == {"hat": "red"}


def test_what_is_given_is_there_at_the_start() -> None:
    simulation = townlet_sim.make_simulation(1, {"scenario": PREDECESSOR})
    rows = simulation.allocate()
    simulation.reset(seed=0, out=rows)

    assert tuple(simulation.arrays.agent_i[0, 0, [c.Y, c.X]]) == (4, 3)
    assert simulation.arrays.agent_f[0, 0, c.HYGIENE] == 0.1
    assert simulation.arrays.agent_f[0, 0, c.WALLET] == 1.5
    assert simulation.rules.job_i[0].tolist() == [10, 30]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("scenario", 3, r"scenario: expected a mapping"),
        ("scenario.agents", [], r"scenario\.agents"),
        ("scenario.ticks", 0, r"scenario\.ticks: .*found 0"),
        ("scenario.agents.0.needs.hygiene", 1.5, r"scenario\.agents\.0\.needs\.hygiene: .*found 1\.5"),
        ("scenario.agents.0.needs.thirst", 0.5, r"scenario\.agents\.0\.needs\.thirst"),
        ("scenario.agents.0.position", [1], r"scenario\.agents\.0\.position"),
        ("scenario.agents.0.job", "baker", r"scenario\.agents\.0\.job: 'baker' is no job"),
        ("scenario.agents.1.schedule.0.kind", "dance", r"scenario\.agents\.1\.schedule\.0\.kind: .*'dance'"),
        ("scenario.agents.1.schedule.0.object", "bath", r"scenario\.agents\.1\.schedule\.0\.object: 'bath'"),
        ("scenario.objects.0.type", "volcano", r"scenario\.objects\.0\.type: .*'volcano'"),
        ("scenario.timeline", [{"tick": -1, "name": "set_need"}], r"scenario\.timeline\.0\.tick"),
        (
            "scenario.timeline",
            [{"tick": 1, "name": "set_need", "kwargs": {"agent_id": "z"}}],
            r"scenario\.timeline\.0\.kwargs\.agent_id: .*found 'z'",
        ),
        ("economy", "cheap", r"economy: expected a dict, found 'cheap'"),
        ("rewards.survival_tick", 7.0, r"rewards\.survival_tick: .*found 7\.0"),
        ("economy.meal_cost", -1.0, r"economy\.meal_cost: .*found -1\.0"),
        ("town", {"needs": {"hunger_decoy": 0.1}}, r"town\.needs\.hunger_decoy"),
    ],
)
def test_nonsense_is_refused_with_its_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scenario(changed(path, value))


def test_a_wall_is_no_place_for_an_agent() -> None:
    data = changed("scenario.agents.0.position", [4, 4])  # the shower stands there
    with pytest.raises(ValueError, match=r"agents\.0\.position"):
        ScenarioBatch(load_scenario(data), 1)


def test_an_unknown_scenario_names_those_that_are_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"'nowhere'.*kitchen_breakfast"):
        load_scenario("nowhere")


def test_another_number_of_agents_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agents: the scenario has 2"):
        load_scenario(PREDECESSOR, options={"agents": 5})


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "scenario: [unclosed"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=r"bad\.yaml"):
        load_scenario(path)


def test_a_scenario_continues_from_saved_state() -> None:
    scenario = load_scenario("story_arc")
    one, two = ScenarioBatch(scenario, 1), ScenarioBatch(scenario, 1)
    rows, again = one.allocate(), two.allocate()
    one.reset(seed=5, out=rows)
    for _ in range(30):
        one.step(one.expert_actions(), rows)
    two.reset(seed=6, out=again)
    two.load_state(one.save_state(), out=again)
    for _ in range(60):
        one.step(one.expert_actions(), rows)
        two.step(two.expert_actions(), again)

    for name, array in one.save_state().items():
        np.testing.assert_array_equal(array, two.save_state()[name], err_msg=name)
    np.testing.assert_array_equal(rows.observations["features"], again.observations["features"])
