"""Questions that callers ask of a running loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from townlet.policy.fallback import is_stub_policy

__all__ = ["is_stub_policy", "policy_provider_name", "telemetry_provider_name"]


def policy_provider_name(loop: Any) -> str:
    """Name of the policy provider that the loop runs with, as far as it says."""
    return _provider(loop, "policy")


def telemetry_provider_name(loop: Any) -> str:
    """Name of the telemetry provider that the loop runs with, as far as it says."""
    return _provider(loop, "telemetry")


def _provider(loop: Any, domain: str) -> str:
    info = getattr(loop, "provider_info", None)
    if isinstance(info, Mapping) and info.get(domain):
        return str(info[domain])
    runtime = getattr(getattr(loop, "config", None), "runtime", None)
    return str(getattr(getattr(runtime, domain, None), "provider", None) or "unknown")
