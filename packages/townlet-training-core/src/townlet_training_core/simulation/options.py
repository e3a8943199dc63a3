"""Options of the adapters for environments: which one, with which keyword arguments."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any

from townlet_training_core.errors import ConfigurationError, MissingDependencyError

__all__ = ["environment_options", "load_factory", "require"]

_IMPORT_STRING = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def environment_options(
    options: Mapping[str, Any], *, simulation: str, example: str, allowed: tuple[str, ...] = ("env", "kwargs")
) -> tuple[str, dict[str, Any]]:
    """Return ``env`` and ``kwargs`` of the options.

    Raises
    ------
    ConfigurationError
        When ``env`` is missing or no text, ``kwargs`` no mapping with names as keys, or there are other keys.
    """
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        msg = f"simulation.options of {simulation!r}: unknown keys {unknown}; expected {list(allowed)}"
        raise ConfigurationError(msg)
    env, kwargs = options.get("env"), options.get("kwargs", {})
    if not isinstance(env, str) or not env:
        msg = f"simulation.options.env of {simulation!r} is {env!r}; expected a name such as {example!r}"
        raise ConfigurationError(msg)
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        msg = f"simulation.options.kwargs of {simulation!r} is {kwargs!r}; expected a mapping of names to values"
        raise ConfigurationError(msg)
    return env, dict(kwargs)


def load_factory(text: str, *, simulation: str) -> Callable[..., Any]:
    """Import ``"package.module:function"``.

    Raises
    ------
    ConfigurationError
        When the text has another form, the module cannot be imported, or the attribute is missing.
    """
    if not _IMPORT_STRING.fullmatch(text):
        msg = (
            f"simulation.options.env of {simulation!r} is {text!r}; expected 'package.module:function', "
            "e.g. 'mpe2.simple_spread_v3:parallel_env'"
        )
        raise ConfigurationError(msg)
    module_name, _, attribute = text.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        msg = f"simulation.options.env of {simulation!r}: {text!r} cannot be imported: {error}"
        raise ConfigurationError(msg) from error
    if not callable(factory):
        msg = f"simulation.options.env of {simulation!r}: {text!r} is not callable"
        raise ConfigurationError(msg)
    made: Callable[..., Any] = factory
    return made


def require(module: str, *, simulation: str) -> None:
    """Check that an optional package is installed.

    Raises
    ------
    MissingDependencyError
        When it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingDependencyError(
            f"simulation {simulation!r}", install="pip install 'townlet-training-core[environments]'"
        )
