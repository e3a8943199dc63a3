"""Configuration of the documentation; warnings are errors (``make docs``)."""

from __future__ import annotations

import sys
from pathlib import Path

from townlet_training_core import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "Townlet training"
author = "The Townlet authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generate"]
# Generated pages that others include are no pages of their own.
_included = ("configuration", "commands", "benchmarks", "migration", "town")
exclude_patterns = ["_build", *(f"_generated/{name}.md" for name in _included)]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, model_post_init, __init__, __new__",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Townlet training"
html_show_sphinx = False
