"""Running moments: of observations (inside the network) and of discounted returns (inside the learner).

Statistics move only between iterations: never between a capture and its update, so that the ratio of the first
mini-batch is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from townlet_training_core.policy.forward import NORMALISER_CLIP, NORMALISER_EPS

__all__ = ["ObservationNormaliser", "ReturnScaler", "merge_moments"]


def merge_moments(
    mean: NDArray[np.float64], var: NDArray[np.float64], count: float, rows: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Merge the moments of ``rows`` ``(R, ...)`` into mean, population variance and count (Chan et al. 1979)."""
    added = float(len(rows))
    if added == 0.0:
        return mean, var, count
    total = count + added
    row_mean = rows.mean(axis=0, dtype=np.float64)
    row_var = rows.var(axis=0, dtype=np.float64)
    delta = row_mean - mean
    merged = (var * count + row_var * added + delta**2 * (count * added / total)) / total
    return mean + delta * (added / total), merged, total


class ObservationNormaliser(nn.Module):
    """Standardises inputs by running moments, which are buffers: they travel with the weights.

    Parameters
    ----------
    shapes:
        Shape of each standardised input by name, without the row axis.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_buffer(f"{name}_mean", torch.zeros(shape, dtype=torch.float64))
            self.register_buffer(f"{name}_var", torch.ones(shape, dtype=torch.float64))
            self.register_buffer(f"{name}_count", torch.zeros((), dtype=torch.float64))

    def forward(self, name: str, values: Tensor) -> Tensor:
        """Standardise float32 ``values`` ``(R, *shape)`` of the input ``name``."""
        mean, var = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_var")
        inverse = (var + NORMALISER_EPS).rsqrt().float()
        return ((values - mean.float()) * inverse).clamp(-NORMALISER_CLIP, NORMALISER_CLIP)

    def update(self, name: str, rows: NDArray[Any]) -> None:
        """Merge the moments of ``rows`` ``(R, *shape)``."""
        buffers = {part: self.get_buffer(f"{name}_{part}") for part in ("mean", "var", "count")}
        mean, var, count = merge_moments(
            buffers["mean"].cpu().numpy(), buffers["var"].cpu().numpy(), float(buffers["count"]), rows
        )
        for part, merged in (("mean", mean), ("var", var), ("count", np.asarray(count))):
            buffers[part].copy_(torch.from_numpy(np.asarray(merged, np.float64)))


class ReturnScaler:
    """Scales rewards by the running deviation of the discounted return (Engstrom et al. 2020).

    Parameters
    ----------
    slots:
        S; every slot has a running return.
    gamma:
        Discount per step.
    """

    def __init__(self, slots: int, *, gamma: float) -> None:
        self._gamma = gamma
        self._running = np.zeros(slots, np.float64)
        self._moments: tuple[NDArray[np.float64], NDArray[np.float64], float] = (np.zeros(()), np.ones(()), 0.0)

    @property
    def scale(self) -> float:
        """What rewards are divided by; 1 before anything was seen."""
        return float(np.sqrt(self._moments[1] + NORMALISER_EPS)) if self._moments[2] else 1.0

    @property
    def started(self) -> bool:
        """Whether anything was seen."""
        return self._moments[2] > 0.0

    def update(self, rewards: NDArray[Any], *, valid: NDArray[np.bool_], ended: NDArray[np.bool_]) -> None:
        """Go on with ``(T, S)`` rewards and merge the discounted returns so far of every valid row."""
        returns = np.empty(rewards.shape, np.float64)
        for step in range(len(rewards)):
            self._running = self._gamma * self._running + np.where(valid[step], rewards[step], 0.0)
            returns[step] = self._running
            self._running = np.where(ended[step] | ~valid[step], 0.0, self._running)
        self._moments = merge_moments(*self._moments, returns[valid])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that later scales depend on."""
        mean, var, count = self._moments
        return {
            "returns/running": self._running.copy(),
            "returns/moments": np.array([float(mean), float(var), count], np.float64),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`state`; arrays of other names are ignored."""
        self._running = state["returns/running"].astype(np.float64)
        mean, var, count = (float(number) for number in state["returns/moments"])
        self._moments = (np.asarray(mean), np.asarray(var), count)
