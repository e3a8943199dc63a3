"""The promotion record: core's."""

from townlet_training_core.promotion.manager import PromotionManager

__all__ = ["PromotionManager"]
