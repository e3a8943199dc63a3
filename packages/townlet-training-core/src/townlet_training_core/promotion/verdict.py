"""The old verdicts: the status of an anneal's results, and what it means for a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["evaluate", "evaluate_anneal_results"]

_FLAGS = ("anneal_loss_flag", "anneal_queue_flag", "anneal_intensity_flag")


def evaluate_anneal_results(results: Sequence[Mapping[str, Any]]) -> str:
    """Return FAIL when a BC stage failed, HOLD when a guardrail was raised, else PASS."""
    if any(result.get("mode") == "bc" and not result.get("passed", False) for result in results):
        return "FAIL"
    return "HOLD" if any(result.get(flag) for result in results for flag in _FLAGS) else "PASS"


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
