"""``townlet doctor``: what is installed, what is missing and how to get it; what suits this machine (``--tune``)."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import ConfigOption, JsonOption, SetOption
from townlet_training_core.config.loader import load_config
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import ConfigurationError, TownletError
from townlet_training_core.registry import Group, load, plugins

__all__ = ["app"]

app = typer.Typer(help="Say what is installed and what is missing.")

_PARTS = {
    "townlet-training-core": "pip install townlet-training-core",
    "townlet-training-torch": "pip install townlet-training-torch",
    "townlet-sim": "pip install townlet-sim",
    "townlet": "pip install townlet",
    "torch": "pip install townlet-training-torch",
    "matplotlib": "pip install 'townlet-training-core[plots]'",
    "pyarrow": "pip install 'townlet-training-core[parquet]'",
    "tensorboardX": "pip install 'townlet-training-core[tensorboard]'",
    "onnxruntime": "pip install 'townlet-training-core[onnx]'",
    "fsspec": "pip install 'townlet-training-core[remote]'",
    "gymnasium": "pip install 'townlet-training-core[environments]'",
    "pettingzoo": "pip install 'townlet-training-core[environments]'",
}


@app.command(epilog="Examples:  townlet doctor --json   |   townlet doctor --tune --config mine.yaml")
def doctor(
    tuning: Annotated[
        bool,
        typer.Option("--tune", help="Instead, train a few seconds with several B, T and threads and say what suits."),
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report packages, plug-ins and devices; exit code 1 when an installed plug-in is broken."""
    if tuning:
        _tune(load_config(config, overrides=overrides or ()), as_json=as_json)
        return
    if config is not None or overrides:
        msg = "--config and --set say what --tune trains; give --tune with them"
        raise ConfigurationError(msg)
    report: dict[str, Any] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in _PARTS},
        "missing": {name: line for name, line in _PARTS.items() if _version(name) is None},
        "plugins": [_check(plugin) for group in Group for plugin in plugins(group)],
        "devices": _devices(),
    }
    broken = [row for row in report["plugins"] if row["state"] == "broken"]
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    raise typer.Exit(1 if broken else 0)


def _tune(config: TrainingConfig, *, as_json: bool) -> None:
    from townlet_training_core.cli.tune import candidates, choose, cores, override_line, tune
    from townlet_training_core.registry import make_simulation
    from townlet_training_core.telemetry.progress import terminal_progress

    simulation = make_simulation(config.simulation, num_envs=1)
    agents = int(simulation.spec.agents_per_env)
    simulation.close()
    progress = terminal_progress()
    if not as_json:
        progress.start("tune", total=len(list(candidates(agents, available=cores()))))
    try:
        results = tune(
            config, agents=agents, on_each=lambda one: None if as_json else progress.advance(1, steps_per_s=one.trained)
        )
    finally:
        progress.finish()
    best = choose(results)
    if as_json:
        payload = {
            "cores": cores(),
            "agents": agents,
            "results": [asdict(result) for result in results],
            "best": asdict(best),
            "overrides": override_line(best),
        }
        typer.echo(json.dumps(payload, indent=2))
        return
    passes = config.ppo.num_epochs
    columns = ("environments", "steps", "threads", "rollout", "one pass", f"both, {passes} passes")
    table = Table(*columns, title=f"Agent-steps per second on {cores()} cores", caption=f"{agents} agents each")
    for row in results:
        numbers = (f"{value:,.0f}" for value in (row.captured, row.updated, row.trained))
        style = "bold green" if row is best else None
        table.add_row(str(row.num_envs), str(row.rollout_steps), str(row.threads), *numbers, style=style)
    console = Console()
    console.print(table)
    console.print(f"use: townlet train anneal {override_line(best)}", markup=False, soft_wrap=True)


def _check(plugin: Any) -> dict[str, str]:
    row = {"group": plugin.group.noun, "name": plugin.name, "distribution": plugin.distribution}
    try:
        load(plugin.group, plugin.name)
    except TownletError as error:
        return {**row, "state": "missing part" if error.exit_code == 3 else "broken", "detail": str(error)}
    return {**row, "state": "ok", "detail": ""}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """List the learner's devices; torch is imported here and nowhere else in this package, where it is installed."""
    if importlib.util.find_spec("torch") is None:
        return []
    torch: Any = importlib.import_module("torch")
    return ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]


def _show(report: dict[str, Any]) -> None:
    console = Console()
    console.print(f"Python {report['python']}, {report['platform']}, {report['cores']} cores")
    packages = Table("package", "version", "to install", title="Packages")
    for name, found in report["packages"].items():
        packages.add_row(name, found or "-", report["missing"].get(name, "").replace("[", r"\["))
    console.print(packages)
    table = Table("kind", "name", "from", "state", title="Plug-ins")
    for row in report["plugins"]:
        table.add_row(row["group"], row["name"], row["distribution"], row["state"])
    console.print(table)
    for row in report["plugins"]:
        if row["detail"]:
            console.print(f"{row['group']} {row['name']}: {row['detail']}", markup=False)
    console.print(f"devices: {', '.join(report['devices']) or 'none for training (torch is not installed)'}")
