"""What the documents claim: files exist, targets exist, examples parse, decisions are confirmed by something real."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from townlet_training_core.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "docs/adr").glob("*.md"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *RECORDS,
    *sorted((ROOT / "packages").glob("*/README.md")),
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, flags=re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_named_files_and_make_targets_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text)
    committed = ("packages/", "tests/", "docs/", "benchmarks/", "requirements/", "examples/", ".ci/", ".github/")
    paths = {one for one in code if one.startswith(committed) and not re.search(r"[*<{\s]", one)}
    generated = ("docs/_build", "docs/_generated")
    missing = {one for one in paths if not one.startswith(generated) and not (ROOT / one).exists()}
    links = {link for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)\)", text) if not (document.parent / link).exists()}
    commands = "\n".join([*code, *re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)])
    asked = set(re.findall(r"(?:^|\s)make ((?:[a-z][a-z-]* ?)+)", re.sub(r"#.*", "", commands)))
    unknown = {target for line in asked for target in line.split()} - targets()
    assert (missing, links, unknown) == (set(), set(), set())


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_a_decision_names_what_confirms_it(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    for heading in ("Context", "Decision", "Alternatives", "Consequences", "Confirmation"):
        assert f"\n## {heading}\n" in text, heading
    confirmation = text.partition("\n## Confirmation\n")[2]
    assert re.search(r"`(tests|packages)/[\w./-]+`", confirmation)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    named = set(re.findall(r"`((?:core|sim|torch)-[a-z-]+)`", confirmation))
    assert named <= {contract["id"] for contract in contracts}


def test_every_decision_is_listed_in_the_documentation() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [record.name for record in RECORDS if f"adr/{record.stem}" not in index] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_python_examples_parse_and_import_what_exists(document: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL):
        imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
        if any(name.startswith("townlet_training_torch") for name in names):
            pytest.importorskip("torch")
        exec(compile(ast.Module(body=list(imports), type_ignores=[]), document.name, "exec"), {})


def console_lines(document: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("townlet ")]


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if console_lines(one)], ids=name_of)
def test_command_lines_in_documents_are_understood(document: Path) -> None:
    for line in console_lines(document):
        words = shlex.split(line, comments=True)[1:]
        command: Any = typer.main.get_command(app)
        context = command.make_context("townlet", [], resilient_parsing=True)
        while hasattr(command, "get_command") and words:
            inner = command.get_command(context, words[0])
            assert inner is not None, f"{line!r}: no command {words[0]!r}"
            command, words = inner, words[1:]
            context = command.make_context(command.name, list(words), resilient_parsing=True)
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known, line
