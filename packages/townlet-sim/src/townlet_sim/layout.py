"""Maps: generated from a seed, or given.

A generated town is a grid of blocks with streets between them. A block holds a room (homes, cafe, grocer,
office, gym) or is a park. One service of each kind is built for every eight agents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.spaces import OBJECT_TYPES, Variant, window

__all__ = ["Layout", "LayoutArrays", "PlacedObject", "Room", "SplitMix", "generate_layout"]

_MASK = (1 << 64) - 1
_G = 0x9E3779B97F4A7C15
_BEDS_PER_HOME = 2
_AGENTS_PER_SERVICE = 8
UNREACHABLE = 32000
"""Distance of tiles from which an object cannot be reached."""


class SplitMix:
    """The counter-based generator of the rules, in plain integers (for maps; kernels have their own).

    Source: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014.
    """

    def __init__(self, key: int) -> None:
        self._key = self.mix(key + _G)
        self._counter = 0

    @staticmethod
    def mix(z: int) -> int:
        """Scramble 64 bits."""
        z &= _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """Return an integer in ``0 .. bound - 1``."""
        self._counter += 1
        return int((self.mix(self._key + self._counter * _G) >> 11) * 2.0**-53 * bound)

    def shuffled(self, items: Sequence[int]) -> list[int]:
        """Return the items in a random order (Fisher and Yates)."""
        result = list(items)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """An object: its type's name and its tile."""

    type: str
    y: int
    x: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """A room's name and its outer rectangle (both corners inside)."""

    name: str
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A map.

    ``walkable`` is ``(H, W)`` bool: false for walls and for objects' tiles. Objects are in order of their ids.
    """

    walkable: NDArray[np.bool_]
    objects: tuple[PlacedObject, ...]
    rooms: tuple[Room, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.walkable.shape
        return int(height), int(width)

    def of_type(self, name: str) -> list[int]:
        """Ids of the objects of a type, ascending."""
        return [index for index, thing in enumerate(self.objects) if thing.type == name]


class LayoutArrays(NamedTuple):
    """L maps as the kernels read them."""

    walk: NDArray[np.uint8]  # (L, H, W)
    object_at: NDArray[np.int16]  # (L, H, W), -1 none
    objects: NDArray[np.int64]  # (L, M, 3): type, y, x
    dist: NDArray[np.int16]  # (L, M, H, W)
    near: NDArray[np.int16]  # (L, H, W, T), -1 none
    cell: NDArray[np.float32]  # (L, H, W, 3T): the features that depend on the tile alone
    bed: NDArray[np.int64]  # (L, N)
    site: NDArray[np.int64]  # (L, N), -1 none
    tile: NDArray[np.int32]  # (L, H, W, TILE_INTS)
    ground: NDArray[np.uint8]  # (L, H + 2R, W + 2R) with windows of radius R: what an observation shows of it
    seen: NDArray[np.int32]  # (L, K, 2): object, place in the window; the rows of one tile lie together


def ring(y: int, x: int) -> Iterator[tuple[int, int]]:
    """Yield the eight neighbours in ring order: N, S, E, W, NE, NW, SE, SW."""
    for dy, dx in ((-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1), (1, 1), (1, -1)):
        yield y + dy, x + dx


def distances(walkable: NDArray[np.bool_], y: int, x: int) -> NDArray[np.int16]:
    """Return ``(H, W)`` steps to the closest walkable tile beside ``(y, x)``."""
    return _flood(walkable, list(ring(y, x)))


def _flood(walkable: NDArray[np.bool_], sources: Sequence[tuple[int, int]]) -> NDArray[np.int16]:
    """Return steps to the closest walkable source (breadth first)."""
    height, width = walkable.shape
    # A border of unwalkable tiles saves the bounds checks; flat lists are much faster than arrays here.
    padded = np.zeros((height + 2, width + 2), np.bool_)
    padded[1:-1, 1:-1] = walkable
    stride = width + 2
    grid = np.where(padded, UNREACHABLE, -1).ravel().tolist()
    frontier = []
    for y, x in sources:
        at = (y + 1) * stride + x + 1
        if 0 <= y < height and 0 <= x < width and grid[at] == UNREACHABLE:
            grid[at] = 0
            frontier.append(at)
    step = 0
    while frontier:
        step += 1
        reached = []
        for at in frontier:
            for there in (at - stride, at + stride, at + 1, at - 1):
                if grid[there] == UNREACHABLE:
                    grid[there] = step
                    reached.append(there)
        frontier = reached
    result = np.array(grid, np.int16).reshape(height + 2, stride)[1:-1, 1:-1]
    return np.where(result < 0, np.int16(UNREACHABLE), result)


def generate_layout(*, agents: int, size: int, seed: int) -> Layout:
    """Generate a map of ``size`` x ``size`` tiles for ``agents`` agents.

    Raises
    ------
    ValueError
        When the map is too small for the agents.
    """
    pitch = 6 if size < 24 else 8
    per_side = size // pitch
    services = -(-agents // _AGENTS_PER_SERVICE)
    beds = 3 if pitch == 6 else _BEDS_PER_HOME
    homes = -(-agents // beds)
    contents: list[tuple[str, tuple[str, ...]]] = []
    left = agents
    for _ in range(homes):
        contents.append(("home", ("bed",) * min(beds, left) + ("stove",)))
        left -= beds
    crowded = per_side * per_side < homes + 4 * services
    for _ in range(services):
        contents.append(("grocer", ("till", "workplace")))
        contents.append(("cafe", ("fridge", "workplace", "table")))
        if crowded:
            contents.append(("gym", ("workplace", "shower", "workplace")))
        else:
            contents += [("office", ("workplace",)), ("gym", ("workplace", "shower"))]
    if len(contents) > per_side * per_side:
        msg = (
            f"map_size {size} has {per_side * per_side} blocks, but {agents} agents need {len(contents)}; "
            "choose a larger map_size or fewer agents"
        )
        raise ValueError(msg)
    for attempt in range(1000):
        layout = _attempt(SplitMix((seed << 10) + attempt), size=size, pitch=pitch, contents=contents)
        if layout is not None:
            return layout
    msg = f"no map found for layout_seed {seed}, map_size {size}, agents {agents}; choose another layout_seed"
    raise ValueError(msg)


def _attempt(rng: SplitMix, *, size: int, pitch: int, contents: list[tuple[str, tuple[str, ...]]]) -> Layout | None:
    per_side = size // pitch
    outer, offset = (5, 0) if pitch == 6 else (6, 1)
    middle = (per_side - 1) / 2
    blocks = rng.shuffled(range(per_side * per_side))
    # A compact town in the middle of a large map; nearness first, the shuffle breaks ties.
    blocks.sort(key=lambda b: max(abs(b // per_side - middle), abs(b % per_side - middle)))
    blocks = rng.shuffled(blocks[: max(len(contents), min(9, len(blocks)))])
    margin = (size - per_side * pitch) // 2
    walkable = np.ones((size, size), np.bool_)
    placed: list[tuple[int, PlacedObject]] = []
    rooms: list[Room] = []
    for (name, things), block in zip(contents, blocks, strict=False):
        top = margin + block // per_side * pitch + offset
        left = margin + block % per_side * pitch + offset
        bottom, right = top + outer - 1, left + outer - 1
        rooms.append(Room(name, top, left, bottom, right))
        for _ in range(100):
            furnished = _furnish(rng, walkable, top=top, left=left, outer=outer, things=things)
            if furnished is not None:
                break
        else:
            return None
        placed += [(OBJECT_TYPES.index(thing.type), thing) for thing in furnished]
    placed.sort(key=lambda item: item[0])  # stable: within a type in the order of the rooms
    objects = tuple(thing for _, thing in placed)
    return Layout(walkable, objects, tuple(rooms)) if _usable(walkable, objects) else None


def _furnish(
    rng: SplitMix, walkable: NDArray[np.bool_], *, top: int, left: int, outer: int, things: tuple[str, ...]
) -> list[PlacedObject] | None:
    """Build one room into ``walkable``; ``None`` when an object or a tile of it cannot be reached."""
    size, inner = walkable.shape[0], outer - 2
    walkable[top : top + outer, left : left + outer] = False
    walkable[top + 1 : top + outer - 1, left + 1 : left + outer - 1] = True
    fronts = _open_doors(rng, walkable, top, left, outer)
    edge = [
        (top + 1 + i) * size + left + 1 + j
        for i in range(inner)
        for j in range(inner)
        if (i in (0, inner - 1) or j in (0, inner - 1)) and (top + 1 + i, left + 1 + j) not in fronts
    ]
    if len(edge) < len(things):
        return None
    placed = [PlacedObject(thing, *divmod(spot, size)) for thing, spot in zip(things, rng.shuffled(edge), strict=False)]
    tiles = [(thing.y, thing.x) for thing in placed]
    if outer > 5 and any(tile in ring(*other) for tile in tiles for other in tiles):
        return None  # side by side, users of the one stand in the way of the other's
    for tile in tiles:
        walkable[tile] = False
    room = walkable[top : top + outer, left : left + outer]
    inside = [PlacedObject(thing.type, thing.y - top, thing.x - left) for thing in placed]
    if not _usable(room, inside) or (outer > 5 and not _roomy(room)):
        return None
    return placed


def _roomy(room: NDArray[np.bool_]) -> bool:
    """Whether one agent that stands still cuts off at most one tile of a room."""
    for y, x in np.argwhere(room):
        room[y, x] = False
        sources = [(int(ny), int(nx)) for ny, nx in np.argwhere(room)]
        cut = min(int((_flood(room, [source])[room] == UNREACHABLE).sum()) for source in sources)
        room[y, x] = True
        if cut > 1:
            return False
    return True


def _open_doors(rng: SplitMix, walkable: NDArray[np.bool_], top: int, left: int, outer: int) -> set[tuple[int, int]]:
    """Open two sides of a room that lead somewhere; return the tiles just inside the doors."""
    size = walkable.shape[0]
    wide = 2 if outer > 5 else 1
    fronts: set[tuple[int, int]] = set()
    opened = 0
    for side in rng.shuffled(range(4)):
        at = 1 + rng.below(outer - 1 - wide) if wide == 2 else outer // 2
        tiles = []
        for k in range(wide):
            wall, inside, outside = {
                0: ((top, left + at + k), (top + 1, left + at + k), (top - 1, left + at + k)),
                1: ((top + outer - 1, left + at + k), (top + outer - 2, left + at + k), (top + outer, left + at + k)),
                2: ((top + at + k, left), (top + at + k, left + 1), (top + at + k, left - 1)),
                3: ((top + at + k, left + outer - 1), (top + at + k, left + outer - 2), (top + at + k, left + outer)),
            }[side]
            if all(0 <= value < size for value in outside):
                tiles.append((wall, inside))
        if len(tiles) < wide:
            continue
        for wall, inside in tiles:
            walkable[wall] = True
            fronts.add(inside)
        opened += 1
        if opened == 2:
            break
    return fronts


def _usable(walkable: NDArray[np.bool_], objects: Sequence[PlacedObject]) -> bool:
    """Whether all walkable tiles hang together and every object has three tiles beside it."""
    height, width = walkable.shape
    for thing in objects:
        beside = sum(0 <= y < height and 0 <= x < width and bool(walkable[y, x]) for y, x in ring(thing.y, thing.x))
        if beside < 3:
            return False
    start = np.argwhere(walkable)[0]
    return bool((_flood(walkable, [(int(start[0]), int(start[1]))])[walkable] < UNREACHABLE).all())


def layout_arrays(
    layouts: Sequence[Layout], *, agents: int, variant: Variant, sites: NDArray[np.int32] | None = None
) -> LayoutArrays:
    """Pack maps for the kernels.

    Parameters
    ----------
    layouts:
        Maps of one size with objects of the same types in the same order.
    agents:
        N.
    variant:
        What agents see; the window's size and what it shows of the ground depend on it.
    sites:
        ``(N,)`` object id of each agent's site where it is given, -1 for none.

    Raises
    ------
    ValueError
        When the maps do not fit one another.
    """
    height, width = layouts[0].size
    kinds = [thing.type for thing in layouts[0].objects]
    for layout in layouts[1:]:
        if layout.size != (height, width) or [thing.type for thing in layout.objects] != kinds:
            msg = "maps of one town must have one size and the same objects in the same order"
            raise ValueError(msg)
    count, many = len(layouts), max(len(kinds), 1)
    radius = window(variant) // 2
    windows = [_seen(layout, radius) for layout in layouts]
    arrays = LayoutArrays(
        walk=np.zeros((count, height, width), np.uint8),
        object_at=np.full((count, height, width), -1, np.int16),
        objects=np.full((count, many, 3), -1, np.int64),
        dist=np.full((count, many, height, width), UNREACHABLE, np.int16),
        near=np.full((count, height, width, c.TYPES), -1, np.int16),
        cell=np.zeros((count, height, width, 3 * c.TYPES), np.float32),
        bed=np.full((count, agents), -1, np.int64),
        site=np.full((count, agents), -1, np.int64),
        tile=np.zeros((count, height, width, c.TILE_INTS), np.int32),
        ground=np.full((count, height + 2 * radius, width + 2 * radius), variant == "full", np.uint8),
        seen=np.zeros((count, max(len(rows) for rows, _ in windows), 2), np.int32),
    )
    for number, layout in enumerate(layouts):
        arrays.walk[number] = layout.walkable
        for index, thing in enumerate(layout.objects):
            arrays.object_at[number, thing.y, thing.x] = index
            arrays.objects[number, index] = (OBJECT_TYPES.index(thing.type), thing.y, thing.x)
            arrays.dist[number, index] = distances(layout.walkable, thing.y, thing.x)
        for kind, name in enumerate(OBJECT_TYPES):
            _nearest(arrays, number, kind, layout.of_type(name))
        beds, works = layout.of_type("bed"), layout.of_type("workplace")
        if beds:
            arrays.bed[number] = [beds[n % len(beds)] for n in range(agents)]
        if sites is not None:
            arrays.site[number] = sites
        elif works:
            arrays.site[number] = [works[n % len(works)] for n in range(agents)]
        rows, ends = windows[number]
        arrays.seen[number, : len(rows)] = rows
        arrays.tile[number, ..., c.SEEN_TO] = ends
        arrays.tile[number, ..., c.SEEN_FROM].flat[1:] = ends.flat[:-1]
        shown = layout.walkable if variant == "compact" else ~layout.walkable & (arrays.object_at[number] < 0)
        arrays.ground[number, radius : radius + height, radius : radius + width] = shown
        _describe_tiles(arrays, number)
    return arrays


def _seen(layout: Layout, radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(K, 2)`` objects and their places in windows, tile by tile, and the ``(H, W)`` ends of tiles' rows."""
    height, width = layout.size
    side = 2 * radius + 1
    found = []
    for index, thing in enumerate(layout.objects):
        ys, xs = np.mgrid[
            max(thing.y - radius, 0) : min(thing.y + radius + 1, height),
            max(thing.x - radius, 0) : min(thing.x + radius + 1, width),
        ]
        places = (thing.y - ys + radius) * side + thing.x - xs + radius
        found.append(np.stack([ys * width + xs, np.full_like(ys, index), places], axis=-1).reshape(-1, 3))
    rows = np.concatenate([*found, np.zeros((0, 3), np.int64)])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]  # within a tile in the order of the ids
    ends = np.bincount(rows[:, 0], minlength=height * width).cumsum().reshape(height, width)
    return rows[:, 1:], ends


def _describe_tiles(arrays: LayoutArrays, number: int) -> None:
    """Fill what the masks and features of a tile need, so that kernels look at one row instead of nine tiles."""
    tile, walk, object_at = arrays.tile[number], arrays.walk[number], arrays.object_at[number]
    height, width = walk.shape
    walkable, things = np.pad(walk, 1), np.pad(object_at.astype(np.int64), 1, constant_values=-1)
    kinds = np.where(things >= 0, arrays.objects[number, things, 0], -1)
    usable = np.isin(kinds, (c.FRIDGE, c.STOVE, c.SHOWER))
    for k, (dy, dx) in enumerate(ring(1, 1)):
        there = np.s_[dy : dy + height, dx : dx + width]
        if k < 4:  # the ring begins with the tiles of the four steps, in their order
            tile[..., c.WAYS] |= (walkable[there] != 0).astype(np.int32) << k
        tile[..., c.THINGS] |= (things[there] >= 0).astype(np.int32) << k
        tile[..., c.USABLE] |= usable[there].astype(np.int32) << k
        tile[..., c.N_THINGS] += things[there] >= 0
    for kind, column in ((c.TABLE, c.TABLE_BESIDE), (c.TILL, c.TILL_BESIDE)):
        nearest = arrays.near[number, :, :, kind].astype(np.int64)
        ys, xs = np.indices(nearest.shape)
        beside = (nearest >= 0) & (arrays.dist[number, nearest, ys, xs] == 0)
        tile[..., column] = np.where(beside, nearest, -1) if kind == c.TABLE else beside


def _nearest(arrays: LayoutArrays, number: int, kind: int, ids: list[int]) -> None:
    """Fill ``near`` and the tile features of one object type."""
    cell = arrays.cell[number, :, :, 3 * kind : 3 * kind + 3]
    cell[..., 2] = 1.0
    if not ids:
        return
    stack = arrays.dist[number, ids]
    best = stack.argmin(axis=0)
    dist = np.take_along_axis(stack, best[None], axis=0)[0].astype(np.int32)
    reachable = dist < UNREACHABLE
    arrays.near[number, :, :, kind] = np.where(reachable, np.asarray(ids)[best], -1)
    cell[..., 2] = np.minimum(dist / 64.0, 1.0)
    height, width = dist.shape
    pending = reachable & (dist > 0)
    padded = np.full((height + 2, width + 2), UNREACHABLE, np.int32)
    padded[1:-1, 1:-1] = dist
    for dy, dx in ((-1, 0), (1, 0), (0, 1), (0, -1)):
        there = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        take = pending & (there < dist)
        cell[take, 0] = dx
        cell[take, 1] = dy
        pending &= ~take
