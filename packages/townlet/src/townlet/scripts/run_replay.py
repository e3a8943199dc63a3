"""Show a sample, or check it."""

from __future__ import annotations

import argparse
import json

from townlet.policy.metrics import compute_sample_metrics
from townlet.policy.replay import load_replay_sample
from townlet.scripts._arguments import emit, say, script

__all__ = ["main"]


@script("sample:path --meta:path --telemetry:path --validate")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    sample = load_replay_sample(args.sample, args.meta)
    if args.validate:
        say("Sample validation successful.")
        return 0
    say("Metadata:")
    emit(sample.metadata)
    say(f"Map shape: {sample.map.shape}")
    say("Features:")
    for name, column in zip(sample.feature_names, sample.features.T, strict=False):
        say(f"  {name}: mean {column.mean():.4f}, min {column.min():.4f}, max {column.max():.4f}")
    say("Metrics:")
    emit(compute_sample_metrics(sample))
    if args.telemetry:
        say("Telemetry:")
        emit(json.loads(args.telemetry.read_text(encoding="utf-8")))
    return 0
