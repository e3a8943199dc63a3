"""Policies and their training, under the old names."""

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from townlet._torch import lazy_names as _lazy_names

if TYPE_CHECKING:
    from townlet.policy.bc import BCTrainer as BCTrainer
    from townlet.policy.bc import BCTrainingConfig as BCTrainingConfig
    from townlet.policy.bc import BCTrajectoryDataset as BCTrajectoryDataset
    from townlet.policy.bc import evaluate_bc_policy as evaluate_bc_policy
    from townlet.policy.bc import load_bc_samples as load_bc_samples
    from townlet.policy.runner import PolicyRuntime as PolicyRuntime
    from townlet.policy.runner import TrainingHarness as TrainingHarness

__path__ = extend_path(__path__, __name__)

DEFAULT_POLICY_PROVIDER = "scripted"

__all__ = [
    "DEFAULT_POLICY_PROVIDER",
    "BCTrainer",
    "BCTrainingConfig",
    "BCTrajectoryDataset",
    "PolicyRuntime",
    "TrainingHarness",
    "evaluate_bc_policy",
    "load_bc_samples",
    "resolve_policy_backend",
]

_BC = ("BCTrainer", "BCTrainingConfig", "BCTrajectoryDataset", "evaluate_bc_policy", "load_bc_samples")
_bc_name = _lazy_names(__name__, "townlet.policy.bc", _BC)
_runner_name = _lazy_names(__name__, "townlet.policy.runner", ("PolicyRuntime", "TrainingHarness"))


def __getattr__(name: str) -> Any:
    return _bc_name(name) if name in _BC else _runner_name(name)


def resolve_policy_backend(provider: str | None = None, **kwargs: Any) -> Any:
    """Make the backend of ``provider`` (``DEFAULT_POLICY_PROVIDER`` when absent) from the policy registry."""
    from townlet_sim.old_loop import policy_registry

    return policy_registry().resolve(provider or DEFAULT_POLICY_PROVIDER, **kwargs)
