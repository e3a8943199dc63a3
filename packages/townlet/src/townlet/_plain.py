"""Settings of torch-backed names that can be written down without torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BCTrainingConfig", "ConflictAwarePolicyConfig"]


@dataclass
class ConflictAwarePolicyConfig:
    """Shape of the policy network: ``map_shape`` is (C, H, W)."""

    feature_dim: int
    map_shape: tuple[int, int, int]
    action_dim: int
    hidden_dim: int = 256


@dataclass
class BCTrainingConfig:
    """Settings of behaviour cloning."""

    learning_rate: float = 1e-3
    batch_size: int = 64
    epochs: int = 5
    weight_decay: float = 0.0
    device: str = "cpu"
