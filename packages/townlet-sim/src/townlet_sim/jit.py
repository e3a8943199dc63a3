"""One typed decorator around numba, and where compiled kernels are kept.

Only modules of kernels import this one, and they are imported when a town is made, because importing numba
takes about a second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["cache_folder", "entry", "inlined", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")


def _sources_hash() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent
    # What kernels are made of; an edit elsewhere needs no compilation.
    modules = [here / f"{name}.py" for name in ("columns", "jit", "layout", "state")]
    for path in [*modules, *sorted((here / "rules").glob("*.py"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# Untyped on purpose: the published types know neither the settings nor every option of njit.
_SETTINGS: Any = numba.config
_NJIT: Any = numba.njit


def _base() -> Path:
    if _SETTINGS.CACHE_DIR:
        return Path(_SETTINGS.CACHE_DIR)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "townlet-sim"


_FOLDER = _base() / f"kernels-{_sources_hash()}"


def cache_folder() -> Path:
    """Return the folder of the compiled kernels; it is named by a hash of their sources.

    Numba notices a changed kernel, but not a changed callee in another file: the name of the folder does.
    """
    return _FOLDER


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers that only kernels call: serial, cached on disk.

    It cannot be called from Python: the code that unpacks Python arguments would be half of what is compiled.
    """
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel into each of its callers: for what every agent needs in every tick.

    A call hands over every array of the packed tuples, some hundred words; from a large caller LLVM would make one.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that Python calls; it runs without the interpreter lock."""
    return _compiled(function, nogil=True, no_cfunc_wrapper=True)


def _compiled(function: Callable[P, R], **options: bool) -> Callable[P, R]:
    before = _SETTINGS.CACHE_DIR
    _SETTINGS.CACHE_DIR = str(_FOLDER)
    try:
        compiled = _NJIT(cache=True, error_model="numpy", _nrt=False, **options)(function)
    finally:
        _SETTINGS.CACHE_DIR = before
    return cast("Callable[P, R]", compiled)
