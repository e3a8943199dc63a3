"""Check PPO logs, and how far they are from a baseline."""

from __future__ import annotations

import argparse

from townlet.scripts._arguments import say, script
from townlet_training_core.evaluation.logs import validate_logs

__all__ = ["main", "validate_logs"]


@script("logs:path+ --baseline:path --drift-threshold:float --relative")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    for report in validate_logs(args.logs, args.baseline, args.drift_threshold, args.relative):
        say(f"{report.path}: {report.records} records are valid")
        for key, value in (report.relative_drift or report.drift).items():
            say(f"  {key}: {value:+.6g}")
    return 0
