"""Hold the branch coverage of core and the torch package to its floor, after a run of ``pytest --cov``.

``coverage report --fail-under`` mixes statements and branches into one percentage; the promise is about branches.
"""

from __future__ import annotations

import sys

import coverage

__all__ = ["branches", "main"]

FLOOR = 90.0
PACKAGES = ("townlet_training_core", "townlet_training_torch")


def branches(data: coverage.Coverage, package: str) -> tuple[int, int, list[tuple[int, str]]]:
    """Return the covered and all branches of a package, and its files in order of branches missed."""
    covered = total = 0
    missed: list[tuple[int, str]] = []
    for file in sorted(data.get_data().measured_files()):
        if f"/src/{package}/" not in file.replace("\\", "/"):
            continue
        numbers = data._analyze(file).numbers
        covered += numbers.n_executed_branches
        total += numbers.n_branches
        if numbers.n_missing_branches:
            missed.append((numbers.n_missing_branches, file.rpartition(f"/src/{package}/")[2]))
    return covered, total, sorted(missed, reverse=True)


def main() -> int:
    """Print the branch coverage of each package and return 1 when one is below the floor."""
    data = coverage.Coverage()
    data.load()
    failed = False
    for package in PACKAGES:
        covered, total, missed = branches(data, package)
        percent = 100.0 * covered / total if total else 0.0
        failed |= percent < FLOOR
        verdict = "holds" if percent >= FLOOR else "BELOW THE FLOOR"
        worst = ", ".join(f"{name} {count}" for count, name in missed[:5])
        sys.stdout.write(
            f"branch coverage {package}: {percent:.1f} % of {total} (floor {FLOOR:.0f} %): {verdict}"
            f"{'; most missed: ' + worst if worst else ''}\n"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
