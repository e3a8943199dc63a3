"""Promotion: the record of candidates, the gate that decides, the registry that puts policies in place.

The manager keeps names and hashes only; the gate decides by paired evaluation; the registry holds the bytes.
"""

from townlet_training_core.promotion.gate import PromotionGate, judge, look_level
from townlet_training_core.promotion.manager import PromotionManager, PromotionServiceAdapter
from townlet_training_core.promotion.releases import ReleaseRegistry

__all__ = [
    "PromotionGate",
    "PromotionManager",
    "PromotionServiceAdapter",
    "ReleaseRegistry",
    "judge",
    "look_level",
]
