"""Decide from an anneal's summary: PROMOTE, HOLD or FAIL."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from townlet.scripts._arguments import emit, say, script
from townlet_training_core.promotion.verdict import evaluate

__all__ = ["evaluate", "main"]

_CODES = {"PROMOTE": 0, "HOLD": 1, "FAIL": 2}


@script("--input:path --summary:path --format:json|human=json --dry-run")
def main(args: argparse.Namespace) -> int:
    """Run the script; exit code 0 for PROMOTE, 1 for HOLD, 2 for FAIL and for wrong usage."""
    if args.input and args.summary:
        sys.stderr.write("error: give either --input or --summary, not both\n")
        return 2
    source: Path | None = args.input or args.summary
    payload = json.loads(source.read_text(encoding="utf-8") if source else sys.stdin.read())
    outcome = evaluate(payload)
    if args.format == "json":
        emit(outcome)
    else:
        ready = outcome["candidate_ready"]
        say(f"Decision: {outcome['decision']} (status {outcome['status']}, candidate ready: {ready})")
        for reason in outcome["reasons"]:
            say(f"- {reason}")
    return 0 if args.dry_run else _CODES[outcome["decision"]]
