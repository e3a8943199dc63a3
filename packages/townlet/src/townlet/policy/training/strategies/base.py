"""The protocol of a strategy of the old entry points."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from townlet.policy.training.contexts import TrainingContext

__all__ = ["TrainingStrategy"]


@runtime_checkable
class TrainingStrategy(Protocol):
    """One way of training."""

    def run(self, context: TrainingContext) -> Any:
        """Train and return a result record."""
