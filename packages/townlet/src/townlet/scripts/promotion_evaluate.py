"""Decide from an anneal's summary: PROMOTE, HOLD or FAIL."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from townlet.policy.training.strategies.anneal import evaluate_anneal_results
from townlet.scripts._arguments import emit, say, script

__all__ = ["evaluate", "main"]

_CODES = {"PROMOTE": 0, "HOLD": 1, "FAIL": 2}


def evaluate(payload: Any) -> dict[str, Any]:
    """Return ``status`` (lower case), ``decision``, ``candidate_ready``, ``promotion``, ``results`` and ``reasons``.

    ``payload`` is an anneal's summary, its list of results, or the plain outcome of a cloning
    (``bc_accuracy``, ``bc_threshold``, ``bc_passed``).
    """
    summary: Mapping[str, Any] = {"results": payload} if isinstance(payload, list) else payload
    results = list(summary.get("results") or ())
    if not results and "bc_accuracy" in summary:
        fallback = summary["bc_accuracy"] >= summary.get("bc_threshold", 0.0)
        passed = bool(summary.get("bc_passed", fallback))
        reasons = [] if passed else ["bc_stage_failed_cycle_0"]
        verdict = ("pass", "PROMOTE") if passed else ("fail", "HOLD")
        return _verdict(*verdict, ready=passed, summary=summary, results=results, reasons=reasons)
    promotion = summary.get("promotion") or {}
    ready = bool(promotion.get("candidate_ready", summary.get("candidate_ready", False)))
    status = str(summary.get("status") or evaluate_anneal_results(results)).lower()
    reasons = []
    for result in results:
        cycle = result.get("cycle", 0)
        if result.get("mode") == "bc" and not result.get("passed", False):
            reasons.append(f"bc_stage_failed_cycle_{cycle}")
        flags = ("loss", "queue", "intensity")
        reasons += [f"{name}_flag_cycle_{cycle}" for name in flags if result.get(f"anneal_{name}_flag")]
    if not ready:
        reasons.append("candidate_not_ready")
    decision = "FAIL" if status == "fail" else "PROMOTE" if status == "pass" and ready else "HOLD"
    return _verdict(status, decision, ready=ready, summary=summary, results=results, reasons=reasons)


def _verdict(
    status: str, decision: str, *, ready: bool, summary: Mapping[str, Any], results: list[Any], reasons: list[str]
) -> dict[str, Any]:
    parts = {"promotion": dict(summary.get("promotion") or {}), "results": results, "reasons": reasons}
    return {"status": status, "decision": decision, "candidate_ready": ready, **parts}


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
