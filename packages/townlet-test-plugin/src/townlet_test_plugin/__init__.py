"""townlet_test_plugin."""

from townlet_test_plugin._version import __version__

__all__ = ["__version__"]
