"""How much memory a rollout and its update take, so that B and T can be chosen before a run."""

from __future__ import annotations

import math

import numpy as np

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.policy.forward import expected_shapes
from townlet_training_torch.networks import Spaces, describe

__all__ = ["memory_bytes"]

_DECISION = 8 + 4 + 4 + 4 + 4 + 1 + 1
"""Bytes per row of actions, rewards, log-probabilities, values, next values, terminated, truncated."""
_UPDATE = 6 * 4 + 8
"""Bytes per row of advantages, returns and what they are computed from, and of the shuffled indices."""
_SUMMARY = 8 * 4
"""Bytes per row of the columns that the summary reads, beside their copies."""


def memory_bytes(spaces: Spaces, config: TrainingConfig, *, slots: int, masked: bool) -> int:
    """Bytes that a rollout of ``config.ppo.rollout_steps`` steps and its update hold at once.

    The sum of (R = T x S rows, P parameters)::

        observations  (T + 1) S (bytes of one observation + actions if masked + 2)
        decisions     R * 26
        update        R * 64                    advantages, returns, indices, summaries
        parameters    13 P * 4                  values, gradients, two moments; three copies of three in snapshots
        buffers       (S + mini-batch) * 4 * (inputs + 2 * (joined + hidden) * trunks)

    What the interpreter, the libraries and the simulation itself hold comes on top. Stored data, recurrent memory
    and convolutions are not counted.

    Parameters
    ----------
    spaces:
        Of the simulation.
    config:
        Network, rollout steps and mini-batch size.
    slots:
        S, environments times agents.
    masked:
        Whether the simulation ever forbids an action: masks then are stored.
    """
    ppo = config.ppo
    steps: int = ppo.rollout_steps
    rows = steps * slots
    seen: int = sum(math.prod(item.shape) * np.dtype(item.dtype).itemsize for item in spaces.observations.values())
    observations = (steps + 1) * slots * (seen + (len(spaces.action_names) if masked else 0) + 2)
    description = describe(spaces, config.network, normalise=ppo.normalize_observations)
    parameters = sum(math.prod(shape) for shape in expected_shapes(description).values())
    inputs = sum(math.prod(item.shape) for item in description.inputs.values())
    trunks, hidden = 1 + description.separate_trunks, description.hidden_dim
    joined = hidden * sum(name in description.inputs for name in ("map", "features"))
    buffers = (slots + min(rows, ppo.mini_batch_size)) * 4 * (inputs + 2 * (joined + hidden) * trunks)
    return observations + rows * (_DECISION + _UPDATE + _SUMMARY) + 13 * 4 * parameters + buffers
