"""Rooms with furniture at random places, drawn so that what is asked about always has look-alikes."""

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from .furniture import AFFORDANCES, COLOURS, KINDS, Extent, Furniture, build, draw_size

__all__ = ["WALL_HEIGHT", "Room", "generator_of", "make_room"]

WALL_HEIGHT = 2.4
SIDES = (4.5, 6.0)
PIECES = (9, 11)
GAP = 0.12  # between two pieces of furniture, and between furniture and wall, metres
PLACING_TRIES = 200
KINDS_A_ROOM, COLOURS_A_ROOM = 5, 4
STREAMS = {"room": 0, "cloud": 1, "clips": 2, "frames": 3, "turns": 4}


@dataclass(frozen=True)
class Room:
    """A room with its corner at the origin, walls along x and y, z up; metres.

    Attributes:
        size: extent along x and y.
        floor: its colour, 0..255.
        walls: their colour, 0..255.
        furniture: pieces with unique names.
    """

    size: tuple[float, float]
    floor: tuple[float, float, float]
    walls: tuple[float, float, float]
    furniture: tuple[Furniture, ...]

    def clearance(self, places: np.ndarray) -> np.ndarray:
        """Distance of places [P, 2] from the nearest footprint, [P] float64, metres; negative inside one."""
        return np.min([piece.clearance(places) for piece in self.furniture], axis=0)

    def to_json(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "floor": self.floor,
            "walls": self.walls,
            "furniture": [piece.to_json() for piece in self.furniture],
        }


def generator_of(stream: str, *numbers: int) -> np.random.Generator:
    """Random numbers for one purpose, the same wherever and in whatever order they are drawn."""
    return np.random.default_rng([STREAMS[stream], *numbers])


def make_room(seed: int, index: int) -> Room:
    """The room of this seed and index, always the same."""
    generator = generator_of("room", seed, index)
    names = draw_names(generator)
    while True:
        width, depth = generator.uniform(*SIDES, 2).tolist()
        furniture = furnish(generator, names, (width, depth))
        if furniture is not None:
            break
    floor = generator.uniform(118, 150) + generator.uniform(-8, 8, 3)
    walls = generator.uniform(195, 225) + generator.uniform(-8, 8, 3)
    return Room((width, depth), tuple(floor.tolist()), tuple(walls.tolist()), furniture)


def draw_names(generator: np.random.Generator) -> list[tuple[str, str]]:
    """Kinds and colours: one kind a group and one more, four colours, each shared by two or three pieces."""
    kinds = [str(generator.choice(group)) for group in AFFORDANCES.values()]
    kinds.append(str(generator.choice([kind for kind in KINDS if kind not in kinds])))
    colours = generator.permutation(list(COLOURS))[:COLOURS_A_ROOM].tolist()
    count = int(generator.integers(PIECES[0], PIECES[1] + 1))
    pairs = list(product(kinds, colours))
    while True:
        drawn = [pairs[place] for place in generator.permutation(len(pairs))[:count]]
        if is_even(drawn):
            return drawn


def is_even(names: list[tuple[str, str]]) -> bool:
    """Whether each kind and each colour belongs to two or three pieces; one kind may have a single piece."""
    kinds, colours = (sorted(Counter(column).values()) for column in zip(*names, strict=True))
    counts = (len(kinds), len(colours))
    return counts == (KINDS_A_ROOM, COLOURS_A_ROOM) and min(kinds[1], colours[0]) >= 2 and max(kinds + colours) <= 3


def furnish(
    generator: np.random.Generator, names: list[tuple[str, str]], size: tuple[float, float]
) -> tuple[Furniture, ...] | None:
    """Pieces at uniform places and turns, the large ones first, in random order; None when one finds no place."""
    placed: list[Furniture] = []
    taken: list[np.ndarray] = []
    for kind, colour in sorted(names, key=lambda name: -np.prod(KINDS[name[0]].largest[:2])):
        extent = draw_size(kind, generator)
        centres = generator.uniform(0, size, (PLACING_TRIES, 2))
        yaws = generator.uniform(0, 2 * np.pi, PLACING_TRIES)
        corners = footprints(centres, yaws, extent)
        free = ((corners > GAP) & (corners < np.asarray(size) - GAP)).all(axis=(1, 2))
        for other in taken:
            free &= apart(corners, other)
        if not free.any():
            return None
        chosen = int(free.argmax())
        taken.append(corners[chosen])
        centre = (float(centres[chosen, 0]), float(centres[chosen, 1]))
        placed.append(build(kind, colour, extent, centre, float(yaws[chosen]), generator))
    return tuple(placed[place] for place in generator.permutation(len(placed)))


def footprints(centres: np.ndarray, yaws: np.ndarray, size: Extent) -> np.ndarray:
    """Corners of rectangles with these centres [P, 2] and turns [P], in order around each, [P, 4, 2] float64."""
    local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.asarray(size[:2]) / 2
    c, s = np.cos(yaws), np.sin(yaws)
    rotation = np.stack([np.stack([c, s], axis=1), np.stack([-s, c], axis=1)], axis=1)
    return local @ rotation + centres[:, None]


def apart(rectangles: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether rectangles [P, 4, 2] are a gap away from another [4, 2] along a side of either, [P] bool."""
    separate = np.zeros(len(rectangles), bool)
    for sides in (np.diff(rectangles[:, :3], axis=1), np.diff(other[:3], axis=0)[None]):
        # separating axes: a rectangle's sides are the normals of its other sides
        axes = (sides / np.linalg.norm(sides, axis=2, keepdims=True)).transpose(0, 2, 1)
        a, b = rectangles @ axes, other @ axes
        gaps = np.maximum(a.min(axis=1) - b.max(axis=1), b.min(axis=1) - a.max(axis=1))
        separate |= (gaps > GAP).any(axis=1)
    return separate
