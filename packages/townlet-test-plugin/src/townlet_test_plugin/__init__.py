"""A third party's strategy and simulation: what the plug-in path is tested with.

Nothing here is imported by the project; everything is found through entry points.
"""

from townlet_test_plugin._version import __version__
from townlet_test_plugin.corridor import make_corridor
from townlet_test_plugin.counting import CountingStrategy

__all__ = ["CountingStrategy", "__version__", "make_corridor"]
