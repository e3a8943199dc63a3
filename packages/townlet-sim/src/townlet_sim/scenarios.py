"""Scenarios: small towns with a story, read from YAML.

A file is an overlay of options and a section ``scenario``::

    town: {needs: {hunger_decay: 0.0}}     # fields of TownConfig
    scenario:
      description: two agents, one shower
      ticks: 80
      map: ["......", "..##..", ...]         # optional; '#' is a wall
      objects: [{id: shower_1, type: shower, position: [4, 3]}]
      agents:
        - {id: alice, position: [4, 4], needs: {hygiene: 0.1}, wallet: 2.0, job: grocer,
           schedule: [{kind: start, object: shower_1}, {kind: wait}]}
      timeline: [{tick: 40, kind: console, name: set_need, kwargs: {agent_id: alice, need: hunger, value: 0.2}}]

Positions are (column, row). Files of the predecessor load too: its sections (``rewards``, ``economy``, ``jobs``, ...)
are translated, and keys that nobody knows are kept under ``extra``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from townlet_sim import predecessor
from townlet_sim.config import PROFILES, Profile, TownConfig
from townlet_sim.spaces import ACTIONS, OBJECT_TYPES

__all__ = [
    "OBJECT_ALIASES",
    "Intent",
    "Scenario",
    "ScenarioAgent",
    "ScenarioObject",
    "ScenarioTie",
    "TimelineEntry",
    "floor",
    "load_scenario",
    "scenario_names",
]

OBJECT_ALIASES = {"checkout": "workplace", "stall": "workplace", "sink": "shower"}
"""The predecessor's names of object types."""
_FURNITURE = ("bench", "counter")
_PREDECESSOR = {
    "affordances": dict,
    "behavior": dict,
    "config_id": str,
    "conflict": dict,
    "console_auth": dict,
    "curiosity": dict,
    "economy": dict,
    "embedding_allocator": dict,
    "employment": dict,
    "features": dict,
    "jobs": dict,
    "lifecycle": dict,
    "observations_config": dict,
    "personalities": dict,
    "perturbations": dict,
    "policy_runtime": dict,
    "ppo": dict,
    "queue_fairness": dict,
    "rewards": dict,
    "runtime": dict,
    "shaping": dict,
    "snapshot": dict,
    "stability": dict,
    "telemetry": dict,
    "training": dict,
    "world": dict,
}
"""Sections of the predecessor's files, and what they must be."""


def _known_type(value: Any) -> Any:
    name = OBJECT_ALIASES.get(value, value) if isinstance(value, str) else value
    if name not in (*OBJECT_TYPES, *_FURNITURE):
        msg = f"{value!r} is no object type; expected one of {[*OBJECT_TYPES, *OBJECT_ALIASES, *_FURNITURE]}"
        raise ValueError(msg)
    return name


def _position(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Position = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], BeforeValidator(_position)]
"""(column, row)."""
Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    """A part of a scenario; keys without a field are kept in ``extra``."""

    model_config = ConfigDict(frozen=True, validate_default=True)

    extra: dict[str, Any] = Field(default_factory=dict, description="Keys that have no meaning here, as they were.")

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        names = set(cls.model_fields) - {"extra"}
        if "arguments" in names and "kwargs" in data:  # its name in files
            data = {"arguments" if key == "kwargs" else key: value for key, value in data.items()}
        unknown = {key: value for key, value in data.items() if key not in names}
        kept = unknown.pop("extra", {})
        known = {key: value for key, value in data.items() if key in names}
        return {**known, "extra": {**(kept if isinstance(kept, Mapping) else {"extra": kept}), **unknown}}


class ScenarioObject(_Part):
    """An object on its tile. Furniture (bench, counter) only stands in the way."""

    id: str = Field(min_length=1)
    type: Annotated[str, BeforeValidator(_known_type)]
    position: Position


_KINDS = ("move", "request", "start", "release", "wait", "noop", "blocked", *(action.name for action in ACTIONS))


def _known_kind(value: Any) -> Any:
    if value not in _KINDS:
        msg = f"{value!r} is no kind of intent; expected one of {sorted(set(_KINDS))}"
        raise ValueError(msg)
    return value


class Intent(_Part):
    """One entry of a schedule.

    ``move`` walks to ``position``; ``request`` walks to ``object`` and takes it or joins its queue; ``start`` does the
    same and stays until the use is over; ``release`` leaves it; ``wait`` (``noop``, ``blocked``) lets ``ticks`` pass;
    the name of an action asks for that action, for ``ticks`` ticks.
    """

    kind: Annotated[str, BeforeValidator(_known_kind)]
    object: str | None = None
    affordance: Literal["use_shower", "eat_meal", "cook_meal", "rest_sleep", "work_shift"] | None = None
    position: Position | None = None
    blocked: bool = False
    ticks: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Intent:
        if self.kind == "move" and self.position is None:
            msg = "an intent of kind 'move' needs a position"
            raise ValueError(msg)
        if self.kind in {"request", "start"} and self.object is None:
            msg = f"an intent of kind {self.kind!r} needs an object"
            raise ValueError(msg)
        return self


class ScenarioTie(_Part):
    """What an agent feels for another at the beginning."""

    other: str
    trust: float = Field(0.0, ge=-1.0, le=1.0)
    familiarity: float = Field(0.0, ge=-1.0, le=1.0)
    rivalry: Unit = 0.0


class _Needs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    hunger: Unit | None = None
    hygiene: Unit | None = None
    energy: Unit | None = None


class ScenarioAgent(_Part):
    """An agent; what is not given is drawn as in any town."""

    id: str = Field(min_length=1)
    position: Position | None = None
    needs: _Needs = _Needs()
    wallet: float | None = Field(None, ge=0.0)
    job: str | None = None
    profile: Profile | None = None
    ties: tuple[ScenarioTie, ...] = ()
    schedule: tuple[Intent, ...] = ()


class TimelineEntry(_Part):
    """Something that happens when the town reaches ``tick``."""

    tick: int = Field(ge=0)
    kind: Literal["action", "console"] = "console"
    name: Literal["force_chat", "set_need", "spawn_agent", "perturbation_trigger", "employment_exit"]
    arguments: dict[str, Any] = Field(default_factory=dict)


class Scenario(_Part):
    """A scenario, checked: names that it uses exist."""

    name: str = Field(min_length=1)
    description: str = ""
    ticks: int = Field(100, ge=1)
    map: tuple[str, ...] | None = None
    objects: tuple[ScenarioObject, ...] = ()
    agents: tuple[ScenarioAgent, ...] = Field(min_length=1)
    timeline: tuple[TimelineEntry, ...] = ()
    config: TownConfig
    """Options of the town, with the file's overlay applied; ``agents`` counts arrivals too."""

    @property
    def slots(self) -> dict[str, int]:
        """Slot by agent id, those that arrive later included."""
        ids = [agent.id for agent in self.agents]
        ids += [str(entry.arguments["agent_id"]) for entry in self.timeline if entry.name == "spawn_agent"]
        return {name: slot for slot, name in enumerate(dict.fromkeys(ids))}


def scenario_names() -> tuple[str, ...]:
    """Return the names of the packaged scenarios."""
    folder = resources.files("townlet_sim") / "scenario_files"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_scenario(
    source: str | Path | Mapping[str, Any], *, options: Mapping[str, Any] | None = None, name: str = "scenario"
) -> Scenario:
    """Read a scenario.

    Parameters
    ----------
    source:
        Name of a packaged scenario, path of a YAML file, or what such a file holds.
    options:
        Fields of :class:`~townlet_sim.config.TownConfig` that override the file's.
    name:
        Name of a scenario that is given as a mapping.

    Raises
    ------
    FileNotFoundError
        When ``source`` is neither a packaged name nor a file.
    ValueError
        When something in it is wrong; the message gives source and key path.
    """
    if isinstance(source, Mapping):
        return _build(source, options or {}, name=name, where=f"scenario {name!r}")
    text, where = _read(source)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{where}: not YAML: {error}"
        raise ValueError(msg) from error
    if not isinstance(data, Mapping):
        msg = f"{where}: expected a mapping with the key 'scenario', found {type(data).__name__}"
        raise ValueError(msg)
    return _build(data, options or {}, name=Path(source).stem, where=where)


def _read(source: str | Path) -> tuple[str, str]:
    names = scenario_names()
    if str(source) in names:
        file = resources.files("townlet_sim") / "scenario_files" / f"{source}.yaml"
        return file.read_text(encoding="utf-8"), f"scenario {str(source)!r}"
    path = Path(source)
    if not path.is_file():
        msg = f"scenario {str(source)!r}: neither a file nor one of {', '.join(names)}"
        raise FileNotFoundError(msg)
    return path.read_text(encoding="utf-8"), str(path)


def _build(data: Mapping[str, Any], options: Mapping[str, Any], *, name: str, where: str) -> Scenario:
    section = data.get("scenario")
    if not isinstance(section, Mapping):
        msg = f"{where}: scenario: expected a mapping, found {section!r}"
        raise ValueError(msg)
    for key, expected in _PREDECESSOR.items():
        if data.get(key) is not None and not isinstance(data[key], expected):
            msg = f"{where}: {key}: expected a {expected.__name__}, found {data[key]!r}"
            raise ValueError(msg)
    known = {"scenario", "town", "seed", *_PREDECESSOR}
    extra = {key: value for key, value in data.items() if key not in known}
    parts = {key: value for key, value in section.items() if key not in {"config", "name"}}
    parts["extra"] = {**extra, **parts.get("extra", {})}
    try:
        first = Scenario.model_validate({**parts, "name": name, "config": TownConfig()})
    except ValidationError as error:
        raise ValueError(_explain(error, where, "scenario")) from error
    config = _config(data, options, first, where=where)
    scenario = first.model_copy(update={"config": config})
    _check_names(scenario, where)
    return scenario


def _config(data: Mapping[str, Any], options: Mapping[str, Any], scenario: Scenario, *, where: str) -> TownConfig:
    count = len(scenario.slots)
    merged: dict[str, Any] = {}
    if any(data.get(key) is not None for key in _PREDECESSOR if key not in {"config_id", "world"}):
        try:
            translated = predecessor.town_config(data, agents=count)
        except ValidationError as error:
            sources = {target: source for source, target in predecessor.PATHS}
            raise ValueError(_explain(error, where, "", sources=sources)) from error
        except (KeyError, TypeError) as error:
            msg = f"{where}: jobs: each needs start_tick, end_tick, wage_rate and lateness_penalty ({error!r})"
            raise ValueError(msg) from error
        merged = translated.model_dump(exclude={"episode_ticks"})
    town = data.get("town") or {}
    if not isinstance(town, Mapping):
        msg = f"{where}: town: expected a mapping of town options, found {town!r}"
        raise ValueError(msg)
    _merge(merged, town)
    profiles = [agent.profile for agent in scenario.agents]
    if any(profiles):
        named = tuple(PROFILES)
        merged["profiles"] = [profile or named[n % len(named)] for n, profile in enumerate(profiles)]
    merged.setdefault("episode_ticks", scenario.ticks)
    _merge(merged, options)
    if merged.setdefault("agents", count) != count:
        asked = merged["agents"]
        msg = f"{where}: agents: the scenario has {count}, arrivals included, but {asked!r} is asked for; leave it out"
        raise ValueError(msg)
    try:
        return TownConfig.model_validate(merged)
    except ValidationError as error:
        raise ValueError(_explain(error, where, "town")) from error


def _merge(into: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _explain(error: ValidationError, where: str, root: str, *, sources: Mapping[str, str] | None = None) -> str:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        path = (sources or {}).get(path, f"{root}.{path}".strip("."))
        lines.append(f"{path}: {item['msg']} (found {item['input']!r})")
    return f"{where}: " + "; ".join(lines)


def _check_names(scenario: Scenario, where: str) -> None:
    """Refuse names that point nowhere."""
    objects = {thing.id for thing in scenario.objects}
    jobs = [job.name for job in scenario.config.jobs]
    if len({agent.id for agent in scenario.agents}) < len(scenario.agents) or len(objects) < len(scenario.objects):
        msg = f"{where}: scenario: every agent and every object needs an id of its own"
        raise ValueError(msg)
    for n, agent in enumerate(scenario.agents):
        here = f"{where}: scenario.agents.{n}"
        if agent.job is not None and agent.job not in jobs:
            msg = f"{here}.job: {agent.job!r} is no job; expected one of {jobs}"
            raise ValueError(msg)
        for k, tie in enumerate(agent.ties):
            if tie.other not in scenario.slots or tie.other == agent.id:
                msg = f"{here}.ties.{k}.other: {tie.other!r} is no other agent; expected one of {list(scenario.slots)}"
                raise ValueError(msg)
        for k, intent in enumerate(agent.schedule):
            if intent.object is not None and intent.object not in objects:
                msg = f"{here}.schedule.{k}.object: {intent.object!r} is no object; expected one of {sorted(objects)}"
                raise ValueError(msg)
    for k, entry in enumerate(scenario.timeline):
        _check_entry(scenario, entry, f"{where}: scenario.timeline.{k}.kwargs")


def _check_entry(scenario: Scenario, entry: TimelineEntry, where: str) -> None:
    required = {
        "set_need": ("agent_id", "need", "value"),
        "spawn_agent": ("agent_id",),
        "employment_exit": ("agent_id",),
        "perturbation_trigger": ("kind",),
        "force_chat": ("speaker", "listener"),
    }[entry.name]
    allowed = {
        "need": ("hunger", "hygiene", "energy"),
        "kind": ("price_spike", "blackout", "outage", "arranged_meet"),
        "agent_id": tuple(scenario.slots),
        "speaker": tuple(scenario.slots),
        "listener": tuple(scenario.slots),
    }
    for key in required:
        value = entry.arguments.get(key)
        if key == "value":
            if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                msg = f"{where}.value: expected a number in [0, 1], found {value!r}"
                raise ValueError(msg)
        elif value not in allowed[key]:
            msg = f"{where}.{key}: expected one of {list(allowed[key])}, found {value!r}"
            raise ValueError(msg)


def floor(scenario: Scenario, size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the ``(H, W)`` floor: the scenario's map, or an open square of ``size``."""
    if scenario.map is None:
        return np.ones((size, size), np.bool_)
    width = max(len(row) for row in scenario.map)
    return np.array([[tile != "#" for tile in row.ljust(width, "#")] for row in scenario.map], np.bool_)
