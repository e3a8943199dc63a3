"""Factories by name, as the old simulation finds its providers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from townlet.policy.fallback import StubPolicyBackend
from townlet.telemetry.fallback import StubTelemetrySink

__all__ = ["FactoryRegistry", "policy_registry", "telemetry_registry"]


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
