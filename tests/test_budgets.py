"""Budgets and bans that hold for every committed file of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORCH = "packages/townlet-training-torch/src/townlet_training_torch"
CORE = "packages/townlet-training-core/src/townlet_training_core"


def committed() -> list[Path]:
    """Return the files that git would commit: tracked ones, and new ones that are not ignored."""
    finished = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in finished.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in committed():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and arrays


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("file", "below"),
    [
        (f"{CORE}/orchestrator.py", 150),
        (f"{TORCH}/bc.py", 100),
        (f"{TORCH}/ppo.py", 200),
        (f"{TORCH}/anneal.py", 150),
    ],
)
def test_the_readable_files_stay_within_their_budget(file: str, below: int) -> None:
    assert len((ROOT / file).read_bytes().splitlines()) < below


def test_no_python_file_is_longer_than_600_lines() -> None:
    lengths = {relative(path): len(path.read_bytes().splitlines()) for path in committed() if path.suffix == ".py"}
    assert {name: count for name, count in lengths.items() if count > 600} == {}


def test_the_facade_stays_thin() -> None:
    folder = ROOT / "packages/townlet/src"
    assert sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.py")) < 2500


def test_no_committed_file_names_a_package_index() -> None:
    # Put together from parts, so that this file does not contain what it looks for.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("python" + "hosted", "org"), ("pytorch", "org/whl"))]
    found = {relative(path): host for path, text in texts() for host in hosts if host in text}
    assert found == {}


def test_no_committed_file_names_a_folder_of_one_machine() -> None:
    places = "|".join(("home/[a-z]", "root/", "opt/" + "[a-z]", "work/" + "[a-z]", "Users/"))
    pattern = re.compile(rf"(?<![\w.)\]}}*~-])/(?:{places})")
    found = {relative(path): match.group() for path, text in texts() if (match := pattern.search(text))}
    assert found == {}


def test_the_lock_and_products_are_not_tracked() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = tracked.splitlines()
    assert "uv.lock" not in names
    assert [name for name in names if name.startswith((".venv", "dist/", "runs/", "docs/_"))] == []


def package_sources() -> list[Path]:
    return [path for path in committed() if path.suffix == ".py" and "/src/" in path.as_posix()]


def test_no_package_unpickles_or_evaluates_text() -> None:
    found: list[str] = []
    for path in package_sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                banned = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
                found += [f"{relative(path)}:{node.lineno} imports {name}" for name in modules if name in banned]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                found.append(f"{relative(path)}:{node.lineno} calls {node.func.id}")
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    found.append(f"{relative(path)}:{node.lineno} allows pickle")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "torch.save"}:
                found.append(f"{relative(path)}:{node.lineno} calls {ast.unparse(node.func)}")
    assert found == []


def test_no_package_silences_a_checker_wholesale() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*noqa(?!:)|#\s*(?:ruff|flake8):\s*noqa|#\s*mypy:\s*ignore-errors")
    sources = (path for path in committed() if path.suffix == ".py" and path != Path(__file__).resolve())
    found = [
        f"{relative(path)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if bare.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("manifest", sorted((ROOT / "packages").glob("*/pyproject.toml")), ids=lambda p: p.parent.name)
def test_a_package_is_complete_and_ranges_its_siblings(manifest: Path) -> None:
    folder, project = manifest.parent, tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
    module = folder / "src" / project["name"].replace("-", "_")
    assert all((folder / name).is_file() for name in ("README.md", "CHANGELOG.md"))
    assert (module / "py.typed").is_file()
    assert (module / "_version.py").is_file()
    optional = project.get("optional-dependencies", {})
    for requirement in [*project.get("dependencies", []), *(one for group in optional.values() for one in group)]:
        if requirement.startswith("townlet"):
            assert re.fullmatch(r"[a-z-]+(\[[a-z,]+\])?>=\d+\.\d+,<\d+\.\d+", requirement), requirement


def test_only_the_torch_package_depends_on_torch() -> None:
    for manifest in (ROOT / "packages").glob("*/pyproject.toml"):
        project = tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
        names = {re.split(r"[\s<>=!~\[;]", requirement)[0] for requirement in project.get("dependencies", [])}
        assert ("torch" in names) == (project["name"] == "townlet-training-torch")


def test_the_exported_requirements_are_those_of_the_pins() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    exported = {name: (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8") for name in ("core", "all")}
    for text in exported.values():
        assert f"pins of {settings['exclude-newer'][:10]}" in text, "run `make requirements`"
        assert not re.search(r"^torch\b", text, flags=re.MULTILINE)
    assert (ROOT / "requirements/torch.txt").read_text(encoding="utf-8").strip() in settings["constraint-dependencies"]
    for folder, name in (("townlet-training-core", "core"), ("townlet-sim", "all")):
        manifest = tomllib.loads((ROOT / f"packages/{folder}/pyproject.toml").read_text(encoding="utf-8"))
        for requirement in manifest["project"]["dependencies"]:
            wanted = re.split(r"[\s<>=!~\[;]", requirement)[0].lower()
            pinned = rf"^{re.escape(wanted)}==[^\n]*(?:\\\n\s+--hash=sha256:[0-9a-f]{{64}})+"
            assert re.search(pinned, exported[name], flags=re.MULTILINE), f"{wanted}: run `make requirements`"
