"""`SimulationLoop`: the town behind the shape of the predecessor's loop, driven by its scripted expert.

A step hands out what agents saw *before* it, so that observation, action and reward of a frame belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from townlet.config.loader import as_mapping
from townlet.dto.observations import AgentObservationDTO, ObservationEnvelope
from townlet.policy.fallback import PolicyBackendBase, StubPolicyBackend
from townlet.telemetry.fallback import StubTelemetrySink
from townlet_training_core.rollout.trajectory import TrajectoryService

if TYPE_CHECKING:
    from townlet_sim.engine import TownBatch

__all__ = ["LoopArtifacts", "SimulationLoop", "TownPolicy", "World"]

_STEPS = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
_VERBS = {"request": "use", "start": "use", "release": "leave"}
_VALUES = {"queue_conflict": "intensity", "chat_success": "quality", "queue_interaction": "queue_length"}


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
            return {"kind": self._loop.expert_action(tick)}
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
        self.provider_info = {
            domain: str(getattr(getattr(runtime, domain, None), "provider", "scripted"))
            for domain in ("policy", "telemetry")
        }
        self.reset()

    def reset(self) -> None:
        """Begin with an empty world."""
        self.world, self.telemetry = World(), _Telemetry()
        stub = self.provider_info["policy"] == "stub"
        self.policy: Any = StubPolicyBackend(self.config) if stub else TownPolicy(self)
        self._town: TownBatch | None = None
        self._ids: list[str] = []
        self._expert: Any = None

    @property
    def tick(self) -> int:
        """Ticks stepped."""
        return self.world.tick

    @property
    def town(self) -> TownBatch:
        """The simulation behind the loop.

        Raises
        ------
        ValueError
            When nobody lives in the world.
        """
        if self._town is None:
            self._town = self._build()
            self._out = self._town.allocate()
            self._town.reset(seed=int(getattr(self.config, "seed", None) or 0), out=self._out)
            self._refresh()
        return self._town

    def _build(self) -> TownBatch:
        from townlet_sim.engine import TownBatch
        from townlet_sim.predecessor import given_town, town_config

        if not self.world.agents:
            msg = "the world has no agents; apply a scenario or seed the default agents before the first step"
            raise ValueError(msg)
        settings, self._ids = as_mapping(self.config), list(self.world.agents)
        config = town_config(settings, agents=len(self._ids))
        objects = [
            {"id": name, "type": thing.object_type, "position": thing.position}
            for name, thing in self.world.objects.items()
        ]
        agents = [vars(agent) for agent in self.world.agents.values()]
        given = given_town(settings, config, agents=agents, objects=objects if self.world.open_floor else ())
        return TownBatch(config, 1, given=given)

    def expert_action(self, agent_id: str) -> str:
        """Name of the scripted expert's action for an agent."""
        if self._expert is None:
            self._expert = self.town.expert_actions()
        return self.town.spec.action_names[int(self._expert[self._ids.index(agent_id)])]

    def step(self) -> LoopArtifacts:
        """Let the policy decide, play one tick, and hand out what was seen, done and earned."""
        town, out = self.town, self._out
        self.world.tick += 1
        self._expert = None
        service = getattr(self.policy, "trajectory", None)
        frames = service if isinstance(service, TrajectoryService) else TrajectoryService()
        frames.begin_tick(self.world.tick)
        present = [agent for slot, agent in enumerate(self._ids) if out.alive[slot]]
        decided = dict(self.policy.decide(self.world, self.world.tick) or {})
        actions = np.zeros(len(self._ids), np.int64)
        for agent in present:
            slot, payload = self._ids.index(agent), dict(decided.get(agent) or {"kind": "wait"})
            actions[slot] = self._action_id(slot, payload)
            frames.record_action(agent, payload, int(actions[slot]))
        seen = {agent: self._observation(agent) for agent in present}
        town.step(actions, out)
        rewards = {agent: float(out.rewards[self._ids.index(agent)]) for agent in present}
        ended = {agent: bool((out.terminated | out.truncated)[self._ids.index(agent)]) for agent in present}
        for agent in present:
            frames.append_reward(agent, rewards[agent], ended[agent])
        envelope = ObservationEnvelope(
            tick=self.world.tick, agents=list(seen.values()), actions=decided, terminated=ended
        )
        if frames is service:
            frames.extend_trajectory([self._identified(frame) for frame in frames.flush_transitions(envelope=envelope)])
        elif hasattr(self.policy, "post_step"):
            self.policy.post_step(rewards, ended)
        self._refresh()
        return LoopArtifacts(envelope=envelope, rewards=rewards)

    def _identified(self, frame: dict[str, Any]) -> dict[str, Any]:
        identity = {
            "config_id": getattr(self.config, "config_id", None),
            "policy_hash": self.policy.active_policy_hash(),
            "observation_variant": self.town.config.observation,
            "anneal_ratio": self.policy.current_anneal_ratio(),
        }
        extra = {"identity": identity, "possessed_agents": [], "option_switch_counts": {}}
        frame["metadata"] = {**frame["metadata"], **extra, "anneal_ratio": identity["anneal_ratio"]}
        return frame

    def _observation(self, agent: str) -> AgentObservationDTO:
        spec, slot, state = self.town.spec, self._ids.index(agent), self.world.agents[agent]
        rows = self._out.observations
        metadata = {
            "variant": self.town.config.observation,
            "map_shape": list(rows["map"].shape[1:]),
            "map_channels": list(spec.map_channels),
            "feature_names": list(spec.feature_names),
            "action_names": list(spec.action_names),
            "action_dim": len(spec.action_names),
            "simulation": spec.name,
            "rules_hash": spec.rules_hash,
            "versions": dict(spec.versions),
        }
        return AgentObservationDTO(
            agent_id=agent,
            map=rows["map"][slot].astype(np.float32),
            features=rows["features"][slot].copy(),
            metadata=metadata,
            position=list(state.position),
            needs=state.needs,
            wallet=state.wallet,
            job=state.job,
        )

    def _action_id(self, slot: int, payload: Mapping[str, Any]) -> int:
        """Return the town's action for an intent; what is not possible now becomes waiting."""
        names, mask = self.town.spec.action_names, self._out.action_mask[slot]
        kind = str(payload.get("kind", "wait"))
        name = "stay" if payload.get("blocked") else _VERBS.get(kind, kind)
        target = payload.get("position")
        thing = self.world.objects.get(str(payload.get("object_id") or payload.get("object")))
        if name == "use" and not mask[names.index("use")] and thing is not None:
            target, name = thing.position, "move"
        if name == "move" and target is not None:
            x, y = self.world.agents[self._ids[slot]].position
            ways = [way for way in _STEPS if mask[names.index(way)]]
            away = {way: abs(x + _STEPS[way][0] - target[0]) + abs(y + _STEPS[way][1] - target[1]) for way in ways}
            name = min(away, key=away.__getitem__, default="stay")
        action = names.index(name) if name in names else 0
        return action if mask[action] else 0

    def _refresh(self) -> None:
        """Bring ``world.agents`` and the telemetry up to date."""
        from townlet_sim import columns as c

        town = self.town
        state, spec = town.arrays, town.spec
        for slot, agent in enumerate(self._ids):
            ints, floats = state.agent_i[0, slot], state.agent_f[0, slot]
            known = self.world.agents.setdefault(agent, SimpleNamespace(agent_id=agent, job=None))
            known.position = (int(ints[c.X]), int(ints[c.Y]))
            known.wallet = float(floats[c.WALLET])
            needs = (("hunger", c.HUNGER), ("hygiene", c.HYGIENE), ("energy", c.ENERGY))
            known.needs = {name: float(floats[column]) for name, column in needs}
        things = town.layout_of(0).objects
        self.telemetry.events = []
        for event in town.events:
            kind = spec.event_kinds[int(event["kind"])]
            other, thing = int(event["other"]), int(event["object"])
            actor, value = self._ids[int(event["slot"])], float(event["value"])
            self.telemetry.events.append(
                {
                    "event": kind,
                    "tick": self.world.tick,
                    "agent_id": actor,
                    "actor": actor,
                    "rival": self._ids[other] if other >= 0 else None,
                    "object_id": things[thing].name or str(thing) if thing >= 0 else None,
                    _VALUES.get(kind, "value"): value,
                }
            )


def _payload(intent: Any) -> dict[str, Any]:
    """Return an intent, or a payload already, as ``{"kind": ...}`` without what is not set."""
    fields = intent if isinstance(intent, Mapping) else vars(intent)
    return {key: value for key, value in fields.items() if value is not None and value is not False}
