"""Write requirements/core.txt, all.txt and torch.txt from the lock: ``make requirements``.

The lock itself is not committed, because it records the package index of whoever made it. These files name none: pins
with hashes, for installs that are audited. Torch stands without a hash in a file of its own, since its build (CPU,
CUDA) differs by site, and pip refuses to mix lines with and without hashes; what only its CUDA build needs comes
with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
OF_THE_TORCH_BUILD = re.compile(r"(torch|triton|cuda|nvidia)\b")

HEADERS = {
    "core.txt": "pip install --require-hashes -r requirements/core.txt",
    "all.txt": "pip install -r requirements/torch.txt && pip install --require-hashes -r requirements/all.txt",
}


def exported(uv: str, *arguments: str) -> str:
    """Return pins with hashes as uv exports them, without those that belong to one build of torch."""
    finished = subprocess.run(
        [uv, "export", "-q", "--frozen", "--no-header", "--no-annotate", "--no-emit-workspace", "--no-dev", *arguments],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    blocks = re.split(r"\n(?=\S)", finished.stdout.strip())
    return "\n".join(block for block in blocks if not OF_THE_TORCH_BUILD.match(block)) + "\n"


def main(uv: str) -> None:
    """Write the three files."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    pins = {
        "core.txt": exported(uv, "--package", "townlet-training-core"),
        "all.txt": exported(uv, "--all-packages", "--all-extras"),
    }
    for name, text in pins.items():
        header = (
            f"# Made by `make requirements` from the pins of {settings['exclude-newer'][:10]}; without our packages.\n"
        )
        (HERE / name).write_text(f"{header}# {HEADERS[name]}\n{text}", encoding="utf-8")
    torch = next(line for line in settings["constraint-dependencies"] if line.startswith("torch=="))
    (HERE / "torch.txt").write_text(f"{torch}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
