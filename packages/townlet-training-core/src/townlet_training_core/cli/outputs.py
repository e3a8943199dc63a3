"""Outputs, looked at before the work: an hour of play must not end at a path that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from townlet_training_core.errors import ConfigurationError

__all__ = ["require_file", "require_folder", "require_picture"]

_PICTURES = (".png", ".svg", ".pdf")


def require_file(path: Path | None, option: str) -> None:
    """Check that a file can be written there; its folder may still have to be made.

    Raises
    ------
    ConfigurationError
        Naming the option and what stands in the way. Nothing is made.
    """
    if path is None:
        return
    if path.is_dir():
        msg = f"{option} {str(path)!r} is a folder; name a file"
        raise ConfigurationError(msg)
    require_folder(path.parent, option)


def require_folder(path: Path | None, option: str) -> None:
    """Check that files can be written into a folder, which may have to be made; raises as :func:`require_file`."""
    if path is None:
        return
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        msg = f"{option}: {str(nearest)!r} is a file, not a folder"
        raise ConfigurationError(msg)
    if not os.access(nearest, os.W_OK | os.X_OK):
        msg = f"{option}: folder {str(nearest)!r} cannot be written"
        raise ConfigurationError(msg)


def require_picture(path: Path | None, option: str = "--plot") -> None:
    """Check that a picture can be drawn there, and make its folder.

    Raises
    ------
    ConfigurationError
        When the path cannot be written, or its suffix is no picture's.
    MissingDependencyError
        When matplotlib is not installed.
    """
    if path is None:
        return
    require_file(path, option)
    if path.suffix.lower() not in _PICTURES:
        msg = f"{option} {str(path)!r}: expected a name that ends with {' or '.join(_PICTURES)}"
        raise ConfigurationError(msg)
    from townlet_training_core.cli.evaluate import require_plots

    require_plots()
    path.parent.mkdir(parents=True, exist_ok=True)
