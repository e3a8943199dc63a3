"""Check cloning datasets against their checksums."""

from __future__ import annotations

from collections.abc import Sequence

from townlet.scripts._arguments import emit, parser, run
from townlet_training_core.replay.curation import audit

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    flags = "--versions:path=data/bc_datasets/versions.json --exit-on-failure"
    args = parser(__doc__ or "", flags).parse_args(argv)
    report = audit(args.versions)
    emit(report.model_dump(mode="json"))
    return int(args.exit_on_failure and report.failures > 0)


if __name__ == "__main__":
    run(main)
