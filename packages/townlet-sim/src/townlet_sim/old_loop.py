"""Parts of the predecessor's loop that know no library: stubs, scripted policies, scenarios, factories by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

__all__ = [
    "AgentIntent",
    "FactoryRegistry",
    "PolicyBackendBase",
    "ScenarioBehavior",
    "ScriptedPolicy",
    "ScriptedPolicyAdapter",
    "StubPolicyBackend",
    "StubTelemetrySink",
    "apply_scenario",
    "get_scripted_policy",
    "has_agents",
    "is_stub_policy",
    "policy_registry",
    "seed_default_agents",
    "telemetry_registry",
]


class PolicyBackendBase:
    """Hash and anneal ratio of a policy backend; it keeps no frames."""

    def __init__(self) -> None:
        self._policy_hash: str | None = None
        self._anneal_ratio: float | None = None

    def collect_trajectory(self, clear: bool = True) -> list[dict[str, Any]]:  # noqa: ARG002  # the port's signature
        """Return no frames."""
        return []

    def flush_transitions(self, *_args: Any, **_kwargs: Any) -> list[dict[str, Any]]:
        """Return no frames."""
        return []

    def active_policy_hash(self) -> str | None:
        """Return the hash that was set."""
        return self._policy_hash

    def set_policy_hash(self, value: str | None) -> None:
        """Note a hash."""
        self._policy_hash = value

    def current_anneal_ratio(self) -> float | None:
        """Return the ratio that was set."""
        return self._anneal_ratio

    def set_anneal_ratio(self, ratio: float | None) -> None:
        """Note a ratio."""
        self._anneal_ratio = ratio

    def enable_anneal_blend(self, enabled: bool) -> None:
        """Take the switch; nothing here blends."""


class StubPolicyBackend(PolicyBackendBase):
    """Stands where a policy backend would: agents wait; any other method that a loop calls does nothing."""

    def __init__(self, config: Any = None, backend: Any = None, **_options: Any) -> None:
        super().__init__()
        self.config, self.backend = config, backend

    def decide(self, world: Any, tick: int) -> dict[str, Any]:  # noqa: ARG002  # the port's signature
        """Let every agent wait."""
        return {str(agent): {"kind": "wait"} for agent in getattr(world, "agents", {})}

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: None


def is_stub_policy(policy: Any, provider: str | None = None) -> bool:
    """Whether ``policy`` (or the provider that made it) is the stub."""
    return provider == "stub" or isinstance(policy, StubPolicyBackend)


class StubTelemetrySink:
    """Takes everything and drops it; any method that a loop calls exists and does nothing."""

    def __init__(self, config: Any = None, publisher: Any = None, **_options: Any) -> None:
        self.config, self.publisher = config, publisher

    def latest_events(self) -> list[dict[str, Any]]:
        """Return no events."""
        return []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: None


class ScriptedPolicy:
    """Decides by script; this one lets everybody wait."""

    name = "idle"
    trajectory_prefix = "idle"

    def decide(self, world: Any, tick: int) -> dict[str, dict[str, Any]]:  # noqa: ARG002  # the port's signature
        """Return ``{agent_id: {"kind": ...}}``."""
        return {str(agent): {"kind": "wait"} for agent in getattr(world, "agents", {})}


def get_scripted_policy(name: str) -> ScriptedPolicy:
    """Return the scripted policy called ``name``.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    if name != ScriptedPolicy.name:
        msg = f"Unknown scripted policy {name!r}; known is {ScriptedPolicy.name!r}"
        raise ValueError(msg)
    return ScriptedPolicy()


class ScriptedPolicyAdapter(PolicyBackendBase):
    """A scripted policy in the shape that a simulation loop drives; the capture script joins its own frames."""

    def __init__(self, policy: ScriptedPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.last_actions: dict[str, dict[str, Any]] = {}
        self.last_rewards: dict[str, float] = {}
        self.last_terminated: dict[str, bool] = {}

    def decide(self, world: Any, tick: int) -> dict[str, dict[str, Any]]:
        """Ask the script."""
        self.last_actions = dict(self.policy.decide(world, tick))
        return self.last_actions

    def post_step(self, rewards: Mapping[str, float], terminated: Mapping[str, bool]) -> None:
        """Note what came of it."""
        self.last_rewards, self.last_terminated = dict(rewards), dict(terminated)

    def collect_trajectory(self, clear: bool = False) -> list[dict[str, Any]]:
        """Return nothing; unlike other backends this one never cleared unless asked, so its default differs."""
        return super().collect_trajectory(clear)


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


class FactoryRegistry:
    """Factories of one domain by name."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._providers: dict[str, Callable[..., Any]] = {}

    def register(self, name: str, factory: Callable[..., Any]) -> None:
        """Register ``factory``; a later one of the same name replaces it."""
        self._providers[name] = factory

    def has(self, name: str) -> bool:
        """Whether there is a factory of that name."""
        return name in self._providers

    def resolve(self, name: str, **kwargs: Any) -> Any:
        """Make what ``name`` stands for.

        Raises
        ------
        KeyError
            When nothing is registered under ``name``.
        """
        if name not in self._providers:
            msg = f"unknown {self.domain} provider {name!r}; registered are {sorted(self._providers)}"
            raise KeyError(msg)
        return self._providers[name](**kwargs)


_POLICIES = FactoryRegistry("policy")
_TELEMETRY = FactoryRegistry("telemetry")
for _name in ("pytorch", "scripted", "stub"):
    _POLICIES.register(_name, StubPolicyBackend)
for _name in ("http", "stdout", "stub"):
    _TELEMETRY.register(_name, StubTelemetrySink)


def policy_registry() -> FactoryRegistry:
    """Return the registry of policy providers."""
    return _POLICIES


def telemetry_registry() -> FactoryRegistry:
    """Return the registry of telemetry providers."""
    return _TELEMETRY
