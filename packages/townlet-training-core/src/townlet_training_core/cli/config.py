"""``townlet config``: the schema, and what a configuration resolves to."""

from __future__ import annotations

import json

import typer
import yaml

from townlet_training_core.cli.options import ConfigOption, SetOption
from townlet_training_core.config.loader import load_config
from townlet_training_core.config.models import TrainingConfig

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Show and check configurations.")


@app.command(epilog="Example: townlet config schema > townlet.schema.json")
def schema() -> None:
    """Print the JSON Schema of configuration files."""
    typer.echo(json.dumps(TrainingConfig.model_json_schema(), indent=2))


@app.command(epilog="Example: townlet config show --config my.yaml --set ppo.learning_rate=1e-4")
def show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the configuration with every default filled in, as YAML; a wrong one is explained."""
    resolved = load_config(config, overrides=overrides or ())
    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False), nl=False)
