"""`SimulationLoop`: the town behind the shape of the predecessor's loop, driven by its scripted expert.

A step hands out what agents saw *before* it, so that observation, action and reward of a frame belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from townlet.config.loader import as_mapping
from townlet.dto.observations import AgentObservationDTO, ObservationEnvelope
from townlet.policy.fallback import PolicyBackendBase, StubPolicyBackend
from townlet.telemetry.fallback import StubTelemetrySink
from townlet_training_core.rollout.trajectory import TrajectoryService

if TYPE_CHECKING:
    from townlet_sim.driven import DrivenTown

__all__ = ["LoopArtifacts", "SimulationLoop", "TownPolicy", "World"]


@dataclass
class World:
    """Who and what there is; agents and objects are put in before the first step."""

    agents: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    open_floor: bool = False
    """The objects stand on an open floor, instead of a generated map."""
    tick: int = 0


@dataclass(frozen=True)
class LoopArtifacts:
    """What a step hands out."""

    envelope: ObservationEnvelope
    rewards: dict[str, float]


class _Telemetry(StubTelemetrySink):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def latest_events(self) -> list[dict[str, Any]]:
        return list(self.events)


class TownPolicy(PolicyBackendBase):
    """The town's scripted expert; agents with a schedule follow ``behavior`` instead."""

    def __init__(self, loop: SimulationLoop) -> None:
        super().__init__()
        self.behavior: Any = self
        self.trajectory = TrajectoryService()
        self._loop = loop

    def decide(self, world: Any, tick: int | str, *, dto_world: Any = None) -> Any:  # noqa: ARG002  # both ports
        """Decide for all agents by ``(world, tick)``, or for one by ``(world, agent_id)``."""
        if isinstance(tick, str):
            return {"kind": self._loop.town.expert_action(tick)}
        return {agent: _payload(self.behavior.decide(world, agent)) for agent in world.agents}

    def collect_trajectory(self, clear: bool = True) -> list[dict[str, Any]]:
        """Return the frames since they were last collected."""
        return self.trajectory.collect_trajectory(clear=clear)

    def active_policy_hash(self) -> str | None:
        """Return the hash that was set, else one that names the rules."""
        return self._policy_hash or f"scripted-{self._loop.town.spec.rules_hash}"


class SimulationLoop:
    """One town with the agents of ``world.agents``; the first step builds it."""

    def __init__(self, config: Any, **_options: Any) -> None:
        self.config = config
        runtime = getattr(config, "runtime", None)
        providers = {
            name: getattr(getattr(runtime, name, None), "provider", "scripted") for name in ("policy", "telemetry")
        }
        self.provider_info = {name: str(provider) for name, provider in providers.items()}
        self.reset()

    def reset(self) -> None:
        """Begin with an empty world."""
        self.world, self.telemetry = World(), _Telemetry()
        stub = self.provider_info["policy"] == "stub"
        self.policy: Any = StubPolicyBackend(self.config) if stub else TownPolicy(self)
        self._town: DrivenTown | None = None

    @property
    def tick(self) -> int:
        """Ticks stepped."""
        return self.world.tick

    @property
    def town(self) -> DrivenTown:
        """The simulation behind the loop.

        Raises
        ------
        ValueError
            When nobody lives in the world.
        """
        if self._town is None:
            from townlet_sim.driven import DrivenTown

            if not self.world.agents:
                msg = "the world has no agents; apply a scenario or seed the default agents before the first step"
                raise ValueError(msg)
            things = self.world.objects.items() if self.world.open_floor else ()
            self._town = DrivenTown(
                as_mapping(self.config),
                agents={name: vars(agent) for name, agent in self.world.agents.items()},
                objects=[{"id": name, "type": one.object_type, "position": one.position} for name, one in things],
                seed=int(getattr(self.config, "seed", None) or 0),
            )
            self._refresh()
        return self._town

    def step(self) -> LoopArtifacts:
        """Let the policy decide, play one tick, and hand out what was seen, done and earned."""
        town = self.town
        self.world.tick += 1
        own = getattr(self.policy, "trajectory", None)
        frames = own if isinstance(own, TrajectoryService) else TrajectoryService()
        frames.begin_tick(self.world.tick)
        decided = dict(self.policy.decide(self.world, self.world.tick) or {})
        actions = {}
        for agent in town.present():
            payload = dict(decided.get(agent) or {"kind": "wait"})
            actions[agent] = town.action_id(agent, payload)
            frames.record_action(agent, payload, actions[agent])
        seen = [self._observation(agent) for agent in actions]
        rewards, ended = town.step(actions)
        for agent in actions:
            frames.append_reward(agent, rewards[agent], ended[agent])
        envelope = ObservationEnvelope(tick=self.world.tick, agents=seen, actions=decided, terminated=ended)
        if frames is own:
            frames.extend_trajectory([self._identified(one) for one in frames.flush_transitions(envelope=envelope)])
        elif hasattr(self.policy, "post_step"):
            self.policy.post_step(rewards, ended)
        self.telemetry.events = [{**event, "tick": self.world.tick} for event in town.events()]
        self._refresh()
        return LoopArtifacts(envelope=envelope, rewards=rewards)

    def _identified(self, frame: dict[str, Any]) -> dict[str, Any]:
        identity = {
            "config_id": getattr(self.config, "config_id", None),
            "policy_hash": self.policy.active_policy_hash(),
            "observation_variant": frame["metadata"].get("variant"),
            "anneal_ratio": self.policy.current_anneal_ratio(),
        }
        extra = {"identity": identity, "possessed_agents": [], "option_switch_counts": {}}
        frame["metadata"] = {**frame["metadata"], **extra, "anneal_ratio": identity["anneal_ratio"]}
        return frame

    def _observation(self, agent: str) -> AgentObservationDTO:
        (local, features), state = self.town.observation(agent), self.world.agents[agent]
        has = {"position": list(state.position), "needs": state.needs, "wallet": state.wallet, "job": state.job}
        return AgentObservationDTO(agent_id=agent, map=local, features=features, metadata=self.town.metadata(), **has)

    def _refresh(self) -> None:
        for name in self.town.names:
            vars(self.world.agents[name]).update(self.town.state(name))


def _payload(intent: Any) -> dict[str, Any]:
    """Return an intent, or a payload already, as ``{"kind": ...}`` without what is not set."""
    fields = intent if isinstance(intent, Mapping) else vars(intent)
    return {key: value for key, value in fields.items() if value is not None and value is not False}
