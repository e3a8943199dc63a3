"""Tables of what the town is, made from the code: for documentation that is built, not kept.

Every function yields lines of Markdown; nothing here makes a town.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from townlet_sim.scenarios import load_scenario, scenario_names
from townlet_sim.spaces import (
    ACTIONS,
    ACTIONS_VERSION,
    EVENT_KINDS,
    FEATURES,
    FEATURES_VERSION,
    KPIS,
    Described,
    Variant,
    map_channels,
    window,
)

__all__ = ["actions", "channels", "events", "features", "kpis", "scenarios", "town_tables", "write_map"]

_CHANNELS = {
    "self": "the agent's own tile, always the centre",
    "agents": "other agents",
    "objects": "objects of any type",
    "reservations": "objects in use",
    "walls": "tiles that are neither walkable nor an object with a channel, and what lies beyond the map",
    "walkable": "tiles that can be walked on",
    "busy": "objects in use",
    "queue_length": "agents waiting at an object",
}


def town_tables() -> Iterator[str]:
    """Yield all tables, each under a heading of the second level."""
    for title, table in (
        (f"Actions (version {ACTIONS_VERSION})", actions()),
        ("Map channels", channels()),
        (f"Features (version {FEATURES_VERSION})", features()),
        ("Events", events()),
        ("Indicators of an episode", kpis()),
        ("Scenarios", scenarios()),
    ):
        yield f"## {title}\n\n"
        yield from table
        yield "\n"


def actions() -> Iterator[str]:
    """Yield the table of actions, by id."""
    yield from _numbered(("id", "action", "what it does"), ACTIONS)


def channels() -> Iterator[str]:
    """Yield the table of map channels of every observation variant."""
    yield from _head(("variant", "window", "channel", "what it shows"))
    for variant in get_args(Variant):
        side = window(variant)
        for number, name in enumerate(map_channels(variant)):
            shown = _CHANNELS.get(name, f"objects of type {name}")
            yield f"| `{variant}` | {side}x{side} | {number} `{name}` | {shown} |\n"


def features() -> Iterator[str]:
    """Yield the table of feature columns, the same in every variant."""
    yield from _numbered(("column", "feature", "meaning"), FEATURES)


def events() -> Iterator[str]:
    """Yield the table of event kinds, by id."""
    yield from _numbered(("id", "event", "fields"), EVENT_KINDS)


def kpis() -> Iterator[str]:
    """Yield the table of indicators per episode."""
    yield from _head(("indicator", "meaning"))
    for kpi in KPIS:
        yield f"| `{kpi.name}` | {_cell(kpi.meaning)} |\n"


def scenarios() -> Iterator[str]:
    """Yield the table of the packaged scenarios."""
    yield from _head(("scenario", "agents", "ticks", "story"))
    for name in scenario_names():
        scenario = load_scenario(name)
        yield f"| `{name}` | {len(scenario.slots)} | {scenario.ticks} | {_cell(scenario.description)} |\n"


def write_map(path: Path, *, agents: int = 8, size: int = 24, seed: int = 0) -> None:
    """Draw the generated map of the default town into a PNG file (needs pillow; compiles nothing).

    Raises
    ------
    townlet_sim.render.MissingPartError
        When pillow is not installed.
    """
    from townlet_sim import render
    from townlet_sim.layout import generate_layout

    render.save_png(path, render.render_layout(generate_layout(agents=agents, size=size, seed=seed)))


def _numbered(titles: Sequence[str], rows: Sequence[Described]) -> Iterator[str]:
    yield from _head(titles)
    for number, row in enumerate(rows):
        yield f"| {number} | `{row.name}` | {_cell(row.meaning)} |\n"


def _head(titles: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |\n"
    yield f"|{'---|' * len(titles)}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
