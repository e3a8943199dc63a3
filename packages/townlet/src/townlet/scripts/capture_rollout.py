"""Capture a rollout of a scenario: samples, manifest and metrics."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from townlet.config import load_config
from townlet.policy.metrics import compute_sample_metrics
from townlet.policy.training.services import RolloutCaptureService
from townlet_training_core.cli.flags import say, script
from townlet_training_core.errors import DataError
from townlet_training_core.files import atomic_write_json
from townlet_training_core.replay.manifest import write_manifest
from townlet_training_core.replay.npz import save_replay_sample

__all__ = ["main"]


@script("""config:path --output:path! --ticks:int=100 --prefix:str=rollout_sample --auto-seed-agents --agent-id:str
    --compress""")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    config = load_config(args.config)
    scenario: dict[str, Any] = getattr(config, "scenario", None) or {}
    ticks = int(scenario.get("ticks") or args.ticks)
    buffer = RolloutCaptureService(config).capture(ticks, auto_seed_agents=args.auto_seed_agents)
    chosen = {name: one for name, one in buffer.by_agent().items() if args.agent_id in (None, name)}
    if not chosen:
        msg = f"the rollout recorded no frames{'' if args.agent_id is None else f' of agent {args.agent_id!r}'}"
        raise DataError(msg)
    frame_metadata = next(iter(chosen.values())).frames[-1].get("metadata") or {}
    identity = frame_metadata.get("identity") or {}
    metadata = {
        "config_path": str(args.config),
        "config_id": config.config_id,
        "scenario_name": args.config.stem,
        "scenario_description": scenario.get("description"),
        "ticks": ticks,
        "seed": getattr(config, "seed", None),
        "policy_hash": getattr(config, "policy_hash", None) or identity.get("policy_hash"),
        "capture_timestamp": datetime.now(UTC).isoformat(),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for number, (agent, rollout) in enumerate(sorted(chosen.items()), start=1):
        path: Path = args.output / f"{args.prefix}_{agent}_{number:03d}.npz"
        sample = rollout.to_replay_sample()
        metrics[path.name] = compute_sample_metrics(sample)
        own = {"agent_id": agent, "frame_count": len(rollout.frames)}
        described = {**sample.metadata, **own, "capture_metadata": metadata, "metrics": metrics[path.name]}
        save_replay_sample(sample, path, metadata=described, compress=args.compress)
        entries.append({"sample": path.name, "meta": path.with_suffix(".json").name, **own})
    atomic_write_json(args.output / f"{args.prefix}_metrics.json", {"metadata": metadata, "samples": metrics})
    write_manifest(args.output / f"{args.prefix}_manifest.json", entries, metadata=metadata)
    say(f"Captured {len(entries)} sample(s) over {ticks} ticks into {args.output}")
    return 0
