"""Take a policy out of a run: two files that core runs without torch, checked against the network first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_core.errors import CheckpointError
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.streams import generator
from townlet_training_torch.networks import PolicyValueNetwork

__all__ = ["export_policy", "load_network", "network_disagreement"]


def load_network(path: Path) -> PolicyValueNetwork:
    """Load the network of a run, checkpoint or export into torch.

    Raises
    ------
    CheckpointError
        When there is none, or it is torn.
    """
    policy = ExportedPolicy.load(path)
    network = PolicyValueNetwork(policy.description)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in policy.tensors.items()}
    network.load_tensors(tensors, source=str(path))
    return network


def network_disagreement(network: PolicyValueNetwork, policy: ExportedPolicy, *, rows: int = 256) -> float:
    """Largest difference of a logit between torch and the numpy forward pass, relative to the largest logit.

    Compared on ``rows`` drawn observations, memory at its beginning.
    """
    drawn = _observations(policy.description, rows)
    names = policy.description.inputs
    with torch.inference_mode():
        output = network({name: torch.from_numpy(drawn[name]) for name in names})
    logits, _, _ = policy.forward(drawn)
    reference = output.logits.numpy()
    return float(np.abs(reference - logits).max() / max(1e-6, float(np.abs(reference).max())))


def export_policy(source: Path, target: Path, *, tolerance: float = 1e-5) -> ExportedPolicy:
    """Write the policy of ``source`` (run, checkpoint or export) into the folder ``target``.

    Raises
    ------
    CheckpointError
        When there is none, or torch and numpy disagree on it by more than ``tolerance``.
    """
    policy = ExportedPolicy.load(source)
    difference = network_disagreement(load_network(source), policy)
    if not difference <= tolerance:
        msg = f"policy of {str(source)!r}: torch and numpy differ by {difference:.2e} relative, more than {tolerance}"
        raise CheckpointError(msg)
    policy.save(target)
    return policy


def _observations(description: PolicyDescription, rows: int) -> dict[str, NDArray[Any]]:
    stream = generator(0, "export", "observations")
    drawn = {
        name: (
            stream.integers(0, 2, (rows, *item.shape)) if name == "map" else stream.normal(size=(rows, *item.shape))
        ).astype(item.dtype)
        for name, item in description.inputs.items()
    }
    return {**drawn, ACTION_MASK: np.ones((rows, len(description.action_names)), np.bool_)}
