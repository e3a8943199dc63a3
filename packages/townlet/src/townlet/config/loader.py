"""Reading a configuration file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from townlet.config.simulation import SimulationConfig

__all__ = ["load_config"]


def load_config(path: Path) -> SimulationConfig:
    """Read a YAML configuration.

    Raises
    ------
    FileNotFoundError
        With the path, when there is no such file.
    ValueError
        ``Invalid config at <path>:`` and what is wrong, key by key.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        return SimulationConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        msg = f"Invalid config at {path}:\n{error}"
        raise ValueError(msg) from error
