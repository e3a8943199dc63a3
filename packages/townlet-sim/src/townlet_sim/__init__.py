"""townlet_sim."""

from townlet_sim._version import __version__

__all__ = ["__version__"]
