"""Merge the metrics of captured scenarios into the golden statistics."""

from __future__ import annotations

import argparse
import json
from typing import Any

from townlet.scripts._arguments import emit, say, script
from townlet_training_core.errors import DataError
from townlet_training_core.files import atomic_write_text

__all__ = ["main"]


@script("""input_root:path --golden:path=docs/samples/rollout_scenario_stats.json --output:path --include:str*
    --allow-template --dry-run""")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    golden: dict[str, Any] = json.loads(args.golden.read_text(encoding="utf-8")) if args.golden.is_file() else {}
    found = 0
    for path in sorted(args.input_root.glob("*/rollout_sample_metrics.json")):
        scenario = path.parent.name
        if args.include and scenario not in args.include:
            continue
        payload = json.loads(path.read_text(encoding="utf-8"))
        samples = payload.get("samples", payload)
        if not samples and not args.allow_template:
            msg = f"{path} holds no samples; pass --allow-template to take it as a template"
            raise DataError(msg)
        golden[scenario], found = samples, found + 1
    if not found:
        msg = f"no rollout_sample_metrics.json below {args.input_root}"
        raise DataError(msg)
    if args.dry_run:
        emit(golden)
        return 0
    target = args.output or args.golden
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(target, json.dumps(golden, indent=2, sort_keys=True) + "\n")
    say(f"Merged {found} scenario(s) into {target}")
    return 0
