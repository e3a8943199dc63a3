"""Scenarios: who and what stands in a loop's world, and what agents do by schedule."""

from townlet_sim.old_loop import AgentIntent, ScenarioBehavior, apply_scenario, has_agents, seed_default_agents

__all__ = ["AgentIntent", "ScenarioBehavior", "apply_scenario", "has_agents", "seed_default_agents"]
