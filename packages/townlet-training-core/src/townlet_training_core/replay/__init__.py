"""Replay data: the exchange format (`sample`, `npz`, `manifest`, `dataset`) and tables of transitions.

`transitions` in memory, `shards` mapped from disk, `minibatches` drawn from either; `openers` opens and converts.
"""

from townlet_training_core.replay.minibatches import MiniBatches
from townlet_training_core.replay.openers import open_transitions
from townlet_training_core.replay.service import ReplayService
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.shardwriter import ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import (
    PaddedColumn,
    TransitionDataset,
    Transitions,
    pad_trajectories,
    transitions_from_rollout,
)

__all__ = [
    "DataSpec",
    "MiniBatches",
    "PaddedColumn",
    "ReplayService",
    "ShardStore",
    "ShardWriter",
    "TransitionDataset",
    "Transitions",
    "open_transitions",
    "pad_trajectories",
    "transitions_from_rollout",
]
