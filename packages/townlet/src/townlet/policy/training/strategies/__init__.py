"""Strategies of the old entry points."""

from pkgutil import extend_path

from townlet.policy.training.strategies.anneal import AnnealStrategy
from townlet.policy.training.strategies.base import TrainingStrategy
from townlet.policy.training.strategies.bc import BCStrategy
from townlet.policy.training.strategies.ppo import PPOStrategy

__path__ = extend_path(__path__, __name__)

__all__ = ["AnnealStrategy", "BCStrategy", "PPOStrategy", "TrainingStrategy"]
