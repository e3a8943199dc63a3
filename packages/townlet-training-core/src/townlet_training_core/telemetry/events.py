"""Telemetry ports: where numbers go while a run goes on, with implementations that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["NullProgress", "NullTelemetry", "Progress", "TelemetrySink"]


class TelemetrySink(Protocol):
    """Takes one record per epoch, iteration or stage."""

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write ``record`` (JSON-able) of the given kind, e.g. ``"ppo.iteration"``."""

    def close(self) -> None:
        """Flush and close."""


class Progress(Protocol):
    """Shows how far a long work has come."""

    def start(self, task: str, *, total: int) -> None:
        """Begin a task of ``total`` units; an earlier task is finished."""

    def advance(self, units: int = 1, **numbers: float) -> None:
        """Advance the running task and show the numbers beside it (``loss``, ``return``, ``steps_per_s``, ...)."""

    def finish(self) -> None:
        """End the running task."""


class NullTelemetry:
    """Drops everything."""

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class NullProgress:
    """Shows nothing."""

    def start(self, task: str, *, total: int) -> None:
        """Do nothing."""

    def advance(self, units: int = 1, **numbers: float) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""
