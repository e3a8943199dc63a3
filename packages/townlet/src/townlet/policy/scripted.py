"""Scripted policies for captures of old scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from townlet.policy.fallback import PolicyBackendBase

__all__ = ["ScriptedPolicy", "ScriptedPolicyAdapter", "get_scripted_policy"]


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
