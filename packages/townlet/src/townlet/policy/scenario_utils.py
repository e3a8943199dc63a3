"""Scenarios: who and what stands in a loop's world, and what agents do by schedule."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

__all__ = ["AgentIntent", "ScenarioBehavior", "apply_scenario", "has_agents", "seed_default_agents"]


@dataclass
class AgentIntent:
    """What an agent wants to do."""

    kind: str
    object_id: str | None = None
    affordance_id: str | None = None
    blocked: bool = False
    position: tuple[int, int] | None = None
    target_agent: str | None = None
    quality: float | None = None


class ScenarioBehavior:
    """Cycles through an agent's schedule; agents without one ask the base."""

    def __init__(self, base_behavior: Any, schedules: Mapping[str, Sequence[AgentIntent]]) -> None:
        self.base_behavior = base_behavior
        self.schedules = {str(agent): list(intents) for agent, intents in schedules.items()}
        self._next: dict[str, int] = dict.fromkeys(self.schedules, 0)

    def decide(self, world: Any, agent_id: str, *, dto_world: Any = None) -> Any:
        """Return the agent's intent."""
        schedule = self.schedules.get(agent_id)
        if not schedule:
            return self.base_behavior.decide(world, agent_id, dto_world=dto_world)
        index = self._next[agent_id]
        self._next[agent_id] = (index + 1) % len(schedule)
        return schedule[index]


def has_agents(loop: Any) -> bool:
    """Whether anybody lives in the loop's world."""
    return bool(loop.world.agents)


def seed_default_agents(loop: Any) -> None:
    """Put alice and bob, and one stove, into an empty world."""
    _put_object(loop.world, "stove_1", "stove", (2, 0))
    for name, position in (("alice", (0, 0)), ("bob", (1, 0))):
        _put_agent(loop.world, {"id": name, "position": position})


def apply_scenario(loop: Any, scenario: Mapping[str, Any]) -> None:
    """Put a scenario's objects and agents into the loop's world and its schedules into the policy."""
    for thing in scenario.get("objects") or ():
        _put_object(loop.world, str(thing["id"]), str(thing["type"]), thing.get("position"))
        loop.world.open_floor = True
    schedules: dict[str, list[AgentIntent]] = {}
    for entry in scenario.get("agents") or ():
        _put_agent(loop.world, entry)
        if entry.get("schedule"):
            schedules[str(entry["id"])] = [_intent(item) for item in entry["schedule"]]
    if schedules:
        loop.policy.behavior = ScenarioBehavior(getattr(loop.policy, "behavior", None), schedules)


def _put_object(world: Any, object_id: str, object_type: str, position: Any) -> None:
    if hasattr(world, "register_object"):  # an owner's own world
        world.register_object(object_id=object_id, object_type=object_type, position=position)
    else:
        world.objects[object_id] = SimpleNamespace(object_id=object_id, object_type=object_type, position=position)


def _put_agent(world: Any, entry: Mapping[str, Any]) -> None:
    fields = {name: entry.get(name) for name in ("position", "needs", "wallet", "job")}
    make: Any = SimpleNamespace
    if hasattr(world, "register_object"):  # an owner's own world wants its own kind of agent
        make = importlib.import_module("townlet.world.grid").AgentSnapshot
        fields = {name: value for name, value in fields.items() if value is not None and name != "job"}
        fields.setdefault("needs", dict.fromkeys(("hunger", "hygiene", "energy"), 0.5))
    world.agents[str(entry["id"])] = make(agent_id=str(entry["id"]), **fields)


def _intent(item: Mapping[str, Any]) -> AgentIntent:
    position = item.get("position")
    return AgentIntent(
        kind=str(item.get("kind", "wait")),
        object_id=item.get("object") or item.get("object_id"),
        affordance_id=item.get("affordance") or item.get("affordance_id"),
        blocked=bool(item.get("blocked", False)),
        position=None if position is None else (int(position[0]), int(position[1])),
        target_agent=item.get("target_agent") or item.get("target"),
        quality=item.get("quality"),
    )
