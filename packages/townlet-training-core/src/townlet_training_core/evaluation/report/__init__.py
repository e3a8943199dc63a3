"""The report of runs: one HTML file that needs nothing else.

`gather` reads run directories, `charts` draws SVG, `page` writes the document.
"""

from townlet_training_core.evaluation.report.gather import RunRecord, gather, gather_folder
from townlet_training_core.evaluation.report.page import render, write_report

__all__ = ["RunRecord", "gather", "gather_folder", "render", "write_report"]
