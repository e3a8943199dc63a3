"""Names of the predecessor's runner."""

from __future__ import annotations

import warnings
from typing import Any

from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator

__all__ = ["PolicyRuntime", "TrainingHarness"]


class TrainingHarness(PolicyTrainingOrchestrator):
    """The old name of the orchestrator."""

    def __init__(self, config: Any) -> None:
        warnings.warn(
            "TrainingHarness is deprecated; import PolicyTrainingOrchestrator instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(config)


class PolicyRuntime:
    """Belongs to the owners' simulation; here is its name only."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        msg = "PolicyRuntime belongs to the Townlet simulation; put its tree on the path before this package"
        raise NotImplementedError(msg)
