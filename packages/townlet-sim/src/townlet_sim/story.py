"""Scenarios in play: towns that begin as a scenario says, with its timeline, and agents that follow schedules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.engine import GivenAgent, GivenTown, StepOut, TownBatch
from townlet_sim.layout import Layout, PlacedObject
from townlet_sim.scenarios import Intent, Scenario, ScenarioAgent, TimelineEntry, floor
from townlet_sim.spaces import OBJECT_TYPES

__all__ = ["ScenarioBatch", "ScheduledAgents"]

_PERTURBATIONS = ("price_spike", "blackout", "outage", "arranged_meet")
_STEPS = ((c.NORTH, -1, 0), (c.SOUTH, 1, 0), (c.EAST, 0, 1), (c.WEST, 0, -1))
_TAKE = {
    "fridge": c.USE,
    "stove": c.USE,
    "shower": c.USE,
    "till": c.BUY,
    "bed": c.SLEEP,
    "workplace": c.WORK,
    "table": c.EAT,
}
_PATIENCE = 200
"""Ticks after which a schedule goes on although an intent was not carried out."""


class ScenarioBatch(TownBatch):
    """B towns that all play one scenario (the same port as :class:`~townlet_sim.engine.TownBatch`).

    The timeline is applied when a town's tick is reached, before that tick's observation is published; at tick 0 the
    given ties are set. Objects and agents of the scenario have the numbers of their order in the file, agents that
    arrive by the timeline come last.

    Raises
    ------
    ValueError
        When a position of the scenario is not a free walkable tile.
    """

    def __init__(self, scenario: Scenario, num_envs: int, *, threads: int = 1) -> None:
        self.scenario = scenario
        super().__init__(scenario.config, num_envs, threads=threads, given=_given(scenario))
        digest = hashlib.sha256((self.spec.rules_hash + scenario.model_dump_json(exclude={"config"})).encode())
        self.spec = replace(self.spec, rules_hash=digest.hexdigest()[:16])
        self._has_ties = any(agent.ties for agent in scenario.agents)
        self._by_tick: dict[int, list[TimelineEntry]] = {}
        for entry in scenario.timeline:
            self._by_tick.setdefault(entry.tick, []).append(entry)

    def reset(self, *, seed: Any, out: StepOut) -> None:
        """Begin new episodes everywhere; see :meth:`TownBatch.reset`."""
        super().reset(seed=seed, out=out)
        self._tell(out)

    def step(self, actions: NDArray[Any], out: StepOut) -> None:
        """Play one tick, then what the timeline holds for the new one."""
        super().step(actions, out)
        self._tell(out)

    def _tell(self, out: StepOut) -> None:
        if not self._by_tick and not self._has_ties:
            return
        changed = False
        for b, tick in enumerate(self.arrays.town_i[:, c.TICK].tolist()):
            if tick == 0:
                changed |= self._set_ties(b)
            for entry in self._by_tick.get(tick, ()):
                self._apply_entry(b, entry)
                changed = True
        if changed:
            self.publish(out)

    def _set_ties(self, b: int) -> bool:
        found = False
        for slot, agent in enumerate(self.scenario.agents):
            for place, tie in enumerate(agent.ties[: c.TIES]):
                self.arrays.tie_other[b, slot, place] = self.scenario.slots[tie.other]
                self.arrays.tie[b, slot, place] = (tie.trust, tie.familiarity, tie.rivalry)
                found = True
        return found

    def _apply_entry(self, b: int, entry: TimelineEntry) -> None:
        slots, state, kwargs = self.scenario.slots, self.arrays, entry.arguments
        if entry.name == "set_need":
            column = {"hunger": c.HUNGER, "hygiene": c.HYGIENE, "energy": c.ENERGY}[kwargs["need"]]
            state.agent_f[b, slots[kwargs["agent_id"]], column] = float(kwargs["value"])
        elif entry.name == "perturbation_trigger":
            self.begin_perturbation(b, _PERTURBATIONS.index(kwargs["kind"]))
        elif entry.name == "employment_exit":
            self.request_exit(b, slots[kwargs["agent_id"]])
        elif entry.name == "spawn_agent":
            slot = slots[kwargs["agent_id"]]
            if not state.agent_i[b, slot, c.ALIVE]:
                self.enter_agent(b, slot)
                self._arrange(b, slot, kwargs)
        else:  # a chat is made possible: side by side, both ready; whether it succeeds is up to them
            speaker, listener = slots[kwargs["speaker"]], slots[kwargs["listener"]]
            state.agent_i[b, [speaker, listener], c.CHAT_READY] = 0
            y, x = state.agent_i[b, speaker, [c.Y, c.X]]
            self._move_near(b, listener, int(y), int(x))

    def _arrange(self, b: int, slot: int, kwargs: Mapping[str, Any]) -> None:
        """Give a newcomer what the timeline says."""
        for need, column in (("hunger", c.HUNGER), ("hygiene", c.HYGIENE), ("energy", c.ENERGY)):
            value = (kwargs.get("needs") or {}).get(need)
            if value is not None:
                self.arrays.agent_f[b, slot, column] = float(value)
        if kwargs.get("wallet") is not None:
            self.arrays.agent_f[b, slot, c.WALLET] = float(kwargs["wallet"])
        if kwargs.get("position") is not None:
            x, y = kwargs["position"]
            self._move_near(b, slot, int(y), int(x), itself=True)

    def _move_near(self, b: int, slot: int, y: int, x: int, *, itself: bool = False) -> None:
        """Put an agent that is free on the free walkable tile nearest to ``(y, x)`` (on it only if ``itself``)."""
        state = self.arrays
        agent = state.agent_i[b, slot]
        if agent[c.BUSY] != c.FREE or agent[c.QUEUE] >= 0:
            return
        state.occupied[b, agent[c.Y], agent[c.X]] = -1
        free = self.layout_of(b).walkable & (state.occupied[b] < 0)
        if not itself:
            free[y, x] = False
        tiles = np.argwhere(free)
        agent[c.Y], agent[c.X] = tiles[np.abs(tiles - (y, x)).max(axis=1).argmin()]
        state.occupied[b, agent[c.Y], agent[c.X]] = slot


def _given(scenario: Scenario) -> GivenTown:
    config = scenario.config
    jobs = [job.name for job in config.jobs]
    layout = None
    if scenario.objects or scenario.map is not None:
        walkable = floor(scenario, config.map_size)
        placed = []
        for n, thing in enumerate(scenario.objects):
            x, y = thing.position
            if y >= walkable.shape[0] or x >= walkable.shape[1] or not walkable[y, x]:
                msg = f"scenario.objects.{n}.position: {thing.position!r} is not a free tile (column, row) of the map"
                raise ValueError(msg)
            walkable[y, x] = False
            if thing.type in OBJECT_TYPES:
                placed.append(PlacedObject(thing.type, y, x, thing.id))
        layout = Layout(walkable, tuple(placed))
    agents = [_given_agent(agent, jobs) for agent in scenario.agents]
    agents += [GivenAgent(present=False)] * (config.agents - len(agents))
    return GivenTown(layout=layout, agents=tuple(agents))


def _given_agent(agent: ScenarioAgent, jobs: list[str]) -> GivenAgent:
    return GivenAgent(
        position=None if agent.position is None else (agent.position[1], agent.position[0]),
        needs=(agent.needs.hunger, agent.needs.hygiene, agent.needs.energy),
        wallet=agent.wallet,
        job=None if agent.job is None else jobs.index(agent.job),
    )


@dataclass(slots=True)
class _Place:
    """Where an agent is in its schedule."""

    index: int = 0
    ticks: int = 0
    begun: bool = False


class ScheduledAgents:
    """A policy that follows the scenario's schedules; agents without one do what the expert does.

    A schedule is cycled. It begins anew with every episode; where it stands is not part of the town's state.
    """

    def __init__(self, batch: ScenarioBatch) -> None:
        self._batch = batch
        self._schedules = [agent.schedule for agent in batch.scenario.agents]
        self._numbers = {thing.name: number for number, thing in enumerate(batch.layouts[0].objects)}
        self._places: dict[tuple[int, int], _Place] = {}

    def actions(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return an action for every slot, ``(S,)``, inside ``mask`` ``(S, 16)``; call it once for every step."""
        batch = self._batch
        chosen = batch.expert_actions()
        agents = batch.config.agents
        for b, tick in enumerate(batch.arrays.town_i[:, c.TICK].tolist()):
            for slot, schedule in enumerate(self._schedules):
                if not schedule:
                    continue
                if tick == 0:
                    self._places.pop((b, slot), None)
                place = self._places.setdefault((b, slot), _Place())
                row = b * agents + slot
                asked = self._follow(b, slot, schedule[place.index % len(schedule)], place)
                chosen[row] = asked if mask[row, asked] else c.STAY
        return chosen

    def _follow(self, b: int, slot: int, intent: Intent, place: _Place) -> int:
        """Return the action of one tick and note when the intent is over."""
        place.ticks += 1
        action, over = self._carry_out(b, slot, intent, place)
        if over or place.ticks >= max(_PATIENCE, intent.ticks):
            place.index, place.ticks, place.begun = place.index + 1, 0, False
        return action

    def _carry_out(self, b: int, slot: int, intent: Intent, place: _Place) -> tuple[int, bool]:
        agent = self._batch.arrays.agent_i[b, slot]
        waited = place.ticks >= intent.ticks
        if intent.blocked or intent.kind in {"wait", "noop", "blocked"}:
            return c.STAY, waited
        if intent.kind == "move":
            assert intent.position is not None
            x, y = intent.position
            action = self._towards_tile(b, agent, y, x)
            return action, action == c.STAY
        if intent.kind == "release":
            return c.LEAVE, True
        if intent.kind in {"request", "start"}:
            return self._take(b, agent, intent, place)
        names = self._batch.spec.action_names
        return names.index(intent.kind), waited

    def _take(self, b: int, agent: NDArray[np.int32], intent: Intent, place: _Place) -> tuple[int, bool]:
        """Walk to an object, take it (or queue for it), and stay until the use is over."""
        number = self._numbers.get(intent.object or "")
        if number is None:  # furniture
            return c.STAY, True
        holding = agent[c.BUSY] == c.USING and agent[c.BUSY_LEFT] == 0
        if intent.kind == "start" and holding and agent[c.OBJECT] == number:
            return c.LEAVE, True
        busy = agent[c.BUSY] != c.FREE or agent[c.QUEUE] >= 0
        if busy:
            place.begun = True
            return c.STAY, intent.kind == "request"
        if place.begun:  # it is over, or somebody put an end to it
            return c.STAY, True
        steps = self._batch.layout_arrays.dist[self._batch.arrays.town_i[b, c.LAYOUT], number]
        action = _TAKE[self._batch.layouts[0].objects[number].type]
        if steps[agent[c.Y], agent[c.X]] > 0:
            return self._downhill(b, agent, steps), False
        return action, action in {c.BUY, c.WORK}

    def _towards_tile(self, b: int, agent: NDArray[np.int32], y: int, x: int) -> int:
        from townlet_sim.layout import _flood

        walkable = self._batch.layout_of(b).walkable
        return self._downhill(b, agent, _flood(walkable, [(y, x)]))

    def _downhill(self, b: int, agent: NDArray[np.int32], steps: NDArray[np.int16]) -> int:
        """Return the first step that leads closer, free tiles first; ``stay`` at the goal."""
        occupied = self._batch.arrays.occupied[b]
        here, blocked = int(steps[agent[c.Y], agent[c.X]]), c.STAY
        for action, dy, dx in _STEPS:
            y, x = int(agent[c.Y]) + dy, int(agent[c.X]) + dx
            if 0 <= y < steps.shape[0] and 0 <= x < steps.shape[1] and steps[y, x] < here:
                if occupied[y, x] < 0:
                    return action
                blocked = blocked or action
        return blocked
