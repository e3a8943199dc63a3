"""Capture a scripted policy, for behaviour cloning."""

from __future__ import annotations

import argparse
import importlib

from townlet.config import load_config
from townlet.policy.replay import frames_to_replay_sample
from townlet.policy.scenario_utils import apply_scenario, has_agents, seed_default_agents
from townlet.policy.scripted import ScriptedPolicyAdapter, get_scripted_policy
from townlet_training_core.cli.flags import say, script
from townlet_training_core.replay.npz import save_replay_sample

__all__ = ["main"]


@script("config:path --scenario:str=idle --ticks:int=50 --output:path! --tags:str*")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    config = load_config(args.config)
    loop = importlib.import_module("townlet.core.sim_loop").SimulationLoop(config)
    scripted = get_scripted_policy(args.scenario)
    if getattr(config, "scenario", None):
        apply_scenario(loop, config.scenario)  # type: ignore[attr-defined]  # an extra key of the file
    if not has_agents(loop):
        seed_default_agents(loop)
    adapter = loop.policy = ScriptedPolicyAdapter(scripted)
    frames: dict[str, list[dict[str, object]]] = {}
    for _ in range(args.ticks):
        artifacts = loop.step()
        for seen in artifacts.envelope.agents:
            reward, done = artifacts.rewards[seen.agent_id], adapter.last_terminated.get(seen.agent_id, False)
            frame = {"map": seen.map, "features": seen.features, "metadata": seen.metadata, "rewards": [reward]}
            action = adapter.last_actions[seen.agent_id]
            frames.setdefault(seen.agent_id, []).append({**frame, "action": action, "action_id": 0, "dones": [done]})
    args.output.mkdir(parents=True, exist_ok=True)
    for agent, recorded in frames.items():
        sample = frames_to_replay_sample(recorded)
        quality = {"reward_sum": float(sample.rewards.sum()), "timesteps": sample.timesteps}
        metadata = {
            **sample.metadata,
            "tags": list(args.tags or ()),
            "scenario": args.scenario,
            "quality_metrics": quality,
            "agent_id": agent,
            "trajectory_id": f"{scripted.trajectory_prefix}_{agent}",
            "map_shape": list(sample.map.shape[1:]),
        }
        save_replay_sample(sample, args.output / f"{args.scenario}_{agent}.npz", metadata=metadata)
    say(f"Captured {len(frames)} trajectories into {args.output}")
    return 0
