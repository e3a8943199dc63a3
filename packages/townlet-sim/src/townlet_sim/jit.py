"""One typed decorator around numba, and where compiled kernels are kept.

Only modules of kernels import this one, and they are imported when a town is made, because importing numba
takes about a second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba
import numba.core.config

__all__ = ["cache_folder", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _base() -> Path:
    if numba.core.config.CACHE_DIR:
        return Path(numba.core.config.CACHE_DIR)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "townlet-sim"


_FOLDER = _base() / f"kernels-{_sources_hash()}"


def cache_folder() -> Path:
    """Return the folder of the compiled kernels; it is named by a hash of their sources.

    Numba notices a changed kernel, but not a changed callee in another file: the name of the folder does.
    """
    return _FOLDER


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that takes arrays and numbers: serial, without the interpreter lock, cached on disk."""
    before = numba.core.config.CACHE_DIR
    numba.core.config.CACHE_DIR = str(_FOLDER)
    try:
        compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        numba.core.config.CACHE_DIR = before
    return cast("Callable[P, R]", compiled)
