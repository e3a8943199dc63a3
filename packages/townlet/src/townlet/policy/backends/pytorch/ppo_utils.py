"""Operations of PPO on torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from townlet._torch import lazy_names as _lazy_names

if TYPE_CHECKING:
    from townlet_training_torch.legacy import (
        AdvantageReturns,
        clipped_value_loss,
        compute_gae,
        normalize_advantages,
        policy_surrogate,
        value_baseline_from_old_preds,
    )

__all__ = [
    "AdvantageReturns",
    "clipped_value_loss",
    "compute_gae",
    "normalize_advantages",
    "policy_surrogate",
    "value_baseline_from_old_preds",
]

__getattr__ = _lazy_names(__name__, "townlet_training_torch.legacy", __all__)
