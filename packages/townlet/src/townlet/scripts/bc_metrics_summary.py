"""Summarise the accuracies of cloning runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import yaml

from townlet.scripts._arguments import emit, parser, run, say
from townlet_training_core.errors import DataError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the file holds one JSON object, a list of them, or one a line."""
    args = parser(__doc__ or "", "metrics:path --format:json|markdown=json").parse_args(argv)
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


def _rows(payload: object) -> list[dict[str, object]]:
    return [row for row in (payload if isinstance(payload, list) else [payload]) if isinstance(row, dict)]


if __name__ == "__main__":
    run(main)
