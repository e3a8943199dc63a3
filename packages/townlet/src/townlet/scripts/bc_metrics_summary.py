"""Summarise the accuracies of cloning runs."""

from __future__ import annotations

import argparse
from statistics import fmean
from typing import Any

import yaml

from townlet.scripts._arguments import emit, say, script
from townlet_training_core.errors import DataError

__all__ = ["main"]


def _rows(payload: object) -> list[dict[str, Any]]:
    return [row for row in (payload if isinstance(payload, list) else [payload]) if isinstance(row, dict)]


@script("metrics:path --format:json|markdown=json")
def main(args: argparse.Namespace) -> int:
    """Run the script; the file holds one JSON object, a list of them, or one a line."""
    text = args.metrics.read_text(encoding="utf-8")
    lines = text.splitlines() if args.metrics.suffix == ".jsonl" else [text]
    rows = [row for line in lines if line.strip() for row in _rows(yaml.safe_load(line))]
    accuracies = [float(row["accuracy"]) for row in rows if "accuracy" in row]
    if not accuracies:
        msg = f"{args.metrics} holds no 'accuracy'"
        raise DataError(msg)
    summary = {"count": len(accuracies), "mean_accuracy": fmean(accuracies), "min_accuracy": min(accuracies)}
    if args.format == "json":
        emit(summary)
    else:
        say("| metric | value |\n| --- | --- |")
        for name, value in summary.items():
            say(f"| {name} | {value:.4f} |" if isinstance(value, float) else f"| {name} | {value} |")
    return 0
