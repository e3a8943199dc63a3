"""Policies: the port, and the implementations that need nothing but numpy."""

from townlet_training_core.policy.port import ActionStep, Policy, RecurrentPolicy, UniformSource

__all__ = ["ActionStep", "Policy", "RecurrentPolicy", "UniformSource"]
