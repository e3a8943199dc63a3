"""A telemetry sink that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["StubTelemetrySink"]


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
