"""Policy network; its names need torch when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from townlet._torch import lazy_names as _lazy_names
from townlet._torch import torch_available
from townlet_training_core.errors import TorchNotAvailableError

if TYPE_CHECKING:
    from townlet_training_torch.legacy import ConflictAwarePolicyConfig, ConflictAwarePolicyNetwork

__all__ = ["ConflictAwarePolicyConfig", "ConflictAwarePolicyNetwork", "TorchNotAvailableError", "torch_available"]

__getattr__ = _lazy_names(__name__, "townlet_training_torch.legacy", __all__, fallback="townlet._plain")
