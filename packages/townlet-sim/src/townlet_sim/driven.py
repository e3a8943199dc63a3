"""One town driven from outside agent by agent, by name: what an old simulation loop needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.engine import TownBatch
from townlet_sim.placing import furnish
from townlet_sim.predecessor import open_floor, town_config

__all__ = ["DrivenTown"]

_STEPS = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
_VERBS = {"request": "use", "start": "use", "release": "leave"}
_VALUES = {"queue_conflict": "intensity", "chat_success": "quality", "queue_interaction": "queue_length"}
_NEEDS = {"hunger": c.HUNGER, "hygiene": c.HYGIENE, "energy": c.ENERGY}


class DrivenTown:
    """A town of the given agents.

    Parameters
    ----------
    settings:
        A predecessor's configuration.
    agents:
        By name: ``position`` (x, y), ``needs``, ``wallet``, ``job``; each may be missing.
    objects:
        ``id``, ``type`` and ``position`` on an open floor; a generated map when there are none.
    seed:
        Of the town.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        agents: Mapping[str, Mapping[str, Any]],
        objects: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        config = town_config(settings, agents=len(agents))
        given = furnish(
            open_floor(settings) if objects else None,
            objects=objects,
            agents=list(agents.values()),
            jobs=[job.name for job in config.jobs],
            strict=False,
        )
        self.batch = TownBatch(config, 1, given=given)
        self.spec = self.batch.spec
        self.names = list(agents)
        self._slots = {name: slot for slot, name in enumerate(self.names)}
        self._objects = {str(thing.get("id")): thing for thing in objects}
        self._out = self.batch.allocate()
        self.batch.reset(seed=seed, out=self._out)
        self._expert: NDArray[np.int64] | None = None

    def present(self) -> list[str]:
        """Names of the agents that act next."""
        return [name for slot, name in enumerate(self.names) if self._out.alive[slot]]

    def observation(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return copies of an agent's map ``(C, H, W)`` and features ``(F,)``."""
        rows, slot = self._out.observations, self._slots[name]
        return rows["map"][slot].astype(np.float32), rows["features"][slot].copy()

    def metadata(self) -> dict[str, Any]:
        """Describe observations and actions, for captures."""
        spec = self.spec
        return {
            "variant": self.batch.config.observation,
            "map_shape": list(spec.observations["map"].shape),
            "map_channels": list(spec.map_channels),
            "feature_names": list(spec.feature_names),
            "action_names": list(spec.action_names),
            "action_dim": len(spec.action_names),
            "simulation": spec.name,
            "rules_hash": spec.rules_hash,
            "versions": dict(spec.versions),
        }

    def state(self, name: str) -> dict[str, Any]:
        """Return an agent's ``position`` (x, y), ``wallet`` and ``needs``."""
        arrays, slot = self.batch.arrays, self._slots[name]
        ints, floats = arrays.agent_i[0, slot], arrays.agent_f[0, slot]
        needs = {need: float(floats[column]) for need, column in _NEEDS.items()}
        return {"position": (int(ints[c.X]), int(ints[c.Y])), "wallet": float(floats[c.WALLET]), "needs": needs}

    def expert_action(self, name: str) -> str:
        """Name of the scripted expert's action for an agent."""
        if self._expert is None:
            self._expert = self.batch.expert_actions()
        return self.spec.action_names[int(self._expert[self._slots[name]])]

    def action_id(self, name: str, intent: Mapping[str, Any]) -> int:
        """Return the action for an intent (``kind``, ``position``, ``object_id``, ``blocked``).

        Moves and far objects become a step in their direction; what is not possible now becomes waiting.
        """
        names, mask = self.spec.action_names, self._out.action_mask[self._slots[name]]
        kind = str(intent.get("kind", "wait"))
        action = "stay" if intent.get("blocked") else _VERBS.get(kind, kind)
        target = intent.get("position")
        thing = self._objects.get(str(intent.get("object_id") or intent.get("object")))
        if action == "use" and not mask[names.index("use")] and thing is not None:
            target, action = thing.get("position"), "move"
        if action == "move" and target is not None:
            x, y = self.state(name)["position"]
            ways = {way: step for way, step in _STEPS.items() if mask[names.index(way)]}
            far = {way: abs(x + dx - target[0]) + abs(y + dy - target[1]) for way, (dx, dy) in ways.items()}
            action = min(far, key=far.__getitem__, default="stay")
        number = names.index(action) if action in names else 0
        return number if mask[number] else 0

    def step(self, actions: Mapping[str, int]) -> tuple[dict[str, float], dict[str, bool]]:
        """Play one tick; return rewards and ends of the agents that acted."""
        acting, chosen = self.present(), np.zeros(len(self.names), np.int64)
        for name, action in actions.items():
            chosen[self._slots[name]] = action
        self.batch.step(chosen, self._out)
        self._expert = None
        ended = self._out.terminated | self._out.truncated
        rewards = {name: float(self._out.rewards[self._slots[name]]) for name in acting}
        return rewards, {name: bool(ended[self._slots[name]]) for name in acting}

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the last tick with names instead of numbers."""
        things, listed = self.batch.layout_of(0).objects, []
        for event in self.batch.events:
            kind = self.spec.event_kinds[int(event["kind"])]
            actor, other, thing = self.names[int(event["slot"])], int(event["other"]), int(event["object"])
            rival = self.names[other] if other >= 0 else None
            found = (things[thing].name or str(thing)) if thing >= 0 else None
            who = {"agent_id": actor, "actor": actor, "rival": rival, "object_id": found}
            listed.append({"event": kind, **who, _VALUES.get(kind, "value"): float(event["value"])})
        return listed
