"""Sphinx extension: pages made from the code when the documentation is built, so that they cannot go stale.

It writes ``_generated/``: the configuration reference (from the pydantic models), the command line (from its own
help), the API pages (one per package), the benchmark tables and the profile (from ``benchmarks/results/*.json``).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx

from townlet_sim.tables import town_tables, write_map
from townlet_training_core.cli.app import app as command_line
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.config.requests import AnnealRequest, BCRequest, PPORequest
from townlet_training_core.registry import Group, load, plugins

__all__ = ["setup"]

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
API = {
    "townlet_training_core": "api-core",
    "townlet_training_torch": "api-torch",
    "townlet_sim": "api-sim",
}
# The command line has a page of its own, and the town's kernels are described by its rules.
LEFT_OUT = re.compile(r"\.(cli|rules|legacy\w*|_\w+|__main__)(\.|$)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the generator."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _escape_shapes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _escape_shapes(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Take the star of ``(S, *shape)`` for itself, not for the start of emphasis; tables keep their width."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"([(,]\s?)\*(?=\w)", "\\1\u2217", part) for part in parts[::2]]
        lines[number] = "`".join(parts)


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    pages = {
        "configuration": "".join(configuration()),
        "commands": "".join(commands()),
        "benchmarks": "".join(benchmarks()),
        "profile": "".join(profile()),
        "migration": "".join(migration()),
        "town": "".join(town_tables()),
        **{page: "".join(api(package)) for package, page in API.items()},
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    write_map(folder / "town-map.png")


# ------------------------------------------------------------------------------------------------ configuration


def configuration() -> Iterator[str]:
    """Yield the reference of every key of the configuration, of the requests and of the town's options."""
    yield "# Configuration\n\n"
    yield "A file is YAML; every key has a default, unknown keys are refused with their path. "
    yield "`--set key.path=value` overrides one key on any command, `townlet config show` prints what results.\n\n"
    yield from _model(TrainingConfig, path="", title="The file", level=2)
    yield "## Requests\n\nWhat a single run is asked beside the configuration: a flag of `townlet train`, or a keyword "
    yield "argument of `TrainingOrchestrator.run`.\n\n"
    requests: dict[str, type[BaseModel]] = {"bc": BCRequest, "ppo": PPORequest, "anneal": AnnealRequest}
    for name, request in requests.items():
        yield from _model(request, path="", title=f"`{name}`", level=3)
    town: Any = importlib.import_module("townlet_sim.config").TownConfig
    if _is_model(town):
        yield from _model(town, path="simulation.options", title="Options of the town", level=2)


def _model(model: type[BaseModel], *, path: str, title: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {title}\n\n"
    summary = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    if summary and not summary.startswith("!!!"):
        yield f"{_plain(summary)}\n\n"
    yield "| key | type | default | description |\n|---|---|---|---|\n"
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        inner = _inner_model(field.annotation)
        if inner is not None:
            nested.append((key if _is_model(field.annotation) else f"{key}[]", inner))
        yield f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(field.description or '')} |\n"
    yield "\n"
    for key, inner in nested:
        yield from _model(inner, path=key, title=f"`{key}`", level=min(level + 1, 4))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside ``Model``, ``tuple[Model, ...]`` or ``Model | None``."""
    if _is_model(annotation):
        return annotation  # type: ignore[no-any-return]  # checked by _is_model
    return next((found for part in get_args(annotation) if (found := _inner_model(part)) is not None), None)


def _type(field: FieldInfo) -> str:
    limits = []
    for constraint in field.metadata:
        for sign, attribute in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
            if (value := getattr(constraint, attribute, None)) is not None:
                limits.append(f"{sign} {value}")
    text = _annotation(field.annotation)
    return f"{text}, {', '.join(limits)}" if limits else text


def _annotation(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in {Union, types.UnionType}:
        return " or ".join("null" if part is type(None) else _annotation(part) for part in arguments)
    if origin is tuple:
        return f"list of {_annotation(arguments[0])}"
    if origin is dict or (origin is not None and "Mapping" in str(origin)):
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _annotation(arguments[0])
    if _is_model(annotation):
        return "section"
    if annotation is Path:
        return "path"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    return "null" if value is None else f"`{json.dumps(value, default=str)}`"


# ------------------------------------------------------------------------------------------------- command line


def commands() -> Iterator[str]:
    """Yield every command with its arguments and options."""
    yield "# Command line\n\n"
    yield "| exit code | meaning |\n|---|---|\n| 0 | done |\n| 1 | ran, and the verdict is negative |\n"
    yield "| 2 | bad input or usage |\n| 3 | an optional part is missing; the message names the install command |\n"
    yield "| 75 | interrupted, saved, resumable |\n\n"
    root: Any = typer.main.get_command(command_line)
    context = root.make_context("townlet", [], resilient_parsing=True)
    for name in root.list_commands(context):
        yield from _command(_found(root, context, name), f"townlet {name}", level=2)


def _found(root: Any, context: Any, name: str) -> Any:
    for plugin in plugins(Group.COMMANDS):
        if plugin.name == name:
            return typer.main.get_command(load(Group.COMMANDS, name))
    return root.get_command(context, name)


def _command(command: Any, name: str, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n\n"
    if command.help:
        yield f"{_plain(' '.join(command.help.split()))}\n\n"
    unsaid = {"help", "install_completion", "show_completion"}
    parameters = [one for one in command.params if one.name not in unsaid and not getattr(one, "hidden", False)]
    if parameters:
        yield "| parameter | default | description |\n|---|---|---|\n"
        for one in parameters:
            flags = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            label = flags if one.param_type_name == "option" else f"`{one.name.upper()}`"
            default = "" if one.default in (None, False) or callable(one.default) else f"`{one.default}`"
            yield f"| {label} | {'required' if one.required else default} | {_cell(one.help or '')} |\n"
        yield "\n"
    if command.epilog:
        examples = re.sub(r"^Examples?: ", "", " ".join(command.epilog.split())).split(" | ")
        yield "```console\n" + "\n".join(one.strip() for one in examples) + "\n```\n\n"
    context = command.make_context(name, [], resilient_parsing=True) if hasattr(command, "list_commands") else None
    for inner in command.list_commands(context) if context is not None else ():
        yield from _command(command.get_command(context, inner), f"{name} {inner}", level=min(level + 1, 4))


# ---------------------------------------------------------------------------------------------------------- API


def api(package: str) -> Iterator[str]:
    """Yield one page: every public module of a package, its package modules by their docstring alone."""
    yield f"# `{package}`\n\n"
    for name, is_package in _modules(package):
        if name != package:
            yield f"## `{name.removeprefix(package + '.')}`\n\n"
        # What a package re-exports is documented where it is defined.
        option = ":no-members:\n" if is_package else ""
        yield f"```{{eval-rst}}\n.. automodule:: {name}\n   {option}\n```\n\n"


def _modules(package: str) -> Iterator[tuple[str, bool]]:
    root = importlib.import_module(package)
    yield package, True
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not LEFT_OUT.search(module.name):
            yield module.name, module.ispkg


# ---------------------------------------------------------------------------------------------------- migration


def migration() -> Iterator[str]:
    """Yield the table of the façade's names and where each of them is defined."""
    yield "| old name | now | |\n|---|---|---|\n"
    root = importlib.import_module("townlet")
    for module in sorted(pkgutil.walk_packages(root.__path__, "townlet."), key=lambda found: found.name):
        if LEFT_OUT.search(module.name) or module.name.startswith("townlet.scripts"):
            continue
        old = importlib.import_module(module.name)
        for name in getattr(old, "__all__", ()):
            home = str(getattr(getattr(old, name), "__module__", ""))
            if not home.startswith("townlet"):
                yield f"| `{module.name}.{name}` | | constant |\n"
            elif home.startswith("townlet."):
                yield f"| `{module.name}.{name}` | `{home}` | adapter |\n"
            else:
                yield f"| `{module.name}.{name}` | `{home}` | same |\n"


# --------------------------------------------------------------------------------------------------- benchmarks


def benchmarks() -> Iterator[str]:
    """Yield a table for every result file."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        yield "No results are committed yet; `make bench` writes them.\n"
    for path in files:
        report = json.loads(path.read_text(encoding="utf-8"))
        machine, versions = report["machine"], report["versions"]
        yield f"## {report['name'].capitalize()}\n\n"
        yield f"{machine['processor']}, {machine['cores']} cores, {report['threads']} threads, "
        yield f"{', '.join(f'{name} {version}' for name, version in versions.items())}; {report['measured'][:10]}.\n\n"
        for peer, found in report.get("peers", {}).items():
            yield f"- {_cell(peer)}: {', '.join(f'{name} {version}' for name, version in found.items())}\n"
        yield "\n| what | value | peer | ratio | bound | |\n|---|---|---|---|---|---|\n"
        for entry in report["entries"]:
            peer = f"{_cell(entry['peer'])}: {entry['peer_value']:,.4g}" if entry.get("peer_value") is not None else ""
            ratio = f"{entry['ratio']:.3g}" if entry.get("ratio") is not None else ""
            bound = f"{entry['bound']:,.4g}" if entry.get("bound") is not None else ""
            verdict = {True: "holds", False: "**does not hold**"}.get(entry.get("holds"), "")
            value = f"{entry['value']:,.4g} {_cell(entry['unit'])}"
            yield f"| `{entry['name']}` | {value} | {peer} | {ratio} | {bound} | {verdict} |\n"
        notes = [f"- `{entry['name']}`: {entry['note']}\n" for entry in report["entries"] if entry.get("note")]
        yield "\n" + ("".join(notes) + "\n" if notes else "")


def profile() -> Iterator[str]:
    """Yield where the time of an iteration goes, the limits beside it, and what ``townlet doctor --tune`` found."""
    measured = RESULTS / "profile.json"
    if measured.exists():
        report = json.loads(measured.read_text(encoding="utf-8"))
        entries = {entry["name"]: entry for entry in report["entries"]}
        yield f"Measured on {_where(report)}, {report['threads']} threads, {report['measured'][:10]}. "
        yield f"An iteration takes {entries['iteration']['value']:.3g} s: {entries['iteration']['note']}.\n\n"
        yield "| part | share | time |\n|---|---|---|\n"
        for name, entry in entries.items():
            if name.startswith("part."):
                yield f"| {name.removeprefix('part.')} | {entry['value']:.1f} % | {entry['note']} |\n"
        yield "\n| what | reached | beside | share | |\n|---|---|---|---|---|\n"
        for name, entry in entries.items():
            if entry.get("peer") is not None:
                limit = f"{_cell(entry['peer'])}: {entry['peer_value']:,.4g}"
                reached, note = f"{entry['value']:,.4g} {_cell(entry['unit'])}", _cell(entry["note"] or "")
                yield f"| `{name}` | {reached} | {limit} | {entry['ratio']:.2f} | {note} |\n"
        yield "\n"
    else:
        yield "No profile is committed yet; `make bench-profile` writes it.\n\n"
    tuned = RESULTS / "tune.json"
    if tuned.exists():
        report = json.loads(tuned.read_text(encoding="utf-8"))
        yield f"What `townlet doctor --tune` found on {_where(report)}:\n\n"
        yield "| towns (B), steps (T), threads | agent-steps/s, all passes | |\n|---|---|---|\n"
        for entry in report["entries"]:
            label = entry["name"].replace("_", " ").replace(".", ", ")
            yield f"| {label} | {entry['value']:,.0f} | {_cell(entry['note'] or '')} |\n"
        yield "\n"


def _where(report: dict[str, Any]) -> str:
    return f"{report['machine']['processor']}, {report['machine']['cores']} cores"


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Turn reST roles and double backquotes into Markdown code."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`").replace("<", "&lt;").replace("*", "\\*")
