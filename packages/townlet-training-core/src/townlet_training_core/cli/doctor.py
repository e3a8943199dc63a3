"""``townlet doctor``: what is installed, what is broken, what to install for what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import JsonOption
from townlet_training_core.errors import TownletError
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


@app.command(epilog="Example: townlet doctor --json")
def doctor(as_json: JsonOption = False) -> None:
    """Report packages, plug-ins and devices; exit code 1 when an installed plug-in is broken."""
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
