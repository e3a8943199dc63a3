"""Promote a candidate and take it back, to see that the record works."""

from __future__ import annotations

import argparse

from townlet.config import load_config
from townlet.stability.promotion import PromotionManager
from townlet_training_core.cli.flags import say, script
from townlet_training_core.files import atomic_write_json, sha256_file

__all__ = ["main"]


@script("--config:path! --output:path! --checkpoint:path!")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    args.output.mkdir(parents=True, exist_ok=True)
    manager = PromotionManager(load_config(args.config), log_path=args.output / "promotion_history.jsonl")
    initial = manager.snapshot()
    block = {"pass_streak": manager.required_passes, "candidate_ready": True, "last_result": "pass"}
    manager.update_from_metrics({"promotion": {**block, "last_evaluated_tick": 1}}, tick=1)
    known = {"policy_hash": sha256_file(args.checkpoint)} if args.checkpoint.is_file() else {}
    manager.mark_promoted(tick=2, metadata={"checkpoint": str(args.checkpoint), **known})
    promote = {**manager.snapshot(), "promoted": manager.state == "promoted"}
    manager.register_rollback(tick=3)
    after = manager.snapshot()
    rolled_back = after["current_release"] == initial["current_release"]
    summary = {
        "config": str(args.config),
        "checkpoint": str(args.checkpoint),
        "initial": initial,
        "promote": promote,
        "rollback": {**after, "rolled_back": rolled_back},
        "history": after["history"],
    }
    target = args.output / "promotion_drill_summary.json"
    atomic_write_json(target, summary)
    say(f"Promotion drill written to {target}")
    return 0 if promote["promoted"] and rolled_back else 1
