"""Hold the branch coverage of core and the torch package to its floor, after a run of ``pytest --cov``.

``coverage report --fail-under`` mixes statements and branches into one percentage; the promise is about branches.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import coverage

__all__ = ["main"]

FLOOR = 90.0
PACKAGES = ("townlet_training_core", "townlet_training_torch")


def main() -> int:
    """Print the branch coverage of each package and return 1 when one is below the floor."""
    measured = coverage.Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    failed = False
    for package in PACKAGES:
        mark = f"/src/{package}/"
        summaries = {
            name.partition(mark)[2]: entry["summary"]
            for path, entry in files.items()
            if mark in (name := path.replace("\\", "/"))
        }
        total = sum(summary["num_branches"] for summary in summaries.values())
        covered = sum(summary["covered_branches"] for summary in summaries.values())
        percent = 100.0 * covered / total if total else 0.0
        failed |= percent < FLOOR
        missed = sorted(summaries, key=lambda name: -summaries[name]["missing_branches"])[:5]
        worst = ", ".join(f"{name} {summaries[name]['missing_branches']}" for name in missed)
        sys.stdout.write(
            f"branch coverage of {package}: {percent:.1f} % of {total} "
            f"({'holds' if percent >= FLOOR else 'BELOW'} the floor of {FLOOR:.0f} %); most missed: {worst or 'none'}\n"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
