"""Reading a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from townlet.config.simulation import SimulationConfig

__all__ = ["as_mapping", "load_config"]


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


def as_mapping(config: Any) -> Mapping[str, Any]:
    """Return a configuration of any kind (model, mapping, plain object) as nested mappings."""
    if isinstance(config, Mapping):
        return config
    dumped = config.model_dump() if hasattr(config, "model_dump") else vars(config)
    return {key: as_mapping(value) if hasattr(value, "__dict__") else value for key, value in dumped.items()}
