"""Check PPO logs, and how far they are from a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from townlet.scripts._arguments import parser, run, say
from townlet_training_core.evaluation.logs import validate_logs

__all__ = ["main", "validate_logs"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    flags = "logs:path+ --baseline:path --drift-threshold:float --relative"
    args = parser(__doc__ or "", flags).parse_args(argv)
    for report in validate_logs(args.logs, args.baseline, args.drift_threshold, args.relative):
        say(f"{report.path}: {report.records} records are valid")
        for key, value in (report.relative_drift or report.drift).items():
            say(f"  {key}: {value:+.6g}")
    return 0


if __name__ == "__main__":
    run(main)
