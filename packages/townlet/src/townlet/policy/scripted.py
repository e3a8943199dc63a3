"""Scripted policies for captures of old scripts."""

from townlet_sim.old_loop import ScriptedPolicy, ScriptedPolicyAdapter, get_scripted_policy

__all__ = ["ScriptedPolicy", "ScriptedPolicyAdapter", "get_scripted_policy"]
