"""Pictures of a town: text for terminals, arrays and image files.

Arrays need numpy alone; image files need pillow (``pip install 'townlet-sim[watch]'``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.layout import Layout
from townlet_sim.spaces import ERRANDS

if TYPE_CHECKING:
    from townlet_sim.engine import TownBatch

__all__ = [
    "INSTALL_WATCH",
    "LEGEND",
    "MissingPartError",
    "agent_lines",
    "clock_line",
    "picture",
    "render_ansi",
    "render_layout",
    "render_rgb",
    "save_gif",
    "save_png",
]

INSTALL_WATCH = "pip install 'townlet-sim[watch]'"
TILE = 16
"""Side of a tile in pixels."""

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

_SYMBOLS = {"bed": "b", "fridge": "f", "stove": "s", "shower": "h", "till": "t", "workplace": "w", "table": "o"}
_AGENTS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LEGEND = "# wall  " + "  ".join(f"{symbol} {name}" for name, symbol in _SYMBOLS.items()) + "  0-9A-Z agents"
"""What the characters of the text mean."""

_SHIFTS = ("", "on time", "late", "absent", "")
_BUSY = ("", "using", "eating", "sleeping", "napping")

_FLOOR: Colour = (240, 237, 230)
_WALL: Colour = (92, 88, 84)
_ROOMS: dict[str, Colour] = {
    "home": (246, 232, 214),
    "cafe": (249, 224, 205),
    "grocer": (225, 239, 216),
    "office": (220, 230, 244),
    "gym": (235, 224, 243),
}
_OBJECTS: dict[str, Colour] = {
    "bed": (146, 94, 58),
    "fridge": (206, 104, 36),
    "stove": (176, 52, 48),
    "shower": (38, 122, 178),
    "till": (52, 128, 66),
    "workplace": (98, 76, 150),
    "table": (150, 110, 70),
}
_PALETTE: tuple[Colour, ...] = (
    (228, 76, 60),
    (52, 120, 200),
    (42, 150, 90),
    (232, 150, 40),
    (140, 90, 180),
    (30, 160, 170),
    (200, 70, 140),
    (110, 110, 40),
)
_ICONS: dict[str, tuple[str, ...]] = {
    "bed": ("........", "#.......", "#.......", "#.##....", "########", "#......#", "#......#", "........"),
    "fridge": ("..#..#..", "...#..#.", "..#..#..", "........", ".#####..", ".####.#.", ".#####..", "..###..."),
    "stove": ("........", ".##..##.", ".##..##.", "........", "########", "#..##..#", "#.####.#", "########"),
    "shower": ("..####..", ".######.", ".######.", "........", ".#.#.#..", "..#.#.#.", ".#.#.#..", "..#.#.#."),
    "till": ("....###.", "....#.#.", "....###.", ".######.", ".#.#.##.", ".######.", ".#.#.##.", "########"),
    "workplace": (".######.", ".#....#.", ".#....#.", ".######.", "...##...", "########", ".#....#.", ".#....#."),
    "table": ("........", ".######.", "########", "########", "########", ".######.", ".#....#.", ".#....#."),
}


class MissingPartError(ImportError):
    """A package that is needed to look at a town is not installed; the message gives the command that installs it."""

    exit_code = 3

    def __init__(self, what: str, *, install: str = INSTALL_WATCH) -> None:
        super().__init__(f"{what} needs a package that is not installed; install it with: {install}")


# ---------------------------------------------------------------------------------------------------------- text


def clock_line(batch: TownBatch, town: int = 0) -> str:
    """Return day, tick of day, prices and what is out of order, in one line."""
    numbers = batch.arrays.town_i[town]
    day = batch.config.ticks_per_day
    now = int(numbers[c.START] + numbers[c.TICK])
    text = f"day {now // day + 1}  tick {now % day:4d}/{day}  prices x{float(batch.arrays.town_f[town, c.PRICE]):.2f}"
    kind = int(numbers[c.PERTURBATION])
    return text + ("" if kind < 0 else "  " + ("price spike", "blackout", "outage", "arranged meet")[kind])


def agent_lines(batch: TownBatch, town: int = 0) -> list[str]:
    """Return one line for each slot: needs, wallet, what it carries, what it does."""
    lines = []
    for slot in range(batch.config.agents):
        i, f = batch.arrays.agent_i[town, slot].tolist(), batch.arrays.agent_f[town, slot].tolist()
        name = _AGENTS[slot % len(_AGENTS)]
        if not i[c.ALIVE]:
            lines.append(f"{name}  -")
            continue
        doing = _BUSY[i[c.BUSY]] if i[c.QUEUE] < 0 else "waiting"
        shift = _SHIFTS[i[c.SHIFT]] if i[c.SHIFT_OPEN] else ""
        needs = f"food {f[c.HUNGER]:.2f}  wash {f[c.HYGIENE]:.2f}  rest {f[c.ENERGY]:.2f}  wallet {f[c.WALLET]:5.2f}"
        errand = f"meals {i[c.PORTIONS]}  errand {ERRANDS[i[c.ERRAND]]:<6}  {doing:<8}  {shift}"
        lines.append(f"{name}  {needs}  {errand}".rstrip())
    return lines


def render_ansi(batch: TownBatch, town: int = 0) -> str:
    """Return the town as text: clock, map, agents (plain characters, no escape codes)."""
    layout = batch.layout_of(town)
    rows = _floor_plan(layout)
    for slot in range(batch.config.agents):
        agent = batch.arrays.agent_i[town, slot]
        if agent[c.ALIVE]:
            rows[agent[c.Y]][agent[c.X]] = _AGENTS[slot % len(_AGENTS)]
    return "\n".join([clock_line(batch, town), *(" ".join(row) for row in rows), *agent_lines(batch, town)])


def _floor_plan(layout: Layout) -> list[list[str]]:
    rows = [["." if tile else "#" for tile in row] for row in layout.walkable.tolist()]
    for thing in layout.objects:
        rows[thing.y][thing.x] = _SYMBOLS[thing.type]
    return rows


# -------------------------------------------------------------------------------------------------------- arrays


def render_layout(layout: Layout) -> Picture:
    """Return a map without agents as ``(16 H, 16 W, 3)`` uint8."""
    height, width = layout.size
    tiles = np.full((height, width, 3), _FLOOR, np.uint8)
    for room in layout.rooms:
        tiles[room.top : room.bottom + 1, room.left : room.right + 1] = _ROOMS.get(room.name, _FLOOR)
    furniture = {(thing.y, thing.x) for thing in layout.objects}
    for y, x in np.argwhere(~layout.walkable).tolist():
        if (y, x) not in furniture:
            tiles[y, x] = _WALL
    image = tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)
    for y, x in np.argwhere(layout.walkable).tolist():  # a faint grid
        image[y * TILE, x * TILE : (x + 1) * TILE] -= 8
        image[y * TILE + 1 : (y + 1) * TILE, x * TILE] -= 8
    for thing in layout.objects:
        icon = np.array([[mark == "#" for mark in row] for row in _ICONS[thing.type]]).repeat(2, 0).repeat(2, 1)
        _tile(image, thing.y, thing.x)[icon] = _OBJECTS[thing.type]
    return image


def render_rgb(batch: TownBatch, town: int = 0) -> Picture:
    """Return the town as ``(16 H, 16 W, 3)`` uint8.

    Agents are discs; a ring tells what they do: blue sleeps, orange uses or eats, red works late, green works on
    time. Objects in use have a dark frame. It grows darker around midnight.
    """
    image = _shade(render_layout(batch.layout_of(town)), batch, town)
    objects = batch.layout_of(town).objects
    for number, thing in enumerate(objects):
        if batch.arrays.object_i[town, number, c.USER] >= 0:
            tile = _tile(image, thing.y, thing.x)
            tile[[0, -1]] = tile[:, [0, -1]] = (40, 40, 40)
    steps = np.arange(TILE) - (TILE - 1) / 2
    radius = np.hypot(steps[:, None], steps[None, :])
    for slot in range(batch.config.agents):
        agent = batch.arrays.agent_i[town, slot]
        if agent[c.ALIVE]:
            tile = _tile(image, int(agent[c.Y]), int(agent[c.X]))
            tile[radius <= 7.2] = _ring(agent)
            tile[radius <= 5.2] = _PALETTE[slot % len(_PALETTE)]
            _number(tile, slot)
    return image


def _tile(image: Picture, y: int, x: int) -> Picture:
    return image[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]


def _ring(agent: NDArray[np.int32]) -> Colour:
    if agent[c.BUSY] in (c.SLEEPING, c.NAPPING):
        return (60, 90, 190)
    if agent[c.BUSY] in (c.USING, c.EATING):
        return (240, 160, 40)
    if agent[c.WORKED]:
        return (60, 160, 80) if agent[c.SHIFT] == c.ON_TIME else (200, 50, 50)
    return (255, 255, 255)


def _shade(image: Picture, batch: TownBatch, town: int) -> Picture:
    """Darken around midnight, in blue."""
    numbers, day = batch.arrays.town_i[town], batch.config.ticks_per_day
    phase = 2.0 * np.pi * float(numbers[c.START] + numbers[c.TICK]) / day
    night = 0.35 * max(0.0, float(np.cos(phase)))
    factor = np.array([1.0 - night, 1.0 - night, 1.0 - 0.5 * night])
    shaded: Picture = (image * factor).astype(np.uint8)
    return shaded


_DIGITS: tuple[str, ...] = (
    "###|#.#|#.#|#.#|###",
    ".#.|##.|.#.|.#.|###",
    "###|..#|###|#..|###",
    "###|..#|###|..#|###",
    "#.#|#.#|###|..#|..#",
    "###|#..|###|..#|###",
    "###|#..|###|#.#|###",
    "###|..#|.#.|.#.|.#.",
    "###|#.#|###|#.#|###",
    "###|#.#|###|..#|###",
)


def _number(tile: Picture, slot: int) -> None:
    """Write the slot's last digit in the middle of a tile."""
    digit = np.array([[mark == "#" for mark in row] for row in _DIGITS[slot % 10].split("|")])
    tile[5:10, 6:9][digit] = (255, 255, 255)


# --------------------------------------------------------------------------------------------------------- files


def picture(batch: TownBatch, town: int = 0) -> Any:
    """Return the town as a pillow image with a line of text below.

    Raises
    ------
    MissingPartError
        When pillow is not installed.
    """
    image, draw = _pillow("a picture of a town")
    pixels = render_rgb(batch, town)
    canvas = image.new("RGB", (pixels.shape[1], pixels.shape[0] + 18), (250, 250, 248))
    canvas.paste(image.fromarray(pixels), (0, 0))
    draw.Draw(canvas).text((4, pixels.shape[0] + 3), clock_line(batch, town), fill=(40, 40, 40))
    return canvas


def save_png(path: Path, image: Picture | Any) -> None:
    """Write a picture (an array or a pillow image) as PNG; the file appears complete or not at all.

    Raises
    ------
    MissingPartError
        When pillow is not installed.
    """
    module, _ = _pillow("a PNG file")
    image = module.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    _write(path, buffer.getvalue())


def save_gif(path: Path, frames: Sequence[Any], *, milliseconds: int = 100) -> None:
    """Write pictures as an endless GIF.

    Parameters
    ----------
    milliseconds:
        Time of one picture; viewers round it to hundredths of a second.

    Raises
    ------
    MissingPartError
        When pillow is not installed.
    ValueError
        Without pictures.
    """
    if not frames:
        msg = "a GIF needs at least one picture, found none"
        raise ValueError(msg)
    module, _ = _pillow("a GIF file")
    images = [module.fromarray(frame) if isinstance(frame, np.ndarray) else frame for frame in frames]
    images = [image.quantize(64, dither=0) for image in images]
    buffer = io.BytesIO()
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=False
    )
    _write(path, buffer.getvalue())


def _pillow(what: str) -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "PIL":
            raise
        raise MissingPartError(what) from error
    return Image, ImageDraw


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
