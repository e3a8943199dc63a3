"""What an import may load, proven in fresh processes: torch blocked, and heavy libraries left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = ("torch", "numba", "matplotlib", "gymnasium", "pettingzoo", "pyarrow", "onnxruntime", "tensorboardX")

# Refuses torch as if it were not installed, and says which modules of a package failed to import.
IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch")
        return None

sys.meta_path.insert(0, Blocked())
package = importlib.import_module(sys.argv[1])
imported, failed = [package.__name__], {}
def walk(path, prefix):
    for module in pkgutil.iter_modules(path, prefix):
        if module.name.endswith("__main__"):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = f"{type(error).__name__}: {error}"
            continue
        imported.append(module.name)
        if module.ispkg:
            walk(loaded.__path__, module.name + ".")
walk(package.__path__, package.__name__ + ".")
print(json.dumps({"imported": imported, "failed": failed, "torch": "torch" in sys.modules}))
"""


def run_python(code: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh process holds after ``statement``."""
    finished = run_python(f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert finished.returncode == 0, finished.stderr
    return {str(name).partition(".")[0] for name in json.loads(finished.stdout.splitlines()[-1])}


@pytest.mark.parametrize("package", ["townlet_training_core", "townlet_sim", "townlet"])
def test_every_module_imports_with_torch_blocked(package: str) -> None:
    # The optional extras of core are allowed to be missing only where a module says so lazily: all modules import.
    finished = run_python(IMPORT_ALL, package)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["failed"] == {}
    assert report["torch"] is False
    assert len(report["imported"]) > 5


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import townlet_training_core", HEAVY),
        ("from townlet_training_core import TrainingOrchestrator", HEAVY),
        ("import townlet_training_core.cli", HEAVY),
        ("import townlet_training_core.registry as r; [r.plugins(g) for g in r.Group]", HEAVY),
        ("import townlet_sim", HEAVY),
        ("import townlet", HEAVY),
        ("import townlet.policy, townlet.dto, townlet.config", HEAVY),
    ],
)
def test_importing_loads_no_heavy_library(statement: str, forbidden: tuple[str, ...]) -> None:
    assert loaded_after(statement) & set(forbidden) == set()


def test_the_importtime_trace_of_core_names_no_heavy_library() -> None:
    finished = run_python("import townlet_training_core", options=("-X", "importtime"))
    assert finished.returncode == 0, finished.stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines() if "|" in line}
    assert "townlet_training_core" in names
    assert names & set(HEAVY) == set()


@pytest.mark.skipif(find_spec("torch") is None, reason="the torch package is imported where torch is")
def test_every_module_of_the_torch_package_imports() -> None:
    code = IMPORT_ALL.replace("sys.meta_path.insert(0, Blocked())", "")
    finished = run_python(code, "townlet_training_torch")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1])["failed"] == {}


def test_the_blocker_really_hides_torch() -> None:
    code = IMPORT_ALL.replace("package = importlib.import_module(sys.argv[1])", "import torch")
    finished = run_python(code, "unused")
    assert finished.returncode == 1
    assert "ModuleNotFoundError: No module named 'torch'" in finished.stderr


def test_a_torch_strategy_without_torch_fails_before_any_work(tmp_path: Path) -> None:
    code = IMPORT_ALL.partition("package =")[0] + textwrap.dedent(
        """
        from townlet_training_core.cli import main
        sys.argv = ["townlet", "train", "ppo", "--runs-dir", sys.argv[1]]
        main()
        """
    )
    finished = run_python(code, str(tmp_path / "runs"))
    assert finished.returncode == 3, (finished.stdout, finished.stderr)
    assert "pip install townlet-training-torch" in finished.stderr + finished.stdout
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "runs").exists()
