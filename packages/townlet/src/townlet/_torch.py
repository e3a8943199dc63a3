"""Torch-backed names: resolved when they are asked for, or stood in for where torch is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

from townlet_training_core.errors import TorchNotAvailableError

__all__ = ["INSTALL", "lazy_names", "require_torch", "torch_available"]

INSTALL = "pip install 'townlet[ml]'"


def torch_available() -> bool:
    """Whether torch and the torch package are installed; neither is imported."""
    try:
        return all(importlib.util.find_spec(name) for name in ("torch", "townlet_training_torch"))
    except ImportError:
        return False


def require_torch(available: bool, what: str) -> None:
    """Raise :class:`TorchNotAvailableError` with the install line unless ``available``."""
    if not available:
        raise TorchNotAvailableError(what, install=INSTALL)


def lazy_names(module: str, target: str, names: Iterable[str], fallback: str = "") -> Callable[[str], Any]:
    """Make the module ``__getattr__`` (PEP 562) that takes ``names`` from ``target``.

    Without torch a name comes from the module ``fallback`` when that has it; otherwise it is a class that raises
    :class:`TorchNotAvailableError` when it is called.
    """
    known, stand_ins = frozenset(names), dict[str, Any]()

    def resolve(name: str) -> Any:
        if name not in known:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg)
        if not target.startswith("townlet_training_torch") or torch_available():
            return getattr(importlib.import_module(target), name)
        if name not in stand_ins:
            found = getattr(importlib.import_module(fallback), name, None) if fallback else None
            stand_ins[name] = found or _stand_in(module, name)
        return stand_ins[name]

    return resolve


def _stand_in(module: str, name: str) -> type:
    def refuse(_self: Any, *_args: Any, **_kwargs: Any) -> None:
        raise TorchNotAvailableError(f"{module}.{name}", install=INSTALL)

    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": "A name that needs torch."})
