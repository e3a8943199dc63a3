"""A policy backend that decides nothing, for installations without one, and what all backends here share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["PolicyBackendBase", "StubPolicyBackend", "is_stub_policy"]


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
