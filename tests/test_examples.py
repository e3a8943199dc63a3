"""The examples and the README's own example run as they stand, in a process and a folder of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, cwd: Path) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.parametrize("name", ["own_policy", "own_strategy"])
def test_an_example_without_torch_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    assert re.search(r"\d", run(str(ROOT / f"examples/{name}.py"), cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_own_policy_beats_random_play(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    lines = run(str(ROOT / "examples/own_policy.py"), cwd=tmp_path).splitlines()
    low = float(lines[-1].rpartition("[")[2].partition(",")[0])
    assert low > 0.0


def test_the_cartpole_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert "->" in run(str(ROOT / "examples/cartpole.py"), "2", cwd=tmp_path)


def test_every_example_is_described() -> None:
    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted((ROOT / "examples").glob("*.py")) if f"`{path.name}`" not in text] == []


def test_the_readme_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    run("-c", block, cwd=tmp_path)
    assert (tmp_path / "runs").is_dir()
