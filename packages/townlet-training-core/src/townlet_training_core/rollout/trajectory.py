"""Frames of a running simulation, gathered tick by tick: the predecessor's trajectory service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from townlet_training_core.replay.npz import to_builtins

__all__ = ["TrajectoryService"]

_DTO_FIELDS = ("position", "needs", "wallet", "inventory", "job", "personality", "queue_state", "pending_intent")


@dataclass
class TrajectoryService:
    """Joins what agents saw, did and earned in a tick into frames.

    A tick goes ``begin_tick``, ``record_action`` per agent, ``append_reward`` per agent, ``flush_transitions``
    with the tick's observation envelope; ``extend_trajectory`` keeps the frames.
    """

    _tick: int = 0
    _transitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _trajectory: list[dict[str, Any]] = field(default_factory=list)

    @property
    def transitions(self) -> dict[str, dict[str, Any]]:
        """Open entries of the current tick, by agent."""
        return self._transitions

    @property
    def trajectory(self) -> list[dict[str, Any]]:
        """Frames kept so far."""
        return self._trajectory

    def begin_tick(self, tick: int) -> None:
        """Set the tick that the next frames carry."""
        self._tick = tick

    def transition_entry(self, agent_id: str) -> dict[str, Any]:
        """Return the agent's open entry; a new one when there is none."""
        return self._transitions.setdefault(agent_id, {})

    def record_action(self, agent_id: str, action_payload: Any, action_id: int) -> dict[str, Any]:
        """Note an agent's action and return its entry."""
        entry = self.transition_entry(agent_id)
        entry["action"], entry["action_id"] = action_payload, action_id
        return entry

    def append_reward(self, agent_id: str, reward: float, done: bool) -> None:
        """Note an agent's reward and whether its episode ended."""
        entry = self.transition_entry(agent_id)
        entry.setdefault("rewards", []).append(reward)
        entry.setdefault("dones", []).append(bool(done))

    def flush_transitions(self, *, envelope: Any) -> list[dict[str, Any]]:
        """Close the tick: return its frames, sorted by agent, and forget the open entries.

        The frames are not added to the trajectory.
        """
        seen = {str(agent.agent_id): agent for agent in envelope.agents}
        context = getattr(getattr(envelope, "global_context", None), "anneal_context", None)
        frames = [
            self._frame(agent_id, self._transitions[agent_id], seen.get(agent_id), context, envelope)
            for agent_id in sorted(self._transitions)
        ]
        self._transitions = {}
        return frames

    def _frame(
        self, agent_id: str, entry: Mapping[str, Any], agent: Any, context: Mapping[str, Any] | None, envelope: Any
    ) -> dict[str, Any]:
        metadata = dict(to_builtins(getattr(agent, "metadata", None) or {}))
        dto = dict(metadata.get("dto") or {})
        schema = getattr(envelope, "schema_version", None)
        if schema:
            dto["schema_version"] = schema
        for name in _DTO_FIELDS:
            value = getattr(agent, name, None)
            if value:
                dto[name] = _numbers_as_floats(to_builtins(value))
        metadata["dto"] = dto
        known = {"action", "action_id", "rewards", "dones"}
        return {
            "tick": self._tick,
            "agent_id": agent_id,
            "map": getattr(agent, "map", None),
            "features": getattr(agent, "features", None),
            "metadata": metadata,
            "anneal_context": dict(context or {}),
            "action": entry.get("action"),
            "action_id": entry.get("action_id"),
            "rewards": list(entry.get("rewards", [])),
            "dones": list(entry.get("dones", [])),
            **{key: value for key, value in entry.items() if key not in known},
        }

    def extend_trajectory(self, frames: Sequence[dict[str, Any]]) -> None:
        """Keep frames."""
        self._trajectory.extend(frames)

    def collect_trajectory(self, clear: bool = True) -> list[dict[str, Any]]:
        """Return the frames kept so far, and forget them unless told otherwise."""
        frames = list(self._trajectory)
        if clear:
            self._trajectory.clear()
        return frames

    def reset_state(self) -> None:
        """Forget everything."""
        self._tick = 0
        self._transitions.clear()
        self._trajectory.clear()


def _numbers_as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers_as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers_as_floats(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
