"""Services: what a strategy may ask for. All of them work without torch.

A strategy receives a :class:`TrainingServices` and asks it for simulations, rollouts, replay data,
evaluations and the promotion record; it never looks anything up by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["TrainingServices"]


@dataclass(frozen=True, slots=True)
class TrainingServices:
    """The services of one configuration."""

    replay: Any
    rollout: Any
    promotion: Any
    evaluation: Any = None
