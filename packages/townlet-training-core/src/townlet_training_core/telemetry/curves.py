"""Learning curves of a run as a picture."""

from __future__ import annotations

import importlib
import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any

from townlet_training_core.runs import RunDirectory
from townlet_training_core.telemetry.jsonl import log_files, read_jsonl

__all__ = ["curves", "draw_curves"]

_PANELS = {
    "bc.epoch": ("loss", "val_loss", "accuracy", "val_accuracy"),
    "ppo.iteration": ("episode_return", "loss_policy", "loss_value", "loss_entropy", "kl_divergence", "clip_fraction"),
}
"""What is drawn, by kind of record."""


def curves(run: RunDirectory) -> dict[str, dict[str, list[float]]]:
    """Collect the numbers of each kind of record, in order; a resumed run's repeated records count once.

    Returns
    -------
    dict
        ``{kind: {name: values}}``; nested sections are flattened into one level.
    """
    records: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)
    if log_files(run.telemetry):
        for record in read_jsonl(run.telemetry):
            kind = str(record.get("kind"))
            key = (record.get("stage", ""), record.get("epoch", len(records[kind])))
            records[kind][key] = _flat(record)
    series: dict[str, dict[str, list[float]]] = {}
    for kind, rows in records.items():
        names = {name for row in rows.values() for name, value in row.items() if _is_number(value)}
        series[kind] = {
            name: [float(row[name]) if _is_number(row.get(name)) else float("nan") for row in rows.values()]
            for name in sorted(names)
        }
    return series


def draw_curves(run: RunDirectory) -> Path | None:
    """Write ``learning_curves.png`` and return its path; ``None`` without matplotlib or without anything to draw."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    found = curves(run)
    panels = [
        (kind, name, found[kind][name]) for kind, names in _PANELS.items() if kind in found for name in names
        if name in found[kind]
    ]  # fmt: skip
    if not panels:
        return None
    # The figure class without pyplot: no global state, no window.
    figure_class: Any = importlib.import_module("matplotlib.figure").Figure
    columns = 3
    rows = -(-len(panels) // columns)
    figure = figure_class(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    for number, (kind, name, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 30 else None)
        axes.set_title(f"{kind.partition('.')[0].upper()} {name.replace('_', ' ')}", fontsize=9)
        axes.set_xlabel(kind.partition(".")[2], fontsize=8)
        axes.grid(visible=True, alpha=0.3)
    target = run.path / "learning_curves.png"
    figure.savefig(target, dpi=110)
    return target


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
