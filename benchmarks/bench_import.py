"""What ``from townlet_training_core import TrainingOrchestrator`` costs, beside what any such library needs.

The peer is ``import numpy; from pydantic import BaseModel``. Fresh processes in alternation, medians; the time is
taken inside the process around the import, so that the interpreter's own start does not flatter the ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from _results import Report

OURS = "from townlet_training_core import TrainingOrchestrator"
PEER = "import numpy; from pydantic import BaseModel"
BOUND = 2.0


def seconds(statement: str) -> float:
    """Return the seconds that ``statement`` takes in a fresh process."""
    code = f"import time; start = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(finished.stdout)


def main(*, repeats: int = 15) -> None:
    """Measure and write ``results/import.json``."""
    for statement in (OURS, PEER):
        seconds(statement)  # byte code and disk cache are warm for both
    pairs = [(seconds(OURS), seconds(PEER)) for _ in range(repeats)]
    ours, peer = (1000.0 * statistics.median(column) for column in zip(*pairs, strict=True))
    report = Report("import", threads=1)
    report.add(
        "import.orchestrator",
        value=ours,
        unit="ms",
        peer=PEER,
        peer_value=peer,
        bound=BOUND,
        better="lower",
        note=f"medians of {repeats} fresh processes each, in alternation",
    )
    report.write()


if __name__ == "__main__":
    main()
