"""Pictures, the commands that show them, and the tables of the documentation."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import townlet_sim
from townlet_sim import columns as c
from townlet_sim import commands, render, tables
from townlet_sim.commands import Controls, Show, app
from townlet_sim.layout import generate_layout
from townlet_sim.spaces import ACTIONS, EVENT_KINDS, FEATURES, KPIS

RUN = CliRunner()


@pytest.fixture(scope="module")
def show() -> Show:
    return Show(scenario="story_arc", seed=1)


def test_text_shows_every_agent_and_object_where_it_stands() -> None:
    show = Show(scenario="kitchen_breakfast")
    lines = render.render_ansi(show.batch).splitlines()

    assert lines[0].startswith("day 1  tick    0/1000  prices x1.00")
    plan = [line.split(" ") for line in lines[1:13]]
    assert plan[2][3] == "s"
    assert plan[2][8] == "f"
    assert plan[6][2] == "0"
    assert plan[3][5] == "1"
    assert plan[0] == ["#"] * 12
    assert lines[13].startswith("0  food 0.40  wash 0.90  rest 0.90  wallet  1.00")
    assert len(lines) == 15


def test_text_tells_what_agents_do(show: Show) -> None:
    batch = show.batch
    slot = batch.scenario.slots["carol"]  # type: ignore[attr-defined]  # a scenario's batch

    assert render.agent_lines(batch)[slot] == "3  -"  # not yet there
    batch.arrays.town_i[0, c.PERTURBATION] = c.BLACKOUT
    assert "blackout" in render.clock_line(batch)
    batch.arrays.town_i[0, c.PERTURBATION] = -1


def test_a_picture_has_sixteen_pixels_a_tile_and_shows_agents(show: Show) -> None:
    empty = render.render_layout(show.batch.layout_of(0))
    full = render.render_rgb(show.batch)
    y, x = show.batch.arrays.agent_i[0, 0, [c.Y, c.X]]
    agent = full[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16]

    assert empty.shape == full.shape == (20 * 16, 20 * 16, 3)
    assert full.dtype == np.uint8
    assert (agent.reshape(-1, 3) == (228, 76, 60)).all(axis=1).any()
    assert not (empty.reshape(-1, 3) == (228, 76, 60)).all(axis=1).any()


def test_what_agents_do_changes_their_ring(show: Show) -> None:
    batch = show.batch
    state = batch.save_state()
    rows = batch.allocate()
    pictures = []
    for busy, worked, shift in (
        (c.FREE, 0, 0),
        (c.SLEEPING, 0, 0),
        (c.EATING, 0, 0),
        (c.FREE, 1, c.ON_TIME),
        (c.FREE, 1, c.LATE),
    ):
        batch.arrays.agent_i[0, 0, [c.BUSY, c.WORKED, c.SHIFT]] = (busy, worked, shift)
        pictures.append(render.render_rgb(batch).tobytes())
    batch.load_state(state, out=rows)

    assert len(set(pictures)) == 5


def test_nights_are_darker_than_days(show: Show) -> None:
    batch = show.batch
    before = int(batch.arrays.town_i[0, c.START])
    night = render.render_rgb(batch).mean()
    batch.arrays.town_i[0, c.START] = 500
    day = render.render_rgb(batch).mean()
    batch.arrays.town_i[0, c.START] = before

    assert night < day


def test_files_hold_what_was_drawn(tmp_path: Path, show: Show) -> None:
    frames = [render.picture(show.batch)]
    show.advance()
    frames += [render.picture(show.batch), render.render_rgb(show.batch)[:338, :320]]
    render.save_png(tmp_path / "deep" / "town.png", frames[0])
    render.save_gif(tmp_path / "town.gif", frames[:2], milliseconds=50)

    with Image.open(tmp_path / "deep" / "town.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(frames[0]))
    with Image.open(tmp_path / "town.gif") as film:
        assert (film.n_frames, film.info["duration"], film.info["loop"]) == (2, 50, 0)  # type: ignore[attr-defined]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "town.gif"]
    with pytest.raises(ValueError, match="at least one picture"):
        render.save_gif(tmp_path / "none.gif", [])


def test_the_environment_renders() -> None:
    for mode, expected in (("ansi", str), ("rgb_array", np.ndarray)):
        env = townlet_sim.parallel_env(render_mode=mode)
        env.reset(seed=1)

        assert isinstance(env.render(), expected)
        env.close()


def test_without_pillow_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, show: Show) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(render.MissingPartError, match=r"pip install 'townlet-sim\[watch\]'"):
        render.picture(show.batch)
    result = RUN.invoke(app, ["render", "--out", str(tmp_path / "a.png"), "--scenario", "story_arc", "--ticks", "1"])
    assert result.exit_code == 3
    assert "pip install 'townlet-sim[watch]'" in result.output


@pytest.mark.parametrize("package", ["rich", "typer"])
def test_without_the_terminal_packages_the_install_line_is_named(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import townlet_sim.render; import townlet_sim.commands"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "MissingPartError: the command 'townlet town' needs" in result.stderr
    assert "pip install 'townlet-sim[watch]'" in result.stderr


# ------------------------------------------------------------------------------------------------------- commands


def test_watch_prints_frames_without_a_terminal() -> None:
    result = RUN.invoke(app, ["watch", "--scenario", "story_arc", "--ticks", "45", "--every", "20"])

    assert result.exit_code == 0, result.output
    clocks = [line for line in result.output.splitlines() if line.startswith("day 1")]
    assert [line.split()[3] for line in clocks] == ["0/1000", "20/1000", "40/1000", "45/1000"]
    assert "tick 40: respawn of agent 3 (1.00)" in result.output


def test_watch_plays_any_scripted_policy_on_a_generated_map() -> None:
    arguments = ["watch", "--policy", "greedy", "--agents", "3", "--map-size", "24", "--ticks", "5", "--every", "5"]
    result = RUN.invoke(app, arguments)

    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) >= 2 * (1 + 24 + 3)


def test_render_draws_a_picture_and_a_film(tmp_path: Path) -> None:
    for name, frames in (("town.png", 1), ("town.GIF", 6)):
        out = tmp_path / name
        result = RUN.invoke(app, ["render", "--out", str(out), "--scenario", "rivalry_decay", "--ticks", "10"])

        assert result.exit_code == 0, result.output
        with Image.open(out) as image:
            assert getattr(image, "n_frames", 1) == frames
            assert image.size == (12 * 16, 12 * 16 + 18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "--policy", "genius"], "--policy 'genius': expected one of expert"),
        (["watch", "--policy", "schedule"], "needs --scenario"),
        (["watch", "--scenario", "nowhere"], "'nowhere': neither a file nor one of"),
        (["watch", "--scenario", "story_arc", "--agents", "9"], "agents: the scenario has 4"),
        (["render", "--out", "town.bmp"], "expected a name that ends in .png or .gif"),
    ],
)
def test_bad_input_ends_with_two_and_a_line(arguments: list[str], message: str) -> None:
    result = RUN.invoke(app, arguments)

    assert result.exit_code == 2
    assert message in result.output


def test_keys_pause_step_and_change_speed() -> None:
    controls = Controls(speed=8.0)
    assert controls.take_turn()
    controls.press(" ")
    assert not controls.take_turn()
    controls.press("n")
    assert controls.take_turn()
    assert not controls.take_turn()  # one tick only
    controls.press("p")
    assert controls.take_turn()
    controls.press("+")
    assert controls.speed == 16.0
    for _ in range(20):
        controls.press("-")
    assert controls.speed == 0.25
    controls.press("?")
    assert not controls.stopped


@pytest.mark.parametrize("key", ["q", "\x1b", "\x03"])
def test_keys_end_it(key: str) -> None:
    controls = Controls(speed=8.0)
    controls.press(key)

    assert controls.stopped


def test_watch_obeys_keys_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # two ticks pass, pause, nothing, two single steps, go on for one, quit
    pressed = iter(["", "", " ", "", "n", "n", " ", "", "q"])

    @contextlib.contextmanager
    def keys() -> Iterator[Callable[[float], str]]:
        yield lambda seconds: next(pressed)

    monkeypatch.setattr(commands, "_keys", keys)
    show = Show(scenario="kitchen_breakfast")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=50)
    commands._watch_live(console, show, Controls(speed=1000.0), 100)

    assert show.tick == 5
    assert next(pressed, "none") == "none"
    assert "paused" in screen.getvalue()
    assert "1000 ticks/s" in screen.getvalue()


# --------------------------------------------------------------------------------------------------------- tables


def test_tables_name_everything_that_there_is() -> None:
    text = "".join(tables.town_tables())

    for described in (*ACTIONS, *FEATURES, *EVENT_KINDS, *KPIS):
        assert f"| `{described.name}` |" in text
    for heading in ("Actions", "Map channels", "Features", "Events", "Indicators", "Scenarios"):
        assert f"## {heading}" in text
    assert "| `full` | 11x11 | 10 `queue_length` | agents waiting at an object |" in text
    assert "| `story_arc` | 4 | 150 |" in text


def test_every_line_of_a_table_has_as_many_cells_as_its_head() -> None:
    cells = 0
    for line in "".join(tables.town_tables()).splitlines():
        bars = line.replace("\\|", "").count("|")
        if not line.startswith("|"):
            cells = 0
            continue
        cells = cells or bars
        assert bars == cells, line


def test_the_map_is_drawn_without_making_a_town(tmp_path: Path) -> None:
    tables.write_map(tmp_path / "map.png")

    with Image.open(tmp_path / "map.png") as image:
        drawn = np.asarray(image)
    np.testing.assert_array_equal(drawn, render.render_layout(generate_layout(agents=8, size=24, seed=0)))
