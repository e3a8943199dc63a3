"""Write a manifest of captures that says which are good enough to train on."""

from __future__ import annotations

import argparse
import os

from townlet.policy.replay import load_replay_sample
from townlet.scripts._arguments import emit, script
from townlet_training_core.errors import DataError
from townlet_training_core.files import atomic_write_json
from townlet_training_core.replay.manifest import load_manifest
from townlet_training_core.replay.npz import sidecar

__all__ = ["main"]


@script("input:path --output:path! --min-timesteps:int=10 --min-reward:float")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    if args.input.is_dir():
        pairs = [(path, sidecar(path)) for path in sorted(args.input.glob("*.npz"))]
    else:
        pairs = [(path, meta or sidecar(path)) for path, meta in load_manifest(args.input).pairs()]
    if not pairs:
        msg = f"no captures (*.npz) in {args.input}"
        raise DataError(msg)
    entries = []
    for path, meta in pairs:
        sample = load_replay_sample(path, meta)
        total = float(sample.rewards.sum())
        metrics = {
            "timesteps": sample.timesteps,
            "reward_sum": total,
            "mean_reward": total / max(1, sample.timesteps),
            "done_count": int(sample.dones.sum()),
        }
        accepted = sample.timesteps >= args.min_timesteps and (args.min_reward is None or total >= args.min_reward)
        located = {key: os.path.relpath(one, args.output.parent) for key, one in (("sample", path), ("meta", meta))}
        entries.append({**located, "metrics": metrics, "accepted": accepted})
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(args.output, entries)
    good = sum(bool(entry["accepted"]) for entry in entries)
    emit({"total": len(entries), "accepted": good, "rejected": len(entries) - good})
    return 0
