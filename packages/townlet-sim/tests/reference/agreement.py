"""Compare the state of the engine with the state of the reference, name by name, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference.errands import expert_action
from reference.observations import features, map_around
from reference.play import Town
from townlet_sim import columns as c
from townlet_sim.config import TownConfig
from townlet_sim.engine import TownBatch
from townlet_sim.spaces import ACTIONS, ERRANDS, EVENT_KINDS, REWARD_TERMS

__all__ = ["NAMES", "Disagreement", "differences", "play"]

NAMES = tuple(action.name for action in ACTIONS)
_BUSY = ("free", "using", "eating", "sleeping", "napping")
_SHIFTS = ("pre", "on_time", "late", "absent", "post")
_PRECISION = 1e-6
_KINDS = ("price_spike", "blackout", "outage", "arranged_meet")

Chooser = Callable[[list[list[bool]], list[int]], list[int]]
"""Masks and the expert's actions to the actions that are played."""


class Disagreement(AssertionError):
    """Engine and reference differ; the message says when, where and by how much."""


def _of_agent(town: Town, slot: int) -> Iterator[tuple[str, Any]]:
    agent = town.agents[slot]
    yield "alive", agent.alive
    if not agent.alive:
        return
    for name in ("y", "x", "hunger", "hygiene", "energy", "wallet", "portions", "ingredients", "shift", "open"):
        yield name, getattr(agent, name)
    yield "busy", agent.busy
    yield "left", agent.left
    yield "thing", -1 if agent.thing is None else agent.thing
    yield "queue", -1 if agent.queue is None else agent.queue
    if agent.queue is not None:
        yield "since", agent.since
    if agent.cool_until > town.tick:
        yield "cool", (agent.cool_thing, agent.cool_until)
    yield "chat_wait", max(agent.chat_ready - town.tick, 0)
    yield "worked", agent.worked
    if agent.open:
        yield "work_ticks", agent.work_ticks
        yield "on_time_ticks", agent.on_time_ticks
        yield "cover_ticks", agent.cover_ticks
        yield "took", agent.took
        yield "helped", agent.helped
        yield "departed", agent.departed
    yield "late_count", agent.late_count
    yield "absences", agent.absences
    yield "pending", -1 if agent.pending is None else agent.pending
    yield "withheld", agent.withheld
    yield "record", sorted(agent.record)
    yield "no_food", agent.no_food
    yield "starving", agent.starving
    yield "errand", agent.errand
    yield "errand_until", max(agent.errand_until - town.tick, 0)
    yield "reached", agent.reached
    yield "hint", agent.hint
    yield "last_action", agent.last_action
    yield "last_ok", agent.last_ok
    yield "last_ticks", agent.last_ticks
    yield "ctx_reset", agent.ctx_reset
    yield "invalid", agent.invalid
    yield "ties", [None if t is None else (t.other, t.trust, t.familiarity, t.rivalry) for t in agent.ties]


def _of_engine_agent(sim: TownBatch, b: int, slot: int) -> Iterator[tuple[str, Any]]:
    i, f = sim.arrays.agent_i[b, slot].tolist(), sim.arrays.agent_f[b, slot].tolist()
    tick = int(sim.arrays.town_i[b, c.TICK])
    yield "alive", bool(i[c.ALIVE])
    if not i[c.ALIVE]:
        return
    yield "y", i[c.Y]
    yield "x", i[c.X]
    yield "hunger", f[c.HUNGER]
    yield "hygiene", f[c.HYGIENE]
    yield "energy", f[c.ENERGY]
    yield "wallet", f[c.WALLET]
    yield "portions", i[c.PORTIONS]
    yield "ingredients", i[c.INGREDIENTS]
    yield "shift", _SHIFTS[i[c.SHIFT]]
    yield "open", bool(i[c.SHIFT_OPEN])
    holding = i[c.BUSY] == c.USING and i[c.BUSY_LEFT] == 0
    yield "busy", "holding" if holding else _BUSY[i[c.BUSY]]
    yield "left", i[c.BUSY_LEFT]
    yield "thing", i[c.OBJECT]
    yield "queue", i[c.QUEUE]
    if i[c.QUEUE] >= 0:
        yield "since", i[c.QUEUE_SINCE]
    if i[c.COOL_UNTIL] > tick:
        yield "cool", (i[c.COOL_OBJECT], i[c.COOL_UNTIL])
    yield "chat_wait", max(i[c.CHAT_READY] - tick, 0)
    yield "worked", bool(i[c.WORKED])
    if i[c.SHIFT_OPEN]:
        yield "work_ticks", i[c.WORK_TICKS]
        yield "on_time_ticks", i[c.ONTIME_TICKS]
        yield "cover_ticks", i[c.COVER_TICKS]
        yield "took", bool(i[c.TOOK])
        yield "helped", bool(i[c.HELPED])
        yield "departed", bool(i[c.DEPARTED])
    yield "late_count", i[c.LATE_COUNT]
    yield "absences", i[c.ABSENT_COUNT]
    yield "pending", i[c.PENDING]
    yield "withheld", f[c.WITHHELD]
    yield "record", sorted(f[c.RECORD_0 : c.RECORD_0 + i[c.FRESH]])
    yield "no_food", i[c.NO_FOOD]
    yield "starving", i[c.STARVING]
    yield "errand", ERRANDS[i[c.ERRAND]]
    yield "errand_until", max(i[c.ERRAND_UNTIL] - tick, 0)
    yield "reached", bool(i[c.REACHED])
    yield "hint", NAMES[i[c.HINT]]
    yield "last_action", NAMES[i[c.LAST_ACTION]]
    yield "last_ok", bool(i[c.LAST_OK])
    yield "last_ticks", i[c.LAST_TICKS]
    yield "ctx_reset", bool(i[c.CTX_RESET])
    yield "invalid", bool(i[c.INVALID])
    others, ties = sim.arrays.tie_other[b, slot].tolist(), sim.arrays.tie[b, slot].tolist()
    yield "ties", [(other, *tie) if other >= 0 else None for other, tie in zip(others, ties, strict=True)]


def _of_town(town: Town) -> Iterator[tuple[str, Any]]:
    yield "tick", town.tick
    yield "start", town.start
    yield "episode", town.episode
    yield "map", town.map_number
    yield "draws", (town.world_stream.counter, town.event_stream.counter)
    yield "price", town.price
    yield "perturbation", town.perturbation
    if town.perturbation is not None:
        yield "perturbation_end", town.perturbation_end
    yield "rests", [max(town.rests[kind] - town.tick, 0) for kind in _KINDS]
    yield "starved", town.starved
    for thing in town.things:
        yield f"object {thing.number}", (thing.user, thing.held if thing.user is not None else 0, thing.queue)


def _of_engine_town(sim: TownBatch, b: int) -> Iterator[tuple[str, Any]]:
    i = sim.arrays.town_i[b].tolist()
    yield "tick", i[c.TICK]
    yield "start", i[c.START]
    yield "episode", i[c.EPISODE]
    yield "map", i[c.LAYOUT]
    yield "draws", (i[c.COUNT_WORLD], i[c.COUNT_EVENTS])
    yield "price", float(sim.arrays.town_f[b, c.PRICE])
    running = i[c.PERTURBATION]
    yield "perturbation", _KINDS[running] if running >= 0 else None
    if running >= 0:
        yield "perturbation_end", i[c.PERTURBATION_END]
    yield "rests", [max(rest - i[c.TICK], 0) for rest in i[c.REST_0 : c.REST_3 + 1]]
    yield "starved", i[c.N_STARVED]
    for number, thing in enumerate(sim.arrays.object_i[b].tolist()):
        user = thing[c.USER] if thing[c.USER] >= 0 else None
        queue = thing[c.QUEUE_0 : c.QUEUE_0 + thing[c.WAITING]]
        yield f"object {number}", (user, thing[c.HELD] if user is not None else 0, queue)


def differences(sim: TownBatch, b: int, town: Town) -> list[str]:
    """What differs in state, one line each: name, engine's value, reference's value."""
    found = _compare("town", dict(_of_engine_town(sim, b)), dict(_of_town(town)))
    for slot in range(len(town.agents)):
        engine, reference = dict(_of_engine_agent(sim, b, slot)), dict(_of_agent(town, slot))
        found += _compare(f"agent {slot}", engine, reference)
    return found


def _compare(where: str, engine: dict[str, Any], reference: dict[str, Any]) -> list[str]:
    names = [*engine, *(name for name in reference if name not in engine)]
    return [
        f"{where} {name}: engine {engine.get(name, 'nothing')!r}, reference {reference.get(name, 'nothing')!r}"
        for name in names
        if engine.get(name, "nothing") != reference.get(name, "nothing")
    ]


def _observation_differences(sim: TownBatch, rows: Any, b: int, town: Town) -> list[str]:
    """What differs in what agents see: maps exactly, features to the precision of 32-bit floats."""
    found = []
    for agent in town.agents:
        row, variant = b * len(town.agents) + agent.slot, town.config.observation
        seen = rows.observations["features"][row].tolist()
        expected = features(town, agent, variant=variant) if agent.alive else dict.fromkeys(sim.spec.feature_names, 0.0)
        if set(expected) != set(sim.spec.feature_names):
            found.append(f"features: {sorted(set(expected) ^ set(sim.spec.feature_names))} are on one side only")
        for name, value in zip(sim.spec.feature_names, seen, strict=True):
            if abs(value - expected.get(name, 0.0)) > _PRECISION:
                found.append(f"agent {agent.slot} feature {name}: engine {value!r}, reference {expected.get(name)!r}")
        layers = map_around(town, agent, variant=variant) if agent.alive else {}
        for number, name in enumerate(sim.spec.map_channels):
            shown = rows.observations["map"][row, number].tolist()
            nothing = [[0] * len(line) for line in shown]
            if shown != layers.get(name, nothing):
                found.append(f"agent {agent.slot} channel {name}: engine {shown}, reference {layers.get(name)}")
    return found


def _step_differences(sim: TownBatch, rows: Any, b: int, town: Town, *, stepped: bool) -> list[str]:
    """What differs in what a step reports."""
    count = len(town.agents)
    mine = slice(b * count, (b + 1) * count)
    masks = [[bool(value) for value in row] for row in rows.action_mask[mine]]
    pairs: dict[str, tuple[Any, Any]] = {"alive": (rows.alive[mine].tolist(), [a.alive for a in town.agents])}
    for slot, (engine, reference) in enumerate(zip(masks, town.masks(), strict=True)):
        pairs[f"mask {slot}"] = (
            [NAMES[k] for k in range(len(NAMES)) if engine[k]],
            [NAMES[k] for k in range(len(NAMES)) if reference[k]],
        )
    expert = sim.expert_actions()[mine].tolist()
    pairs["expert"] = ([NAMES[a] for a in expert], [expert_action(town, agent) for agent in town.agents])
    if stepped:
        pairs["terminated"] = (rows.terminated[mine].tolist(), town.terminated)
        records = [event for event in sim.events.tolist() if b * count <= event[1] < (b + 1) * count]
        first = b * count
        engine_events = [
            (tick, slot - first, EVENT_KINDS[kind].name, other - first if other >= 0 else -1, thing, value)
            for tick, slot, kind, other, thing, value in records
        ]
        reference_events = [(*event[:5], float(np.float32(event.value))) for event in town.events]
        pairs["events"] = (engine_events, reference_events)
        for slot, terms in enumerate(town.terms):
            engine_terms = dict(zip(REWARD_TERMS, sim.reward_terms[b, slot].tolist(), strict=True))
            reference_terms = {name: float(np.float32(terms.get(name, 0.0))) for name in REWARD_TERMS}
            for name in REWARD_TERMS:
                pairs[f"reward {slot} {name}"] = (engine_terms[name], reference_terms[name])
            pairs[f"reward {slot}"] = (float(rows.rewards[first + slot]), reference_terms["total"])
    return [f"{name}: engine {e!r}, reference {r!r}" for name, (e, r) in pairs.items() if e != r]


def play(
    config: TownConfig,
    choose: Chooser,
    *,
    seeds: list[int],
    ticks: int,
    reference_config: TownConfig | None = None,
    observe_every: int = 25,
) -> Town:
    """Play engine (one batch) and reference (town after town) side by side.

    Parameters
    ----------
    choose:
        Takes the masks and expert actions of a town, returns the actions to play.
    reference_config:
        Options of the reference where they shall differ.
    observe_every:
        Ticks between comparisons of observations (they take the reference longer than a tick does).

    Returns
    -------
    Town
        The last town of the reference.

    Raises
    ------
    Disagreement
        On the first tick at which anything differs.
    """
    sim = TownBatch(config, len(seeds))
    rows = sim.allocate()
    sim.reset(seed=seeds, out=rows)
    layouts = list(sim.layouts)
    towns = [Town(reference_config or config, layouts, seed=seed) for seed in seeds]
    count = config.agents
    for tick in range(ticks + 1):
        for b, town in enumerate(towns):
            found = _step_differences(sim, rows, b, town, stepped=tick > 0) + differences(sim, b, town)
            if not found and tick % observe_every == 0:
                found = _observation_differences(sim, rows, b, town)
            if found:
                shown = "\n".join(found[:12])
                msg = f"seed {seeds[b]}, after {tick} ticks, {len(found)} differences:\n{shown}"
                raise Disagreement(msg)
        if tick == ticks:
            break
        actions = np.zeros(len(seeds) * count, np.int64)
        for b, town in enumerate(towns):
            masks = town.masks()
            expert = [NAMES.index(expert_action(town, agent)) for agent in town.agents]
            chosen = choose(masks, expert)
            actions[b * count : (b + 1) * count] = chosen
            town.step(chosen)
        sim.step(actions, rows)
    sim.close()
    return towns[-1]
