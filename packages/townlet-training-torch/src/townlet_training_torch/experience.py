"""Where training rows come from: captures of the expert, stored data, and what is computed about them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, RolloutArrays
from townlet_training_core.errors import DataError
from townlet_training_core.policy.port import Policy
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.transitions import TransitionDataset, pad_trajectories
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation.port import Simulation
from townlet_training_torch.advantages import Advantages, gae
from townlet_training_torch.minibatches import require_finite, sequence_starts
from townlet_training_torch.networks import Memory, PolicyValueNetwork

__all__ = [
    "DataSpaces",
    "capture",
    "capture_groups",
    "estimate_advantages",
    "hold_out",
    "join_in_time",
    "memory_at_starts",
    "recomputed",
    "stored",
    "value_targets",
]

_CHUNK = 4096
"""Rows of a forward pass over stored data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpaces:
    """Names and shapes of stored data, as a network is described by them."""

    name: str
    observations: Mapping[str, Any]
    action_names: tuple[str, ...]
    feature_names: tuple[str, ...] = ()
    map_channels: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    rules_hash: str = ""

    @classmethod
    def of_data(cls, dataset: TransitionDataset) -> DataSpaces:
        """Read them off a dataset."""
        spec = dataset.spec
        return cls(
            name=spec.simulation or dataset.label,
            observations=spec.observations,
            action_names=spec.action_names,
            feature_names=spec.feature_names,
            map_channels=spec.map_channels,
            versions=spec.versions,
            rules_hash=spec.rules_hash or "",
        )


def stored(dataset: TransitionDataset) -> tuple[RolloutArrays, NDArray[np.int64]]:
    """Lay stored trajectories side by side; return them and the group (trajectory) of each row, ``(T, S)``.

    Observations of a shard store stay mapped: a mini-batch copies them once, from the file's pages to where it is read.
    """
    arrays = pad_trajectories(dataset, mapped=isinstance(dataset, ShardStore))
    if arrays.transitions == 0:
        msg = f"dataset {dataset.label!r} has no transitions"
        raise DataError(msg)
    return arrays, np.broadcast_to(np.arange(arrays.slots), arrays.valid.shape)


def capture(
    simulation: Simulation,
    policy: Policy,
    *,
    steps: int,
    seed: int,
    label_expert: bool = False,
    between: Callable[[], None] | None = None,
) -> RolloutArrays:
    """Let ``policy`` act for ``steps`` steps of every slot; the arrays belong to the caller.

    With ``label_expert`` the expert's answers stand in ``actions``. ``between`` is called before every step and may
    raise.
    """
    collector = RolloutCollector(simulation, policy, steps=steps, seed=seed, label_expert=label_expert)
    arrays = collector.collect(between=between)
    if label_expert and arrays.expert_actions is not None:
        return replace(arrays, actions=arrays.expert_actions)
    return arrays


def capture_groups(arrays: RolloutArrays, *, agents_per_env: int) -> NDArray[np.int64]:
    """Return the group of each row of a capture, ``(T, S)``: rows of one group are never split.

    Whole environments where there are five or more (agents of one environment see one another); else episodes.
    """
    envs = np.arange(arrays.slots) // agents_per_env
    if arrays.slots // agents_per_env >= 5:
        return np.broadcast_to(envs, arrays.valid.shape).astype(np.int64)
    # The episode of an environment is that of its first slot: its agents begin and end together, or nearly.
    episodes = np.cumsum(arrays.episode_starts[:, ::agents_per_env], axis=0)
    return np.asarray(envs + episodes[:, envs] * (envs.max() + 1), np.int64)


def hold_out(
    arrays: RolloutArrays, groups: NDArray[np.int64], *, fraction: float, rng: np.random.Generator, label: str
) -> tuple[BoolArray, BoolArray]:
    """Split valid rows by group: masks ``(T, S)`` of the training rows and of the held-out ones.

    Raises
    ------
    DataError
        When there are not two groups: accuracy cannot be measured on data that was trained on.
    """
    known = np.unique(groups[arrays.valid])
    if len(known) < 2:
        msg = (
            f"dataset {label!r} has {len(known)} trajectory, behaviour cloning needs at least two: one is held out; "
            "capture more episodes or environments"
        )
        raise DataError(msg)
    count = min(len(known) - 1, max(1, round(fraction * len(known))))
    held = np.isin(groups, rng.permutation(known)[:count])
    return arrays.valid & ~held, arrays.valid & held


def estimate_advantages(
    arrays: RolloutArrays, *, gamma: float, gae_lambda: float, reward_scale: float, dataset: str, batch: int
) -> Advantages:
    """Advantages and value targets of a rollout or of stored data; rewards are divided by ``reward_scale``.

    Raises
    ------
    DataError
        When there are no log-probabilities or values.
    NonFiniteError
        When anything is not a number; the message names dataset and batch.
    """
    if arrays.log_probs is None or arrays.values is None or arrays.next_values is None:
        msg = (
            f"dataset {dataset!r} has no log-probabilities or values, so PPO cannot weigh its actions; capture with a "
            "policy that has them, or set recompute_log_probs to compute them under the starting policy"
        )
        raise DataError(msg)
    rewards = arrays.rewards if reward_scale == 1.0 else arrays.rewards / np.float32(reward_scale)
    with np.errstate(invalid="ignore"):  # what is no number is refused by name below
        found = gae(
            rewards,
            arrays.values,
            arrays.next_values,
            terminated=arrays.terminated,
            truncated=arrays.truncated,
            valid=arrays.valid,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
    checked = {"advantages": found.advantages, "returns": found.returns}
    require_finite(checked, arrays.valid, what="PPO", dataset=dataset, batch=batch)
    checked = {"log_probs": arrays.log_probs, **arrays.observations}
    require_finite(checked, arrays.valid, what="PPO", dataset=dataset, batch=batch)
    return found


def value_targets(arrays: RolloutArrays, *, gamma: float) -> NDArray[np.float32]:
    """Discounted returns for value distillation, ``(T, S)``.

    Where the data was cut off nobody knows the value of what came next; the mean reward of the data for ever is
    taken, ``mean / (1 - gamma)``, which is unbiased over a stationary task.
    """
    valid = arrays.valid
    cut = arrays.truncated.copy()
    cut[-1] |= valid[-1] & ~arrays.terminated[-1]
    tail = float(arrays.rewards[valid].mean(dtype=np.float64)) / (1.0 - gamma) if gamma < 1.0 else 0.0
    zeros = np.zeros_like(arrays.rewards)
    return gae(
        arrays.rewards,
        zeros,
        np.where(cut, np.float32(tail), np.float32(0.0)).astype(np.float32),
        terminated=arrays.terminated,
        truncated=cut,
        valid=valid,
        gamma=gamma,
        gae_lambda=1.0,
    ).returns


def recomputed(
    network: PolicyValueNetwork, arrays: RolloutArrays, *, between: Callable[[], None] | None = None
) -> RolloutArrays:
    """Replace log-probabilities and values of stored data by those under ``network``.

    The value after a cut is not known there (stored data may lack the last observation): that of the last
    observation stands in for it. ``between`` is called before every pass and may raise.
    """
    steps, slots = arrays.valid.shape
    log_probs, values = np.zeros((2, steps, slots), np.float32)
    per_pass = max(1, _CHUNK // slots)
    memory = network.initial_memory(slots)
    for first in range(0, steps, per_pass):
        if between is not None:
            between()
        part = slice(first, min(first + per_pass, steps))
        with torch.inference_mode():
            output = network.forward_sequence(*_tensors(network, arrays, part, memory))
            memory = output.memory
            table = torch.log_softmax(output.logits, dim=-1)
            actions = torch.from_numpy(np.ascontiguousarray(arrays.actions[part])).to(table.device)
            log_probs[part] = table.gather(-1, actions.unsqueeze(-1)).squeeze(-1).cpu().numpy()
            values[part] = output.values.cpu().numpy()
    next_values = np.concatenate([values[1:], values[-1:]])
    last = arrays.terminated | arrays.truncated
    last[:-1] |= ~arrays.valid[1:]
    next_values = np.where(last, values, next_values)
    return replace(arrays, log_probs=log_probs, values=values, next_values=next_values)


def memory_at_starts(
    network: PolicyValueNetwork, arrays: RolloutArrays, *, length: int, between: Callable[[], None] | None = None
) -> dict[str, list[Any]]:
    """Run the network over the data once and return its memory before each sequence of ``length`` steps.

    Right after a capture this is what the acting policy remembered. ``between`` is called before every pass.
    """
    device = network.policy_head.weight.device
    memory: Memory = {
        name: torch.from_numpy(np.array(array, np.float32)).to(device) for name, array in arrays.initial_state.items()
    } or network.initial_memory(arrays.slots)
    found: dict[str, list[Any]] = {name: [] for name in memory}
    for first in sequence_starts(arrays.steps, length):
        if between is not None:
            between()
        for name, tensor in memory.items():
            found[name].append(tensor.clone())
        with torch.no_grad():
            part = slice(first, min(first + length, arrays.steps))
            memory = network.forward_sequence(*_tensors(network, arrays, part, memory)).memory
    return found


def join_in_time(first: RolloutArrays, second: RolloutArrays) -> RolloutArrays:
    """Put two captures of the same slots one after the other; the first is cut off where the second begins."""
    cut = first.truncated.copy()
    cut[-1] |= first.valid[-1] & ~first.terminated[-1]
    starts = second.episode_starts.copy()
    starts[0] = True

    def both(name: str) -> Any:
        return np.concatenate([getattr(first, name), getattr(second, name)])

    masks = (first.action_mask, second.action_mask)
    return RolloutArrays(
        observations={k: np.concatenate([first.observations[k], second.observations[k]]) for k in first.observations},
        action_mask=None if masks[0] is None or masks[1] is None else np.concatenate([masks[0], masks[1]]),
        truncated=np.concatenate([cut, second.truncated]),
        episode_starts=np.concatenate([first.episode_starts, starts]),
        **{name: both(name) for name in ("actions", "valid", "rewards", "terminated")},
    )


def _tensors(network: PolicyValueNetwork, arrays: RolloutArrays, part: slice, memory: Memory) -> tuple[Any, ...]:
    device = network.policy_head.weight.device

    def send(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[part])).to(device)

    return (
        {name: send(arrays.observations[name]) for name in network.description.inputs},
        None if arrays.action_mask is None else send(arrays.action_mask),
        memory,
        send(arrays.episode_starts),
    )
