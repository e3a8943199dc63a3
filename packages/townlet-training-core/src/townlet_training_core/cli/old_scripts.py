"""Old scripts that need neither a simulation nor torch, with their old flags and output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from townlet_training_core.cli.flags import emit, say, script
from townlet_training_core.errors import DataError
from townlet_training_core.evaluation.logs import validate_logs
from townlet_training_core.files import atomic_write_json, atomic_write_text
from townlet_training_core.promotion.verdict import evaluate
from townlet_training_core.replay.curation import audit
from townlet_training_core.replay.manifest import load_manifest
from townlet_training_core.replay.metrics import compute_sample_metrics
from townlet_training_core.replay.npz import load_replay_sample, sidecar
from townlet_training_core.telemetry.jsonl import read_jsonl

__all__ = [
    "audit_bc_datasets",
    "bc_metrics_summary",
    "curate_trajectories",
    "merge_rollout_metrics",
    "ppo_telemetry_plot",
    "promotion_evaluate",
    "run_replay",
    "validate_ppo_telemetry",
]


def _rows(payload: object) -> list[dict[str, Any]]:
    return [row for row in (payload if isinstance(payload, list) else [payload]) if isinstance(row, dict)]


_CODES = {"PROMOTE": 0, "HOLD": 1, "FAIL": 2}


@script("--versions:path=data/bc_datasets/versions.json --exit-on-failure")
def audit_bc_datasets(args: argparse.Namespace) -> int:
    """Check cloning datasets against their checksums."""
    report = audit(args.versions)
    emit(report.model_dump(mode="json"))
    return int(args.exit_on_failure and report.failures > 0)


@script("metrics:path --format:json|markdown=json")
def bc_metrics_summary(args: argparse.Namespace) -> int:
    """Summarise the accuracies of cloning runs. The file holds one JSON object, a list of them, or one a line."""
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


@script("input:path --output:path! --min-timesteps:int=10 --min-reward:float")
def curate_trajectories(args: argparse.Namespace) -> int:
    """Write a manifest of captures that says which are good enough to train on."""
    if args.input.is_dir():
        pairs = [(path, sidecar(path)) for path in sorted(args.input.glob("*.npz"))]
    else:
        pairs = [(path, meta or sidecar(path)) for path, meta in load_manifest(args.input).pairs()]
    if not pairs:
        msg = f"no captures (*.npz) in {args.input}"
        raise DataError(msg)
    entries = []
    for path, meta in pairs:
        sample = load_replay_sample(path, meta)
        total = float(sample.rewards.sum())
        metrics = {
            "timesteps": sample.timesteps,
            "reward_sum": total,
            "mean_reward": total / max(1, sample.timesteps),
            "done_count": int(sample.dones.sum()),
        }
        accepted = sample.timesteps >= args.min_timesteps and (args.min_reward is None or total >= args.min_reward)
        located = {key: os.path.relpath(one, args.output.parent) for key, one in (("sample", path), ("meta", meta))}
        entries.append({**located, "metrics": metrics, "accepted": accepted})
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(args.output, entries)
    good = sum(bool(entry["accepted"]) for entry in entries)
    emit({"total": len(entries), "accepted": good, "rejected": len(entries) - good})
    return 0


@script("""input_root:path --golden:path=docs/samples/rollout_scenario_stats.json --output:path --include:str*
    --allow-template --dry-run""")
def merge_rollout_metrics(args: argparse.Namespace) -> int:
    """Merge the metrics of captured scenarios into the golden statistics."""
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


@script("log:path?=docs/samples/ppo_epoch_log.jsonl --show --output:path")
def ppo_telemetry_plot(args: argparse.Namespace) -> int:
    """Show or draw the losses of a PPO log."""
    records = list(read_jsonl(args.log))
    for record in records:
        losses = f"loss_total {record['loss_total']:.6f}, kl_divergence {record['kl_divergence']:.6f}"
        say(f"epoch {record['epoch']}: {losses}")
    if args.show or args.output:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(2, 1, sharex=True)
        for axis, key in zip(axes, ("loss_total", "kl_divergence"), strict=True):
            axis.plot([record[key] for record in records])
            axis.set_ylabel(key)
        axes[-1].set_xlabel("logged epoch")
        if args.output:
            figure.savefig(args.output)
        if args.show:
            plt.show()
    return 0


@script("--input:path --summary:path --format:json|human=json --dry-run")
def promotion_evaluate(args: argparse.Namespace) -> int:
    """Decide from an anneal's summary: PROMOTE (exit code 0), HOLD (1) or FAIL (2, as wrong usage)."""
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


@script("sample:path --meta:path --telemetry:path --validate")
def run_replay(args: argparse.Namespace) -> int:
    """Show a sample, or check it."""
    sample = load_replay_sample(args.sample, args.meta)
    if args.validate:
        say("Sample validation successful.")
        return 0
    say("Metadata:")
    emit(sample.metadata)
    say(f"Map shape: {sample.map.shape}")
    say("Features:")
    for name, column in zip(sample.feature_names, sample.features.T, strict=False):
        say(f"  {name}: mean {column.mean():.4f}, min {column.min():.4f}, max {column.max():.4f}")
    say("Metrics:")
    emit(compute_sample_metrics(sample))
    if args.telemetry:
        say("Telemetry:")
        emit(json.loads(args.telemetry.read_text(encoding="utf-8")))
    return 0


@script("logs:path+ --baseline:path --drift-threshold:float --relative")
def validate_ppo_telemetry(args: argparse.Namespace) -> int:
    """Check PPO logs, and how far they are from a baseline."""
    for report in validate_logs(args.logs, args.baseline, args.drift_threshold, args.relative):
        say(f"{report.path}: {report.records} records are valid")
        for key, value in (report.relative_drift or report.drift).items():
            say(f"  {key}: {value:+.6g}")
    return 0
