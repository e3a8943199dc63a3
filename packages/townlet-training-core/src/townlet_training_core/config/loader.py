"""Reading a configuration: YAML by the safe loader, ``key.path=value`` overrides, errors that name the place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.dto.base import describe_errors
from townlet_training_core.errors import ConfigurationError

__all__ = ["apply_overrides", "default_config", "load_config", "read_yaml", "validated"]

ModelT = TypeVar("ModelT", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, refusing a key that stands twice in one mapping."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str | int | float | bool) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the safe loader.

    Raises
    ------
    ConfigurationError
        When the file is missing, not UTF-8, not YAML, or has a key twice; with line and column where known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"cannot read configuration {str(path)!r}: {reason}"
        raise ConfigurationError(msg) from error
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or error
        msg = f"{str(path)!r}{place}: not valid YAML: {problem}"
        raise ConfigurationError(msg) from error


def validated(model: type[ModelT], payload: Any, *, source: str, prefix: str = "") -> ModelT:
    """Validate ``payload`` as ``model``; faults become one :class:`ConfigurationError` that names ``source``."""
    if not isinstance(payload, Mapping):
        msg = f"{source}: expected a mapping of keys, found {type(payload).__name__}"
        raise ConfigurationError(msg)
    try:
        return model.model_validate(dict(payload))
    except ValidationError as error:
        raise ConfigurationError(describe_errors(error, source=source, prefix=prefix)) from error


def apply_overrides(payload: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``payload`` with ``key.path=value`` overrides applied; a value is read as YAML.

    Raises
    ------
    ConfigurationError
        When an override has no ``=`` or goes through a key that is not a mapping.
    """
    result = _deep_copy(payload)
    for override in overrides:
        path, separator, text = override.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            msg = f"--set {override!r}: expected key.path=value, e.g. ppo.learning_rate=1e-4"
            raise ConfigurationError(msg)
        try:
            value = yaml.safe_load(text) if text.strip() else None
        except yaml.YAMLError as error:
            msg = f"--set {override!r}: the value is not valid YAML"
            raise ConfigurationError(msg) from error
        node = result
        for depth, key in enumerate(keys[:-1]):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                msg = f"--set {override!r}: {'.'.join(keys[: depth + 1])} is not a mapping"
                raise ConfigurationError(msg)
        node[keys[-1]] = _number(value)
    return result


def load_config(path: Path | None = None, *, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Load a configuration file, or the packaged default, and apply overrides.

    Raises
    ------
    ConfigurationError
        With one line per fault: file, key path, what was expected.
    """
    payload = _default_payload() if path is None else read_yaml(path)
    source = "default configuration" if path is None else str(path)
    if not isinstance(payload, Mapping):
        msg = f"{source}: expected a mapping of keys, found {type(payload).__name__}"
        raise ConfigurationError(msg)
    if overrides:
        payload, source = apply_overrides(_without_stale_options(payload, overrides), overrides), f"{source} with --set"
    return validated(TrainingConfig, payload, source=source)


def _without_stale_options(payload: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """Drop the file's simulation options where an override chooses another simulation: they were not meant for it."""
    chosen = apply_overrides({}, overrides).get("simulation")
    written = payload.get("simulation")
    if not isinstance(chosen, dict) or not isinstance(written, Mapping):
        return payload
    if chosen.get("name", written.get("name")) == written.get("name", "town"):
        return payload
    return {**payload, "simulation": {key: value for key, value in written.items() if key != "options"}}


def default_config() -> TrainingConfig:
    """Return the packaged default: what ``townlet train`` runs when it is given no file."""
    return load_config()


def _default_payload() -> Any:
    return yaml.safe_load(Path(__file__).with_name("default.yaml").read_text(encoding="utf-8"))


def _deep_copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(item) if isinstance(item, Mapping) else item for key, item in value.items()}


def _number(value: Any) -> Any:
    """Read ``1e-4`` as the number that everyone means; YAML 1.1 wants a dot and takes it for text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
