"""One test per kind of event: it fires when the rules say so, with its documented fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_sim import columns as c
from townlet_sim.config import TownConfig
from townlet_sim.engine import GivenAgent, GivenTown, StepRows, TownBatch
from townlet_sim.layout import Layout, PlacedObject
from townlet_sim.spaces import EVENT_KINDS

KIND = {kind.name: number for number, kind in enumerate(EVENT_KINDS)}
FRIDGE, STOVE, SHOWER, TILL, SITE, TABLE = 4, 5, 6, 7, 8, 9
QUIET: dict[str, Any] = {"perturbations": {"enabled": False}, "profiles": ["balanced"]}


def open_town(options: dict[str, Any], *agents: GivenAgent) -> tuple[TownBatch, StepRows]:
    """A 12 x 12 floor without walls; beds in the corners, the other objects in a row."""
    things = [("bed", 0, 0), ("bed", 0, 11), ("bed", 11, 0), ("bed", 11, 11)]
    things += [
        ("fridge", 3, 3),
        ("stove", 3, 6),
        ("shower", 3, 9),
        ("till", 8, 3),
        ("workplace", 8, 8),
        ("table", 6, 5),
    ]
    walkable = np.ones((12, 12), np.bool_)
    for _, y, x in things:
        walkable[y, x] = False
    layout = Layout(walkable, tuple(PlacedObject(*thing) for thing in things))
    config = TownConfig.model_validate({**QUIET, **options, "agents": len(agents)})
    town = TownBatch(config, 1, given=GivenTown(layout=layout, agents=agents))
    rows = town.allocate()
    town.reset(seed=5, out=rows)
    return town, rows


def at(y: int, x: int, **more: Any) -> GivenAgent:
    """An agent in good shape at a tile."""
    return GivenAgent(position=(y, x), needs=(0.8, 0.8, 0.8), wallet=3.0, **more)


def play(town: TownBatch, rows: StepRows, *actions: int) -> list[tuple[str, int, int, int, float]]:
    """Play one tick; return (kind, slot, other, object, value) of its events."""
    assert all(rows.action_mask[slot, action] for slot, action in enumerate(actions)), "an action is masked out"
    town.step(np.array(actions, np.int64), rows)
    names = [kind.name for kind in EVENT_KINDS]
    return [
        (names[e["kind"]], int(e["slot"]), int(e["other"]), int(e["object"]), float(e["value"])) for e in town.events
    ]


def until(town: TownBatch, rows: StepRows, name: str, *actions: int, limit: int = 60) -> tuple[int, Any]:
    """Repeat actions (``stay`` where masked out) until an event of a kind; return the ticks it took and the event."""
    for tick in range(1, limit + 1):
        allowed = [action if rows.action_mask[slot, action] else c.STAY for slot, action in enumerate(actions)]
        for event in play(town, rows, *allowed):
            if event[0] == name:
                return tick, event
    pytest.fail(f"no {name} within {limit} ticks")


def test_a_finished_user_that_holds_on_is_thrown_out_after_the_slack_with_a_conflict() -> None:
    town, rows = open_town({}, at(2, 3), at(4, 3))
    assert play(town, rows, c.USE, c.STAY) == []
    assert play(town, rows, c.STAY, c.USE) == []
    ticks, event = until(town, rows, "queue_conflict", c.STAY, c.STAY)
    # The meal takes 15 ticks (the first two are played), then the slack of 3.
    assert ticks == 15 + 3 - 2
    assert event == ("queue_conflict", 0, 1, FRIDGE, 1.5)
    assert town.arrays.object_i[0, FRIDGE, c.USER] == 1
    # Rivalry rises by .15 x 1.5 on both sides, less the decay of the tick.
    assert town.arrays.tie[0, :, 0, c.RIVALRY] == pytest.approx([0.225 - 0.001] * 2)


def test_a_stoic_resents_a_conflict_less() -> None:
    options = {"profiles": ["balanced", "stoic"], "social": {"modifiers": False}}
    town, rows = open_town(options, at(2, 3), at(4, 3))
    play(town, rows, c.USE, c.STAY)
    play(town, rows, c.STAY, c.USE)
    until(town, rows, "queue_conflict", c.STAY, c.STAY)
    assert town.arrays.tie[0, :, 0, c.RIVALRY] == pytest.approx([0.225 - 0.001, 0.6 * 0.225 - 0.001])


def test_waiting_long_breeds_a_conflict_again_and_again() -> None:
    town, rows = open_town({}, at(2, 9), at(4, 9))
    play(town, rows, c.USE, c.STAY)
    play(town, rows, c.STAY, c.USE)
    ticks, event = until(town, rows, "queue_conflict", c.STAY, c.STAY)
    assert ticks == 20
    assert event == ("queue_conflict", 1, 0, SHOWER, pytest.approx(0.4))


def test_intensity_grows_with_the_queue() -> None:
    town, rows = open_town({}, at(2, 3), at(4, 3), at(4, 4))
    play(town, rows, c.USE, c.STAY, c.STAY)
    play(town, rows, c.STAY, c.USE, c.USE)
    _, event = until(town, rows, "queue_conflict", c.STAY, c.STAY, c.STAY)
    assert event[4] == pytest.approx(1.5 + 0.25)


def test_leaving_in_time_hands_over_politely() -> None:
    town, rows = open_town({}, at(2, 3), at(4, 3))
    play(town, rows, c.USE, c.STAY)
    play(town, rows, c.STAY, c.USE)
    for _ in range(13):
        play(town, rows, c.STAY, c.STAY)
    assert rows.observations["features"][0, 51] == 1.0  # holding
    assert play(town, rows, c.LEAVE, c.STAY) == [("queue_interaction", 0, 1, FRIDGE, 0.0)]
    assert town.arrays.tie[0, 0, 0, :2] == pytest.approx([0.05, 0.05])
    assert town.arrays.object_i[0, FRIDGE, c.USER] == 1
    assert not rows.action_mask[0, c.USE]  # cooldown


def test_giving_way_changes_places_once() -> None:
    town, rows = open_town({}, at(2, 3), at(4, 3), at(4, 4))
    play(town, rows, c.USE, c.STAY, c.STAY)
    play(town, rows, c.STAY, c.USE, c.STAY)
    play(town, rows, c.STAY, c.STAY, c.USE)
    assert play(town, rows, c.STAY, c.GIVE_WAY, c.STAY) == [("queue_interaction", 1, 2, FRIDGE, 1.0)]
    assert town.arrays.object_i[0, FRIDGE, c.QUEUE_0 : c.QUEUE_0 + 2].tolist() == [2, 1]
    assert not rows.action_mask[1, c.GIVE_WAY]
    assert town.arrays.tie[0, 2, 0, c.TRUST] == pytest.approx(0.05)


def test_a_shared_meal_feeds_both_and_binds_them() -> None:
    town, rows = open_town({}, at(5, 5), GivenAgent(position=(7, 6), needs=(0.3, 0.8, 0.8)))  # across the table
    town.arrays.agent_i[0, 0, c.PORTIONS] = 3
    town.publish(rows)
    assert play(town, rows, c.SHARE, c.STAY) == [("shared_meal", 0, 1, -1, 1.0)]
    assert town.arrays.tie[0, 0, 0, :2] == pytest.approx([0.1, 0.25])
    for _ in range(9):
        play(town, rows, c.STAY, c.STAY)
    assert town.arrays.agent_f[0, 1, c.HUNGER] == pytest.approx(0.3 - 10 * 0.002 + 0.7)


def test_portions_are_eaten_and_shared_at_a_table_only() -> None:
    hungry = GivenAgent(position=(4, 6), needs=(0.3, 0.8, 0.8))
    town, rows = open_town({}, at(4, 5), hungry)
    town.arrays.agent_i[0, 0, c.PORTIONS] = 2
    town.publish(rows)
    assert not rows.action_mask[0, [c.EAT, c.SHARE]].any()  # nobody is beside the table
    play(town, rows, c.SOUTH, c.STAY)
    assert rows.action_mask[0, [c.EAT, c.SHARE]].tolist() == [True, False]  # the other one is not
    play(town, rows, c.STAY, c.SOUTH)
    assert rows.action_mask[0, [c.EAT, c.SHARE]].all()
    assert play(town, rows, c.EAT, c.STAY) == []
    assert town.arrays.agent_i[0, 0, c.PORTIONS] == 1


def test_who_gave_way_waits_anew_and_who_has_waited_longer_passes() -> None:
    options = {"queues": {"patience_ticks": 600}}
    town, rows = open_town(options, at(2, 9), at(4, 9), at(4, 8), at(4, 10))
    play(town, rows, c.USE, c.STAY, c.STAY, c.STAY)
    play(town, rows, c.STAY, c.USE, c.STAY, c.STAY)
    play(town, rows, c.STAY, c.STAY, c.USE, c.STAY)
    play(town, rows, c.STAY, c.STAY, c.STAY, c.USE)
    for _ in range(20):
        play(town, rows, c.STAY, c.STAY, c.STAY, c.STAY)
    play(town, rows, c.STAY, c.GIVE_WAY, c.STAY, c.STAY)
    served: list[int] = []
    for _ in range(100):
        user = int(town.arrays.object_i[0, SHOWER, c.USER])
        served += [user] if served[-1:] != [user] else []
        holding = rows.observations["features"][:, 51] == 1.0
        play(town, rows, *np.where(holding, c.LEAVE, c.STAY).tolist())
    # The last has waited twenty ticks longer than the one that gave way, and a tick is worth .1 of a place.
    assert served[:4] == [0, 2, 3, 1]


def crew(*actions: int) -> tuple[TownBatch, StepRows, list[Any]]:
    """Agent 0 works, agent 1 is far away; play until 1 is late, then one tick of the given actions."""
    jobs = [{"name": "clerk", "start": 3, "end": 103}]
    town, rows = open_town({"jobs": jobs}, at(8, 7), at(0, 5))
    for _ in range(3):
        play(town, rows, c.STAY, c.STAY)
    until(town, rows, "shift_late", c.WORK, c.STAY)
    return town, rows, play(town, rows, *actions)


def test_covering_helps_a_late_colleague() -> None:
    town, rows, events = crew(c.COVER, c.STAY)
    assert events == [("employment_helped_when_late", 0, 1, -1, 7.0)]
    assert town.arrays.agent_f[0, :, c.PAID] == pytest.approx([0.9 * 0.0118, 0.5 * 0.0118])
    assert town.arrays.agent_f[0, 1, c.DOCKED] == 0.0
    assert town.arrays.tie[0, 1, 0, :2] == pytest.approx([0.2, 0.1])
    assert play(town, rows, c.COVER, c.STAY) == []  # told once a shift


def test_taking_a_shift_is_paid_and_resented() -> None:
    town, rows, events = crew(c.TAKE, c.STAY)
    assert events == [("employment_took_my_shift", 1, 0, -1, 93.0)]
    assert town.arrays.agent_f[0, 0, c.PAID] == pytest.approx(2 * 0.0118)
    assert town.arrays.agent_i[0, 1, c.SHIFT] == c.ABSENT
    assert town.arrays.tie[0, 1, 0, c.RIVALRY] == pytest.approx(0.3 - 0.001)
    assert not rows.action_mask[0, c.TAKE]


@pytest.mark.parametrize(("chance", "name"), [(1.0, "chat_success"), (0.0, "chat_failure")])
def test_a_chat_succeeds_or_fails_by_chance(chance: float, name: str) -> None:
    town, rows = open_town({"social": {"chat_success": chance}}, at(5, 5), at(6, 6))
    assert play(town, rows, c.CHAT, c.STAY) == [(name, 0, 1, -1, 0.5 if chance else 0.0)]
    expected = [0.025, 0.05] if chance else [0.0, -0.05]
    assert town.arrays.tie[0, 1, 0, :2] == pytest.approx(expected)
    assert not rows.action_mask[:, c.CHAT].any()  # both have to wait


def test_a_dirty_partner_halves_the_chance() -> None:
    dirty = GivenAgent(position=(6, 6), needs=(0.8, 0.1, 0.8))
    town, rows = open_town({"social": {"chat_success": 0.0}}, at(5, 5), dirty)
    town.rules.f[c.F_CHAT_SUCCESS] = 0.7
    for seed in range(100):
        town.reset(seed=seed, out=rows)
        (event,) = play(town, rows, c.CHAT, c.STAY)
        if event[0] == "chat_failure":
            assert event[4] == pytest.approx(0.35)
            return
    pytest.fail("a hundred chats of probability .35 succeeded")


def test_late_after_the_grace_and_absent_after_the_cutoff() -> None:
    jobs = [{"name": "clerk", "start": 3, "end": 103}]
    town, rows = open_town({"jobs": jobs}, at(0, 5))
    ticks, event = until(town, rows, "shift_late", c.STAY)
    assert (ticks, event) == (3 + 6 + 1, ("shift_late", 0, -1, -1, 6.0))
    assert town.arrays.agent_f[0, 0, c.WALLET] == pytest.approx(3.0 - 0.1 - 0.005)
    ticks, event = until(town, rows, "shift_absent", c.STAY)
    assert (ticks, event) == (24, ("shift_absent", 0, -1, -1, 30.0))
    # Late in ticks 6 to 29 of the shift, each with its fine, then the fine for absence.
    assert town.arrays.agent_f[0, 0, c.WALLET] == pytest.approx(3.0 - 0.1 - 24 * 0.005 - 0.2)


def test_hunger_at_zero_ends_in_a_faint_and_a_respawn() -> None:
    town, rows = open_town({}, GivenAgent(position=(5, 5), needs=(0.0, 0.8, 0.8)), at(9, 9))
    for _ in range(29):
        assert play(town, rows, c.STAY, c.STAY) == []
    assert play(town, rows, c.STAY, c.STAY) == [("exit", 0, -1, -1, 0.0), ("respawn", 0, -1, -1, 1.0)]
    assert rows.terminated.tolist() == [True, False]
    assert rows.final_observation["features"][0, 0] == 0.0
    assert rows.observations["features"][0, 0] >= 0.5
    assert rows.observations["features"][0, 16] == 1.0  # ctx_reset_flag


def test_staying_away_after_some_work_is_an_early_departure() -> None:
    jobs = [{"name": "clerk", "start": 0, "end": 100}]
    town, rows = open_town({"jobs": jobs}, at(8, 7))
    play(town, rows, c.WORK)
    ticks, event = until(town, rows, "shift_departed_early", c.STAY)
    # Last seen in tick 0; more than 20 ticks ago in tick 21, with 79 left.
    assert (ticks, event) == (21, ("shift_departed_early", 0, -1, -1, 79.0))
    assert town.arrays.agent_i[0, 0, c.SHIFT] == c.ON_TIME  # who was on time is not made absent by it
    for _ in range(30):
        assert play(town, rows, c.STAY) == []  # told once a shift


def test_who_was_late_and_leaves_early_is_absent() -> None:
    jobs = [{"name": "clerk", "start": 0, "end": 100}]
    town, rows = open_town({"jobs": jobs}, at(8, 7))
    until(town, rows, "shift_late", c.STAY)
    play(town, rows, c.WORK)
    ticks, event = until(town, rows, "shift_absent", c.STAY)
    # Late in tick 6, at work in tick 7; the cutoff of 30 comes after the slack of 20.
    assert (ticks, event) == (30 - 7, ("shift_absent", 0, -1, -1, 30.0))


ABSENT: dict[str, Any] = {
    "ticks_per_day": 100,
    "jobs": [{"name": "clerk", "start": 3, "end": 60}],
    "employment": {"max_absent_shifts": 1},
    "respawn": False,
    "needs": {"hunger_decay": 0.0},
}


def story(options: dict[str, Any], agents: int, ticks: int, **employment: Any) -> list[tuple[int, str, int, float]]:
    """Tick, kind, slot and value of what ``agents`` absent agents and the queue of exits bring about."""
    options = {**options, "employment": {**options["employment"], **employment}}
    town, rows = open_town(options, *(at(0, 3 + n) for n in range(agents)))
    found = []
    for tick in range(ticks):
        events = play(town, rows, *[c.STAY] * agents)
        found += [(tick, name, slot, value) for name, slot, _, _, value in events if "exit" in name]
    return found


def test_exits_are_queued_and_processed_a_few_a_day() -> None:
    assert story(ABSENT, 3, 210, daily_exit_cap=2) == [
        *((33, "employment_exit_pending", slot, 1.0) for slot in range(3)),
        *((99, "employment_exit_processed", slot, 66.0) for slot in range(2)),
        (99, "employment_exit_deferred", 2, 66.0),
        *((99, "exit", slot, 1.0) for slot in range(2)),
        (199, "employment_exit_processed", 2, 166.0),
        (199, "exit", 2, 1.0),
    ]


def test_a_full_queue_of_exits_overflows_and_is_tried_again() -> None:
    assert story(ABSENT, 2, 100, exit_queue_limit=1, daily_exit_cap=0) == [
        (33, "employment_exit_pending", 0, 1.0),
        (33, "employment_exit_queue_overflow", 1, 1.0),
        (99, "employment_exit_deferred", 0, 66.0),
        (99, "employment_exit_queue_overflow", 1, 1.0),
    ]


def test_an_exit_is_forced_after_the_review_window() -> None:
    assert story(ABSENT, 1, 200, exit_review_window=90, daily_exit_cap=0) == [
        (33, "employment_exit_pending", 0, 1.0),
        (99, "employment_exit_deferred", 0, 66.0),
        (123, "employment_exit_processed", 0, 90.0),
        (123, "exit", 0, 1.0),
    ]


@pytest.mark.parametrize(("days", "exits"), [(1, 0), (2, 1)])
def test_an_absence_counts_for_some_days(days: int, exits: int) -> None:
    found = story(ABSENT, 1, 300, max_absent_shifts=2, absence_days=days)
    assert [event[1] for event in found].count("exit") == exits


def test_an_exit_can_be_asked_for_from_outside() -> None:
    town, rows = open_town({**ABSENT, "jobs": []}, at(0, 5), at(0, 6))
    assert town.request_exit(0, 1)
    assert not town.request_exit(0, 1)  # it waits already
    (event,) = town.events
    assert (event["kind"], event["slot"], event["value"]) == (KIND["employment_exit_manual_request"], 1, 0.0)
    town.publish(rows)
    assert rows.observations["features"][:, 118].tolist() == [0.0, 1.0]
    ticks, event = until(town, rows, "employment_exit_processed", c.STAY, c.STAY, limit=120)
    assert (ticks, event[1], event[4]) == (100, 1, 99.0)
    assert rows.alive.tolist() == [True, False]
    assert not town.request_exit(0, 1)


def test_absences_end_in_an_eviction_at_the_turn_of_the_day() -> None:
    options = ABSENT
    town, rows = open_town(options, at(0, 5))
    ticks, event = until(town, rows, "exit", c.STAY, limit=120)
    assert (ticks, event) == (100, ("exit", 0, -1, -1, 1.0))
    assert not rows.alive[0]
    assert rows.action_mask[0].tolist() == [True] + [False] * 15


def perturbed(kind: str, **fields: Any) -> dict[str, Any]:
    """Options under which one kind of perturbation happens every tick that it can."""
    kinds = ("price_spike", "blackout", "outage", "arranged_meet")
    each = {"prob_per_day": 0.0, "cooldown_ticks": 50, "min_ticks": 5, "max_ticks": 5}
    chances = {name: {**each, "prob_per_day": 1.0 if name == kind else 0.0} for name in kinds}
    return {"perturbations": {"enabled": True, **chances, **fields}, "ticks_per_day": 10, "jobs": []}


def test_a_price_spike_raises_prices_for_its_duration() -> None:
    town, rows = open_town(perturbed("price_spike", spike_low=1.5, spike_high=1.5), at(2, 3))
    _, event = until(town, rows, "price_spike", c.STAY, limit=200)
    assert event == ("price_spike", 0, -1, -1, 1.5)
    before = town.arrays.agent_f[0, 0, c.WALLET]
    assert rows.observations["features"][0, 54] == 0.5
    play(town, rows, c.USE)
    assert before - town.arrays.agent_f[0, 0, c.WALLET] == pytest.approx(1.5 * 0.4)
    for _ in range(4):
        play(town, rows, c.STAY)
    assert town.arrays.town_f[0, c.PRICE] == 1.0


@pytest.mark.parametrize(("kind", "tile", "thing"), [("blackout", (2, 6), STOVE), ("outage", (2, 9), SHOWER)])
def test_without_power_or_water_users_are_sent_away(kind: str, tile: tuple[int, int], thing: int) -> None:
    town, rows = open_town({}, at(*tile), at(tile[0] + 2, tile[1]))
    town.arrays.agent_i[0, :, c.INGREDIENTS] = 1
    town.publish(rows)
    play(town, rows, c.USE, c.STAY)
    play(town, rows, c.STAY, c.USE)
    assert town.arrays.object_i[0, thing, c.WAITING] == 1
    town.rules.i[c.I_PERTURBED] = 1
    number = ("price_spike", "blackout", "outage").index(kind)
    town.rules.f[c.F_PROB_0 : c.F_PROB_3 + 1] = 0.0
    town.rules.f[c.F_PROB_0 + number] = 1000.0  # certain in every tick
    (event,) = play(town, rows, c.STAY, c.STAY)
    assert event[:4] == (kind, 0, -1, -1)
    assert 20 <= event[4] <= 60
    assert town.arrays.object_i[0, thing, c.USER] == -1
    assert town.arrays.object_i[0, thing, c.WAITING] == 0
    assert not rows.action_mask[:, c.USE].any()


def test_an_arranged_meet_brings_rivals_to_the_cafe() -> None:
    town, rows = open_town({}, at(11, 5), at(0, 5), at(6, 6))
    town.arrays.tie_other[0, 1, 0] = 2
    town.arrays.tie[0, 1, 0, c.RIVALRY] = 0.4
    assert town.begin_perturbation(0, c.MEET)
    assert town.arrays.agent_i[0, 1, c.Y : c.X + 1].tolist() == [2, 2]
    assert town.arrays.agent_i[0, 2, c.Y : c.X + 1].tolist() == [2, 3]
    (event,) = town.events
    assert (event["kind"], event["slot"], event["other"]) == (KIND["arranged_meet"], 1, 2)
    assert event["object"] == FRIDGE
    assert event["value"] == pytest.approx(0.4)
    town.publish(rows)
    assert rows.observations["features"][:, 16].tolist() == [1.0, 1.0, 1.0]


def test_no_meet_without_rivals() -> None:
    town, _ = open_town({}, at(11, 5), at(0, 5))
    assert not town.begin_perturbation(0, c.MEET)
    assert town.arrays.town_i[0, c.PERTURBATION] == -1


def test_events_carry_global_slots_and_their_tick() -> None:
    options = {**QUIET, "agents": 2, "map_size": 12, "needs": {"initial_low": 0.0, "initial_high": 0.0}}
    town = TownBatch(TownConfig.model_validate(options), 3)
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    for _ in range(30):
        town.step(np.zeros(6, np.int64), rows)
    exits = town.events[town.events["kind"] == KIND["exit"]]
    assert exits["slot"].tolist() == [0, 1, 2, 3, 4, 5]
    assert exits["tick"].tolist() == [29] * 6
    assert town.events_lost == 0
