"""The torch-backed names of the predecessor, with its signatures.

New code uses :mod:`~townlet_training_torch.networks`, :mod:`~townlet_training_torch.bc` and
:mod:`~townlet_training_torch.losses`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from townlet_training_core.errors import DataError, NonFiniteError
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_torch import losses
from townlet_training_torch.advantages import gae_tensors
from townlet_training_torch.losses import clipped_value_loss, policy_surrogate

__all__ = [
    "AdvantageReturns",
    "BCTrainer",
    "BCTrainingConfig",
    "BCTrajectoryDataset",
    "ConflictAwarePolicyConfig",
    "ConflictAwarePolicyNetwork",
    "channels_first",
    "clipped_value_loss",
    "compute_gae",
    "evaluate_bc_policy",
    "normalize_advantages",
    "policy_surrogate",
    "value_baseline_from_old_preds",
]

_log = logging.getLogger(__name__)


@dataclass
class ConflictAwarePolicyConfig:
    """Shape of the policy network: ``map_shape`` is (C, H, W)."""

    feature_dim: int
    map_shape: tuple[int, int, int]
    action_dim: int
    hidden_dim: int = 256


class ConflictAwarePolicyNetwork(nn.Module):
    """Dense encoders of map and features, a shared trunk, a policy head and a value head.

    ``forward(map (B, C, H, W), features (B, F))`` returns logits ``(B, A)`` and values ``(B,)``.
    """

    def __init__(self, cfg: ConflictAwarePolicyConfig) -> None:
        super().__init__()
        self.cfg = cfg
        hidden, cells = cfg.hidden_dim, int(np.prod(cfg.map_shape))
        self.map_encoder = nn.Sequential(nn.Flatten(), nn.Linear(cells, hidden), nn.ReLU())
        self.feature_encoder = nn.Sequential(nn.Linear(cfg.feature_dim, hidden), nn.ReLU())
        self.shared = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())
        self.policy_head = nn.Linear(hidden, cfg.action_dim)
        self.value_head = nn.Linear(hidden, 1)

    def forward(self, map_tensor: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, A)`` and values ``(B,)``."""
        joined = torch.cat([self.map_encoder(map_tensor), self.feature_encoder(features)], dim=-1)
        hidden = self.shared(joined)
        return self.policy_head(hidden), self.value_head(hidden).squeeze(-1)


class AdvantageReturns(NamedTuple):
    """Advantages and value targets, both (B, T)."""

    advantages: Tensor
    returns: Tensor


def compute_gae(
    rewards: Tensor, value_preds: Tensor, dones: Tensor, gamma: float, gae_lambda: float
) -> AdvantageReturns:
    """Generalised advantages of B trajectories.

    Parameters
    ----------
    rewards, dones:
        (B, T).
    value_preds:
        (B, T + 1), the last column bootstraps; with (B, T) the last value is used for that.

    Raises
    ------
    ValueError
        When the shapes are others.
    """
    if rewards.dim() != 2 or dones.dim() != 2:
        msg = f"Rewards and dones must be 2D, found {tuple(rewards.shape)} and {tuple(dones.shape)}"
        raise ValueError(msg)
    if value_preds.dim() != 2:
        msg = f"value_preds must be a 2D tensor, found {tuple(value_preds.shape)}"
        raise ValueError(msg)
    rows, steps = rewards.shape
    if dones.shape != rewards.shape or tuple(value_preds.shape) not in ((rows, steps), (rows, steps + 1)):
        msg = f"value_preds must align with rewards: {tuple(value_preds.shape)} beside {tuple(rewards.shape)}"
        raise ValueError(msg)
    values = value_preds[:, :steps]
    following = value_preds[:, 1:] if value_preds.shape[1] > steps else torch.cat([values[:, 1:], values[:, -1:]], 1)
    ended = dones.bool().T
    advantages, returns = gae_tensors(
        rewards.T,
        values.T,
        following.T,
        terminated=ended,
        truncated=torch.zeros_like(ended),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    return AdvantageReturns(advantages.T, returns.T)


def normalize_advantages(advantages: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift to mean 0 and scale to population deviation 1."""
    return losses.normalize_advantages(advantages, eps=eps)


def value_baseline_from_old_preds(value_preds: Tensor, timesteps: int) -> Tensor:
    """Drop the bootstrap column of (B, T + 1); (B, T) is returned as it is.

    Raises
    ------
    ValueError
        When there are fewer than ``timesteps`` columns.
    """
    if value_preds.shape[1] < timesteps:
        msg = f"value_preds {tuple(value_preds.shape)} has fewer than {timesteps} timesteps"
        raise ValueError(msg)
    return value_preds[:, :timesteps]


def channels_first(maps: NDArray[Any], *, channels: int | None = None) -> NDArray[Any]:
    """Return maps ``(T, a, b, c)`` with channels on axis 1.

    The axis of ``channels`` entries is the channel axis where only one of the two ends has that length; otherwise
    windows are square, so that ``a == b != c`` means height, width, channels. Whatever else is taken as it is.
    """
    _, first, middle, last = maps.shape
    if channels is not None and (first == channels) != (last == channels):
        trailing = last == channels
    else:
        trailing = first == middle != last
    return maps.transpose(0, 3, 1, 2) if trailing else maps


class BCTrajectoryDataset:
    """Frames of samples, one by one: ``dataset[i]`` is map (C, H, W), features (F,) and action.

    Raises
    ------
    ValueError
        Without frames, or where samples differ in shape.
    """

    def __init__(self, samples: Sequence[ReplaySample]) -> None:
        parts = [sample for sample in samples if sample.timesteps]
        if not parts:
            msg = "BC dataset requires at least one frame"
            raise DataError(msg)
        maps = [
            channels_first(part.map, channels=len(part.metadata.get("map_channels") or ()) or None) for part in parts
        ]
        shapes = {(array.shape[1:], part.features.shape[1]) for array, part in zip(maps, parts, strict=True)}
        if len(shapes) > 1:
            msg = f"BC samples differ in the shapes of map and features: {sorted(shapes)}"
            raise DataError(msg)
        self.maps = torch.from_numpy(np.concatenate(maps).astype(np.float32))
        self.features = torch.from_numpy(np.concatenate([part.features for part in parts]).astype(np.float32))
        self.actions = torch.from_numpy(np.concatenate([part.actions.reshape(-1) for part in parts]).astype(np.int64))
        if not (bool(torch.isfinite(self.maps).all()) and bool(torch.isfinite(self.features).all())):
            msg = "BC observations contained NaN/inf"
            raise NonFiniteError(msg)
        known = [int(part.metadata.get("action_dim") or 0) for part in parts]
        self.action_dim = max(*known, int(self.actions.max()) + 1)
        if bool((self.actions == self.actions[0]).all()):
            _log.warning("bc_single_action: every frame has action %d; accuracy says nothing", int(self.actions[0]))

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.maps.shape
        return channels, height, width

    @property
    def feature_dim(self) -> int:
        """F."""
        return int(self.features.shape[1])

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.maps[index], self.features[index], self.actions[index]


@dataclass
class BCTrainingConfig:
    """Settings of behaviour cloning."""

    learning_rate: float = 1e-3
    batch_size: int = 64
    epochs: int = 5
    weight_decay: float = 0.0
    device: str = "cpu"


class BCTrainer:
    """Clones the actions of a dataset; deterministic on the CPU."""

    def __init__(self, config: BCTrainingConfig, policy_config: ConflictAwarePolicyConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ConflictAwarePolicyNetwork(policy_config).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def fit(self, dataset: BCTrajectoryDataset) -> Mapping[str, float]:
        """Train for the configured epochs and keep the weights of the most accurate one.

        Returns
        -------
        Mapping
            ``accuracy`` on ``dataset`` and the mean ``loss`` of the epoch that was kept.
        """
        order = torch.Generator().manual_seed(0)
        best, kept = {"loss": float("inf"), "accuracy": -1.0}, self.model.state_dict()
        for _ in range(self.config.epochs):
            total = torch.zeros((), device=self.device)
            for picked in torch.split(torch.randperm(len(dataset), generator=order), self.config.batch_size):
                logits, _ = self.model(*(part[picked].to(self.device) for part in (dataset.maps, dataset.features)))
                loss = functional.cross_entropy(logits, dataset.actions[picked].to(self.device))
                self.optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                self.optimizer.step()
                total += loss.detach() * len(picked)
            found = {"loss": float(total) / len(dataset), "accuracy": self.evaluate(dataset)["accuracy"]}
            if (found["accuracy"], -found["loss"]) >= (best["accuracy"], -best["loss"]):
                best, kept = found, copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(kept)
        return best

    def evaluate(self, dataset: BCTrajectoryDataset) -> Mapping[str, float]:
        """Return ``accuracy`` of the most probable action, and the number of ``samples``."""
        return evaluate_bc_policy(self.model, dataset, str(self.device))


def evaluate_bc_policy(model: nn.Module, dataset: BCTrajectoryDataset, device: str = "cpu") -> Mapping[str, float]:
    """Return ``accuracy`` of the model's most probable action on ``dataset``, and the number of ``samples``."""
    hits = 0
    with torch.inference_mode():
        for picked in torch.split(torch.arange(len(dataset)), 4096):
            logits, _ = model(dataset.maps[picked].to(device), dataset.features[picked].to(device))
            hits += int((logits.argmax(dim=-1).cpu() == dataset.actions[picked]).sum())
    return {"accuracy": hits / len(dataset), "samples": float(len(dataset))}
