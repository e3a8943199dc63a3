"""Show a sample, or check it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from townlet.policy.metrics import compute_sample_metrics
from townlet.policy.replay import load_replay_sample
from townlet.scripts._arguments import emit, parser, run, say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    args = parser(__doc__ or "", "sample:path --meta:path --telemetry:path --validate").parse_args(argv)
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


if __name__ == "__main__":
    run(main)
