"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ConfigOption", "JsonOption", "RunsDirOption", "SetOption"]

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file (YAML); the packaged default when absent.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY.PATH=VALUE", help="Override one key of the configuration; repeatable."),
]
RunsDirOption = Annotated[Path, typer.Option("--runs-dir", help="Folder of run directories.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
