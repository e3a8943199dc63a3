"""The one error tree of the library.

Everything that the library raises on purpose derives from :class:`TownletError`. Each class carries the exit
code of a command that ends with it, so that the command line needs no table of its own:
2 for bad input or usage, 3 for a missing optional part.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArtifactError",
    "CapabilityError",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "InterruptedRunError",
    "MissingDependencyError",
    "MissingFileError",
    "NonFiniteError",
    "PluginError",
    "RunDirectoryError",
    "SpaceMismatchError",
    "TorchNotAvailableError",
    "TownletError",
]


class TownletError(Exception):
    """Base of every error that the library raises on purpose."""

    exit_code: ClassVar[int] = 2


class ConfigurationError(TownletError, ValueError):
    """A configuration, flag or request is wrong; the message gives file, key path and what was expected."""


class DataError(TownletError, ValueError):
    """Replay data, a manifest or a log cannot be used; the message names the file and the array."""


class MissingFileError(DataError, FileNotFoundError):
    """A file of replay data or a manifest does not exist; the message names who asked for it."""


class NonFiniteError(DataError):
    """NaN or infinity where a number is needed; the message names dataset and batch."""


class SpaceMismatchError(TownletError, ValueError):
    """Observation arrays or action spaces of two parts do not fit one another."""


class CheckpointError(TownletError, ValueError):
    """A checkpoint is torn, tampered with, of another format or of another network."""


class ArtifactError(TownletError, ValueError):
    """A run, release or evaluation file on disk is corrupt or belongs to something else."""


class RunDirectoryError(TownletError, OSError):
    """A run directory cannot be made, locked or read."""


class CapabilityError(TownletError, TypeError):
    """A simulation or policy lacks an optional capability that was asked for (experts, saved state, ...)."""


class PluginError(TownletError, LookupError):
    """A named strategy, simulation or policy is unknown, defined twice, or fails to load."""


class InterruptedRunError(TownletError):
    """A run was asked to stop, saved its state and can be resumed; exit code 75 (EX_TEMPFAIL)."""

    exit_code: ClassVar[int] = 75


class MissingDependencyError(TownletError, ImportError):
    """An optional part is not installed.

    Parameters
    ----------
    what:
        The thing that was asked for, e.g. ``"simulation 'town'"``.
    install:
        The exact command that installs it.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, install: str) -> None:
        super().__init__(f"{what} needs a package that is not installed; install it with: {install}")
        self.install = install


class TorchNotAvailableError(MissingDependencyError, RuntimeError):
    """PyTorch (or the torch package) is asked for and not installed.

    Also a ``RuntimeError`` and an ``ImportError``, because callers of the predecessor catch it so. A real
    import error inside an installed torch is never turned into this one.
    """

    def __init__(self, what: str = "PyTorch", *, install: str = "pip install townlet-training-torch") -> None:
        super().__init__(what, install=install)
