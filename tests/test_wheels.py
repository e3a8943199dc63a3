"""The published metadata is true: wheels work in fresh environments, outside the checkout, with nothing of it.

Long (it builds and installs), so it is marked ``deep``; ``make wheels`` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.deep

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ("townlet_training_core", "townlet_training_torch", "townlet_sim", "townlet")


def uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    if not Path(found).exists():
        pytest.skip("uv is not here; `make wheels` makes it")
    return found


def run(*command: str | Path, cwd: Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    # Nothing of the checkout's environment may leak in; the site's own settings (proxies, find-links) may.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_", "COV"))}
    environment.pop("UV_PROJECT_ENVIRONMENT", None)
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if code is not None:
        assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheels, or take those of ``make wheels``; by module name."""
    if given := os.environ.get("TOWNLET_DIST"):
        folder = (ROOT / given).resolve()
    else:
        folder = tmp_path_factory.mktemp("dist")
        run(uv(), "build", "-q", "--all-packages", "--no-sources", "--out-dir", folder, cwd=ROOT)
    return {wheel.name.partition("-")[0]: wheel for wheel in sorted(folder.glob("*.whl"))}


class Environment:
    """A fresh virtual environment outside the checkout."""

    def __init__(self, folder: Path, *, wheels: list[str]) -> None:
        self.folder = folder
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(settings["constraint-dependencies"]) + "\n", encoding="utf-8")
        run(uv(), "venv", "-q", "--no-project", "--python", "3.11", folder / "env", cwd=folder)
        self.install(*wheels, "--constraint", str(constraints), "--exclude-newer", settings["exclude-newer"])

    def install(self, *arguments: str) -> None:
        python = self.folder / "env/bin/python"
        run(uv(), "pip", "install", "-q", "--no-config", "--python", python, *arguments, cwd=self.folder)

    def python(self, code: str) -> str:
        return run(self.folder / "env/bin/python", "-I", "-c", code, cwd=self.folder).stdout.strip()

    def townlet(self, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
        return run(self.folder / "env/bin/townlet", *arguments, cwd=self.folder, code=code)

    def distributions(self) -> set[str]:
        listed = self.python(
            "import json; from importlib.metadata import distributions as d;"
            "print(json.dumps(sorted(x.metadata['Name'].lower() for x in d())))"
        )
        return set(json.loads(listed))


@pytest.fixture(scope="module")
def core_alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("core-alone"), wheels=[str(wheels["townlet_training_core"])])


@pytest.fixture(scope="module")
def everything(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    names = [str(wheels[name]) for name in PUBLISHED]
    return Environment(tmp_path_factory.mktemp("everything"), wheels=names)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_wheel_holds_its_package_its_types_and_no_tests(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        files = archive.namelist()
    assert f"{name}/py.typed" in files
    assert f"{name}/__init__.py" in files
    assert [file for file in files if "tests/" in file or file.endswith((".pyc", ".nbi", ".nbc"))] == []
    assert {file.partition("/")[0].partition("-")[0] for file in files} == {name}


def test_core_alone_brings_no_heavy_library(core_alone: Environment) -> None:
    heavy = {"torch", "numba", "matplotlib", "gymnasium", "pettingzoo", "pyarrow", "townlet-sim", "scipy", "pandas"}
    assert core_alone.distributions() & heavy == set()
    assert core_alone.python("import townlet_training_core as t; print(t.__version__)")


def test_core_alone_inspects_replay_data(core_alone: Environment) -> None:
    core_alone.python(SAMPLE)
    finished = core_alone.townlet("replay", "inspect", "sample.npz", code=0)
    assert "actions" in finished.stdout


# Written with numpy alone: the array names are the format.
SAMPLE = """
import json
import numpy as np
steps = 6
np.savez(
    "sample.npz",
    map=np.zeros((steps, 4, 11, 11), np.float32), features=np.zeros((steps, 3), np.float32),
    actions=np.arange(steps) % 2, old_log_probs=np.full(steps, -0.7, np.float32),
    value_preds=np.zeros(steps + 1, np.float32), rewards=np.ones(steps, np.float32), dones=np.zeros(steps, bool),
)
names = ["rivalry_max", "rivalry_avoid_count", "hunger"]
open("sample.json", "w").write(json.dumps({"feature_names": names, "action_dim": 2}))
"""


@pytest.mark.parametrize(
    ("arguments", "install"),
    [
        (("capture", "--simulation", "town"), "pip install townlet-sim"),
        (("train", "ppo"), "pip install townlet-training-torch"),
        (("train", "anneal"), "pip install townlet-training-torch"),
    ],
)
def test_core_alone_names_the_package_to_install(
    core_alone: Environment, arguments: tuple[str, ...], install: str
) -> None:
    finished = core_alone.townlet(*arguments, code=3)
    assert install in finished.stderr + finished.stdout
    assert "Traceback" not in finished.stderr


def test_core_alone_reports_what_is_missing(core_alone: Environment) -> None:
    finished = core_alone.townlet("doctor", code=0)
    assert "townlet-sim" in finished.stdout
    assert "townlet-training-torch" in finished.stdout


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_package_imports_from_its_wheel(everything: Environment, name: str) -> None:
    place = everything.python(f"import {name}; print({name}.__file__)")
    assert Path(place).is_relative_to(everything.folder)


def test_the_installed_whole_captures_and_evaluates(everything: Environment) -> None:
    everything.townlet("capture", "--policy", "scripted", "--ticks", "32", "--output", "captured", code=0)
    assert any((everything.folder / "captured").iterdir())
    everything.townlet("evaluate", "--policy", "random", "--set", "evaluation.episodes=2", code=0)
