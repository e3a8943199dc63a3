"""The document: sections, tables, charts. No script, no request, nothing outside the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from townlet_training_core.dto.release import PromotionVerdict
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.evaluation.report.charts import interval_chart, line_chart, number
from townlet_training_core.evaluation.report.gather import RunRecord, Series, gather, gather_folder
from townlet_training_core.evaluation.report.scores import cloning_section, events_section, scores_section
from townlet_training_core.evaluation.report.tables import figure, section, table
from townlet_training_core.files import atomic_write_text
from townlet_training_core.runs import RunDirectory

__all__ = ["render", "write_report"]

_LEARNING = ("episode_return", "return_mean", "accuracy", "val_accuracy", "loss", "val_loss", "episode_length")
_LOSSES = ("loss_policy", "loss_value", "loss_entropy", "loss_total", "loss_bc")
_HEALTH = (
    "kl_divergence",
    "clip_fraction",
    "grad_norm",
    "batch_entropy_mean",
    "adv_std",
    "explained_variance",
    "reward_advantage_corr",
    "lr",
    "val_macro_f1",
    "val_top_k_accuracy",
    "samples_per_s",
    "steps_per_s",
)
_EVENTS = (
    "queue_conflict_events",
    "queue_conflict_intensity_sum",
    "shared_meal_events",
    "late_help_events",
    "shift_takeover_events",
    "chat_success_events",
    "chat_failure_events",
    "chat_quality_mean",
)
_FACTS = ("strategy", "status", "seed", "started", "parent", "config_hash")


def write_report(runs: Sequence[RunDirectory | Path], target: Path, *, verdicts: Sequence[Path] = ()) -> Path:
    """Write the report of runs to ``target``, whole or not at all.

    Parameters
    ----------
    runs:
        Run directories, or folders of evaluation results.
    verdicts:
        Files of promotion verdicts; shown with the first run.

    Raises
    ------
    ConfigurationError
        When there is no run, or ``target`` cannot be written.
    ArtifactError, DataError
        When a file of a run is corrupt.
    """
    if not runs:
        msg = "a report needs at least one run"
        raise ConfigurationError(msg)
    records = []
    for index, run in enumerate(runs):
        shown = verdicts if index == 0 else ()
        found = gather_folder(run, verdicts=shown) if isinstance(run, Path) else gather(run, verdicts=shown)
        records.append(found)
    page = render(records, written=datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(target, page)
    except OSError as error:
        msg = f"cannot write report {str(target)!r}: {error.strerror or error}"
        raise ConfigurationError(msg) from error
    return target


def render(runs: Sequence[RunRecord], *, written: str) -> str:
    """Return the document, what was found before how it came about; equal input gives equal bytes."""
    sections = [
        ("promotion", "Promotion", "".join(_verdict(v) for run in runs for v in run.verdicts)),
        ("evaluation", "Evaluation", scores_section(runs)),
        ("what", "What was run", _what(runs)),
        ("learning", "Learning", _charts(runs, _LEARNING)),
        ("losses", "Losses", _charts(runs, _LOSSES)),
        ("health", "Health of the training", _charts(runs, _HEALTH)),
        ("events", "Events", _charts(runs, _EVENTS) + events_section(runs)),
        ("cloning", "Behaviour cloning", cloning_section(runs)),
        ("anneal", "Anneal stages", _anneal(runs)),
        ("numbers", "All numbers", "".join(_numbers(run) for run in runs)),
    ]
    filled = [(key, title, body) for key, title, body in sections if body]
    names = ", ".join(run.name for run in runs)
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in filled)
    style = resources.files("townlet_training_core.evaluation.report").joinpath("style.css").read_text("utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>Training report: {escape(names)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<header><h1>Training report</h1><p class="soft">{escape(names)}; written {escape(written)}</p></header>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main id="main">\n'
        + "\n".join(section(key, title, body) for key, title, body in filled)
        + "\n</main>\n</body>\n</html>\n"
    )


# -- what was run ---------------------------------------------------------------------------------------------


def _what(runs: Sequence[RunRecord]) -> str:
    names = ["", *(run.name for run in runs)]
    facts = _rows([{name: run.manifest.get(name) for name in _FACTS} | _asked(run) for run in runs])
    where = _rows([_environment(run) for run in runs])
    if not facts and not where:
        return ""
    body = table("Runs", names, facts, header_column=True, align_numbers=False) if facts else ""
    if where:
        label = "Versions and machine"
        found = table(label, names, where, header_column=True, align_numbers=False)
        body += f"<details><summary>{label}</summary>{found}</details>"
    if len(runs) > 1:
        configs = [_flatten(run.config) for run in runs]
        keys = sorted({key for config in configs for key in config})
        rows = [
            [key, *(_text(config.get(key)) for config in configs)]
            for key in keys
            if len({json.dumps(config.get(key), sort_keys=True, default=str) for config in configs}) > 1
        ]
        if rows:
            headers = ["key", *(run.name for run in runs)]
            body += table("Where the configurations differ", headers, rows, header_column=True, align_numbers=False)
        else:
            body += "<p>The configurations are the same.</p>"
    for run in runs:
        if run.config:
            text = escape(json.dumps(run.config, indent=2, default=str))
            label = escape(f"Configuration of {run.name}", quote=True)
            body += (
                f"<details><summary>Configuration of {escape(run.name)}</summary>"
                f'<pre tabindex="0" role="group" aria-label="{label}">{text}</pre></details>'
            )
    return body


def _rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lay facts of several runs side by side; a fact that none has is left out."""
    rows = [[name, *(_text(facts.get(name)) for facts in found)] for name in dict.fromkeys(k for f in found for k in f)]
    return [row for row in rows if any(row[1:])]


def _asked(run: RunRecord) -> dict[str, Any]:
    """List what was asked for."""
    request = _flatten(run.manifest.get("request") or {}, "request.")
    return {key: value for key, value in request.items() if value not in (None, "")}


def _environment(run: RunRecord) -> dict[str, Any]:
    """List with which versions, and where."""
    return {
        name: item
        for part in ("packages", "platform")
        for name, item in _flatten(run.manifest.get(part) or {}, "").items()
    }


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


# -- charts ---------------------------------------------------------------------------------------------------


def _charts(runs: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Draw every named column of every kind of telemetry; runs share the axes."""
    kinds = dict.fromkeys(kind for run in runs for kind in run.series)
    charts = []
    for kind in kinds:
        present = [(index, run) for index, run in enumerate(runs) if kind in run.series]
        for name in names:
            lines = [(run.name, run.series[kind].columns.get(name, ())) for _, run in present]
            if not any(value for _, values in lines for value in values if math.isfinite(value)):
                continue  # nothing, or zeros alone: the part was switched off
            title = f"{_kind(kind)}: {name.replace('_', ' ')}"
            breaks = _breaks(present[0][1].series[kind]) if len(present) == 1 else []
            unit = kind.rpartition(".")[2] + "s" if "." in kind else "records"
            chart = line_chart(title, lines, axis=unit, breaks=breaks)
            if chart:
                charts.append(figure(title, chart))
    if not charts:
        return ""
    return (_legend(runs) if len(runs) > 1 else "") + f'<div class="charts">{"".join(charts)}</div>'


def _kind(kind: str) -> str:
    known = {"bc.epoch": "Cloning", "ppo.iteration": "PPO", "ppo.summary": "PPO", "evaluation": "Evaluation"}
    return known.get(kind, kind)


def _breaks(series: Series) -> list[int]:
    return [at for at in range(1, len(series)) if series.stages[at] != series.stages[at - 1]]


def _legend(runs: Sequence[RunRecord]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 36 8" aria-hidden="true"><polyline class="s{index % 6} line" points="0,4 36,4"/></svg> '
        f"{escape(run.name)}</li>"
        for index, run in enumerate(runs)
    )
    return f'<ul class="legend" aria-label="Runs">{items}</ul>'


# -- stages, verdicts, numbers --------------------------------------------------------------------------------


def _anneal(runs: Sequence[RunRecord]) -> str:
    body = ""
    for run in runs:
        if not run.stages:
            continue
        rows = []
        for stage in run.stages:
            flags = [
                name
                for name in ("loss", "queue", "intensity")
                if stage.get(f"anneal_{name}_flag")
            ]  # fmt: skip
            gate = ""
            if stage.get("accuracy") is not None:
                gate = f"{number(float(stage['accuracy']))} of {_text(stage.get('threshold'))}"
            outcome = (
                "rolled back" if stage.get("rolled_back") else "failed" if stage.get("passed") is False else "kept"
            )
            rows.append(
                [
                    _text(stage.get("cycle")),
                    _text(stage.get("mode")),
                    _text(stage.get("bc_weight")),
                    gate,
                    _text(stage.get("loss") if stage.get("loss_total") is None else stage["loss_total"]),
                    ", ".join(flags),
                    outcome,
                ]
            )
        status = _text(run.results.get("anneal", {}).get("status"))
        headers = ["cycle", "mode", "BC weight", "accuracy", "loss", "legacy flags", "outcome"]
        body += table(f"{run.name}: {status}", headers, rows)
    return body


def _verdict(verdict: PromotionVerdict) -> str:
    chart = interval_chart(
        "Paired difference in return, candidate minus release",
        [
            ("all", verdict.difference, ()),
            *((c.candidate, c.difference, ()) for c in verdict.comparisons if len(verdict.comparisons) > 1),
        ],
        zero=True,
    )
    rows = [
        [
            rail.kpi,
            rail.direction.replace("_", " "),
            number(rail.margin),
            "" if rail.difference is None else number(rail.difference.estimate),
            "" if rail.difference is None else f"{number(rail.difference.low)} to {number(rail.difference.high)}",
            rail.status,
        ]
        for rail in verdict.guardrails
    ]
    headers = ["indicator", "direction", "margin", "difference (positive is better)", "interval", "status"]
    body = f'<p class="verdict {verdict.decision}">{escape(verdict.summary)}.</p>'
    body += f'<div class="charts">{figure("Candidate minus release", chart)}</div>' if chart else ""
    body += table("Guardrails", headers, rows) if rows else ""
    if verdict.forgetting:
        checks = [
            [
                check.release[:12],
                check.suite,
                number(check.difference.estimate),
                "forgotten" if check.forgotten else "kept",
            ]
            for check in verdict.forgetting
        ]
        body += table("Earlier releases", ["release", "suite", "difference", "outcome"], checks)
    if verdict.legacy_status is not None:
        body += f"<p>The legacy flags alone would have said {verdict.legacy_status}.</p>"
    return f"<h3>{escape(verdict.candidate)} against {escape(verdict.baseline)}</h3>{body}"


def _numbers(run: RunRecord) -> str:
    body = ""
    for kind, series in run.series.items():
        names = list(series.columns)
        staged = any(series.stages)
        rows = [
            [str(at + 1), *([series.stages[at]] if staged else []), *(number(series.columns[n][at]) for n in names)]
            for at in range(len(series))
        ]
        rows = [["" if cell == "no value" else cell for cell in row] for row in rows]
        caption = f"{run.name}, {kind}"
        headers = ["#", *(["stage"] if staged else []), *names]
        summary = f"<summary>{escape(caption)}: {len(rows)} records</summary>"
        body += f"<details>{summary}{table(caption, headers, rows)}</details>"
    return body
