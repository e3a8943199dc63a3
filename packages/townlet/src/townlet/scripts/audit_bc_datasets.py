"""Check cloning datasets against their checksums."""

from __future__ import annotations

import argparse

from townlet.scripts._arguments import emit, script
from townlet_training_core.replay.curation import audit

__all__ = ["main"]


@script("--versions:path=data/bc_datasets/versions.json --exit-on-failure")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    report = audit(args.versions)
    emit(report.model_dump(mode="json"))
    return int(args.exit_on_failure and report.failures > 0)
