"""Kinds of furniture: what each is built of, what one can do with it, where things lie on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["AFFORDANCES", "COLOURS", "KINDS", "Box", "Extent", "Furniture", "build", "draw_size", "turned"]

COLOURS = {
    "red": (205, 40, 40),
    "orange": (240, 130, 30),
    "yellow": (232, 210, 50),
    "green": (45, 160, 65),
    "turquoise": (50, 195, 195),
    "blue": (45, 75, 205),
    "purple": (125, 50, 170),
    "pink": (240, 130, 185),
}
AFFORDANCES = {
    "Sit on it.": ("chair", "stool", "sofa"),
    "Lie down on it.": ("bed", "mattress", "lounger"),
    "Put things on it.": ("table", "desk", "stand"),
    "Keep things inside it.": ("cabinet", "bookshelf", "fridge"),
}
COLOUR_JITTER = 0.05
LINE = 0.02  # depth of door lines and handles before the front, metres
DARK = 0.45

Extent = tuple[float, float, float]
Part = tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]


@dataclass(frozen=True)
class Box:
    """An axis-parallel box in its furniture's frame; metres, colour 0..255."""

    low: Extent
    high: Extent
    colour: Extent

    def scaled(self, factor: float) -> "Box":
        """The same box nearer or farther from the origin."""
        low, high = ((factor * x, factor * y, factor * z) for x, y, z in (self.low, self.high))
        return Box(low, high, self.colour)


@dataclass(frozen=True)
class Furniture:
    """A piece of furniture. Its own frame has the origin on the floor below its centre, y to its front and z up.

    Attributes:
        kind: one of `KINDS`.
        colour: one of `COLOURS`.
        centre: x and y in the room, metres.
        size: width, depth and height, metres.
        yaw: its frame's turn about z, radians.
        boxes: what it is built of, in its own frame.
        rest: where things lie on it, in its own frame, metres.
    """

    kind: str
    colour: str
    centre: tuple[float, float]
    size: Extent
    yaw: float
    boxes: tuple[Box, ...]
    rest: Extent

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def affordance(self) -> str:
        return next(affordance for affordance, kinds in AFFORDANCES.items() if self.kind in kinds)

    @cached_property
    def rotation(self) -> np.ndarray:
        """[3, 3] float64, from its own frame to the room's."""
        return turned(self.yaw)

    def to_room(self, point: Extent) -> np.ndarray:
        """A point of its own frame in the room's, [3] float64."""
        return self.rotation @ np.asarray(point) + [*self.centre, 0.0]

    def clearance(self, places: np.ndarray) -> np.ndarray:
        """Distance of places [P, 2] from its footprint, [P] float64, metres; negative inside."""
        local = np.abs((places - np.asarray(self.centre)) @ self.rotation[:2, :2]) - np.asarray(self.size[:2]) / 2
        return np.linalg.norm(np.maximum(local, 0), axis=1) + np.minimum(local.max(axis=1), 0)

    def to_json(self) -> dict[str, Any]:
        boxes = [{"low": box.low, "high": box.high, "colour": box.colour} for box in self.boxes]
        names = ("name", "kind", "colour", "centre", "size", "yaw", "rest")
        return {name: getattr(self, name) for name in names} | {"boxes": boxes}


@dataclass(frozen=True)
class Kind:
    """How a kind varies: smallest and largest size, its parts by size, and where things lie by size."""

    smallest: Extent
    largest: Extent
    parts: Callable[[float, float, float], list[Part]]
    rest: Callable[[float, float, float], Extent]


def draw_size(kind: str, generator: np.random.Generator) -> Extent:
    """A random width, depth and height of a kind, metres."""
    width, depth, height = generator.uniform(KINDS[kind].smallest, KINDS[kind].largest).tolist()
    return width, depth, height


def build(
    kind: str, colour: str, size: Extent, centre: tuple[float, float], yaw: float, generator: np.random.Generator
) -> Furniture:
    """A piece whose paint varies a little."""
    paint = np.asarray(COLOURS[colour]) * (1 + generator.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3))
    boxes = tuple(
        Box((x[0], y[0], z[0]), (x[1], y[1], z[1]), tuple(np.clip(paint * shade, 0, 255).tolist()))
        for x, y, z, shade in KINDS[kind].parts(*size)
    )
    return Furniture(kind, colour, centre, size, yaw, boxes, KINDS[kind].rest(*size))


def turned(yaw: float) -> np.ndarray:
    """Rotation about z, [3, 3] float64."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def legs(width: float, depth: float, height: float, thickness: float) -> list[Part]:
    """Four legs at the corners."""
    x, y = width / 2, depth / 2
    sides = [((-x, -x + thickness), (x - thickness, x)), ((-y, -y + thickness), (y - thickness, y))]
    return [(across, along, (0.0, height), 0.85) for across in sides[0] for along in sides[1]]


def slab(width: float, depth: float, bottom: float, top: float, shade: float = 1.0) -> Part:
    """A board as large as the footprint."""
    return (-width / 2, width / 2), (-depth / 2, depth / 2), (bottom, top), shade


def chair(w: float, d: float, h: float) -> list[Part]:
    back = ((-w / 2, w / 2), (-d / 2, -d / 2 + 0.06), (0.46, h), 1.0)
    return [*legs(w, d, 0.4, 0.05), slab(w, d, 0.4, 0.46), back]


def stool(w: float, d: float, h: float) -> list[Part]:
    return [*legs(w, d, h - 0.07, 0.05), slab(w, d, h - 0.07, h)]


def sofa(w: float, d: float, h: float) -> list[Part]:
    back = ((-w / 2, w / 2), (-d / 2, -d / 2 + 0.2), (0.4, h), 1.0)
    arms = [
        (side, (-d / 2 + 0.2, d / 2), (0.4, 0.58), 0.9) for side in ((-w / 2, -w / 2 + 0.16), (w / 2 - 0.16, w / 2))
    ]
    return [slab(w, d, 0.05, 0.4), back, *arms]


def bed(w: float, d: float, h: float) -> list[Part]:
    headboard = ((-w / 2, w / 2), (-d / 2, -d / 2 + 0.08), (0.0, h), 0.8)
    pillow = ((-w * 0.35, w * 0.35), (-d / 2 + 0.14, -d / 2 + 0.44), (0.5, 0.58), 1.15)
    return [slab(w, d, 0.1, 0.3, 0.75), slab(w, d, 0.3, 0.5), headboard, pillow]


def mattress(w: float, d: float, h: float) -> list[Part]:
    return [slab(w, d, 0.0, h)]


def lounger(w: float, d: float, h: float) -> list[Part]:
    """The raised back is a flight of steps."""
    steps = np.linspace(0.34, h, 6)[1:]
    edges = np.linspace(-d * 0.15, -d / 2, 6)
    back = [
        ((-w / 2, w / 2), (float(far), float(near)), (float(top) - 0.12, float(top)), 1.0)
        for near, far, top in zip(edges, edges[1:], steps, strict=False)
    ]
    return [*legs(w, d, 0.28, 0.05), slab(w, d, 0.28, 0.34), *back]


def table(w: float, d: float, h: float) -> list[Part]:
    return [*legs(w, d, h - 0.05, 0.07), slab(w, d, h - 0.05, h)]


def desk(w: float, d: float, h: float) -> list[Part]:
    panel = ((-w / 2, -w / 2 + 0.04), (-d / 2, d / 2), (0.0, h - 0.05), 0.85)
    drawers = ((w / 2 - 0.4, w / 2), (-d / 2, d / 2), (0.0, h - 0.05), 0.85)
    gaps = [((w / 2 - 0.38, w / 2 - 0.02), (d / 2, d / 2 + LINE), (z, z + 0.03), DARK) for z in (h * 0.3, h * 0.62)]
    return [slab(w, d, h - 0.05, h), panel, drawers, *gaps]


def stand(w: float, d: float, h: float) -> list[Part]:
    column = ((-0.06, 0.06), (-0.06, 0.06), (0.05, h - 0.05), 0.85)
    return [slab(w, d, 0.0, 0.05), column, slab(w, d, h - 0.05, h)]


def cabinet(w: float, d: float, h: float) -> list[Part]:
    front = (d / 2, d / 2 + LINE)
    crack = ((-0.015, 0.015), front, (0.06, h - 0.06), DARK)
    knobs = [((x - 0.03, x + 0.03), front, (h * 0.55, h * 0.7), DARK) for x in (-0.1, 0.1)]
    return [slab(w, d, 0.0, h), crack, *knobs]


def bookshelf(w: float, d: float, h: float) -> list[Part]:
    sides = [(x, (-d / 2, d / 2), (0.0, h), 1.0) for x in ((-w / 2, -w / 2 + 0.04), (w / 2 - 0.04, w / 2))]
    return [*sides, *(slab(w, d, float(z), float(z) + 0.05, 0.9) for z in np.linspace(0.04, h - 0.05, 4))]


def fridge(w: float, d: float, h: float) -> list[Part]:
    front = (d / 2, d / 2 + LINE)
    crack = ((-w / 2, w / 2), front, (h * 0.62, h * 0.62 + 0.03), DARK)
    handles = [
        ((w / 2 - 0.12, w / 2 - 0.07), front, (h * low, h * high), DARK) for low, high in ((0.4, 0.58), (0.68, 0.84))
    ]
    return [slab(w, d, 0.0, h), crack, *handles]


def on_top(w: float, d: float, h: float) -> Extent:
    return 0.0, 0.0, h


# Nothing is higher than the eyes of the person, who may walk above what is in the way.
KINDS = {
    "chair": Kind((0.42, 0.42, 0.85), (0.5, 0.5, 1.0), chair, lambda w, d, h: (0.0, 0.03, 0.46)),
    "stool": Kind((0.38, 0.38, 0.42), (0.46, 0.46, 0.55), stool, on_top),
    "sofa": Kind((1.3, 0.7, 0.7), (1.6, 0.8, 0.82), sofa, lambda w, d, h: (0.0, 0.1, 0.4)),
    "bed": Kind((1.0, 1.7, 0.85), (1.2, 1.9, 1.0), bed, lambda w, d, h: (0.0, 0.1, 0.5)),
    "mattress": Kind((0.75, 1.6, 0.15), (0.9, 1.8, 0.22), mattress, on_top),
    "lounger": Kind((0.55, 1.5, 0.75), (0.65, 1.7, 0.9), lounger, lambda w, d, h: (0.0, d * 0.15, 0.34)),
    "table": Kind((1.0, 0.65, 0.68), (1.3, 0.8, 0.76), table, on_top),
    "desk": Kind((1.0, 0.5, 0.72), (1.2, 0.6, 0.78), desk, on_top),
    "stand": Kind((0.36, 0.36, 0.8), (0.46, 0.46, 1.0), stand, on_top),
    "cabinet": Kind((0.8, 0.4, 0.85), (1.1, 0.5, 0.95), cabinet, on_top),
    "bookshelf": Kind((0.7, 0.28, 1.15), (0.95, 0.34, 1.32), bookshelf, on_top),
    "fridge": Kind((0.55, 0.55, 1.3), (0.65, 0.65, 1.4), fridge, on_top),
}
