"""A policy backend that decides nothing."""

from townlet_sim.old_loop import PolicyBackendBase, StubPolicyBackend, is_stub_policy

__all__ = ["PolicyBackendBase", "StubPolicyBackend", "is_stub_policy"]
