"""Frames of a room by casting rays at boxes, and its point cloud by sampling their surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .furniture import Box, Furniture
from .room import WALL_HEIGHT, Room

__all__ = ["FRAME_SIZE", "INTRINSICS", "Body", "Frame", "render", "sample_cloud"]

FRAME_SIZE = (96, 72)
FIELD_OF_VIEW = np.deg2rad(80)
FOCAL = FRAME_SIZE[0] / 2 / np.tan(FIELD_OF_VIEW / 2)
INTRINSICS = np.array([[FOCAL, 0, FRAME_SIZE[0] / 2], [0, FOCAL, FRAME_SIZE[1] / 2], [0, 0, 1.0]])
SKY = (232.0, 235.0, 240.0)  # there is no ceiling
LIGHT = np.array([0.36, 0.2, 0.91])
AMBIENT = 0.74
NOISE = 2.5  # of a pixel or a point's colour, 0..255
ROOM, SPACING, ROUGHNESS = -1, 0.05, 0.002
# Sides of a box: an axis, and whether its lower or its upper end.
UPRIGHT, FLOOR, TOP = ((0, 0), (0, 1), (1, 0), (1, 1)), (2, 0), (2, 1)
PARALLEL = np.float32(1e-9)  # a ray's component that stands for none


@dataclass(frozen=True)
class Body:
    """Boxes in one frame of their own.

    Attributes:
        rotation: [3, 3] float64, from its own frame to the room's.
        origin: [3] float64, of its own frame, metres.
        low: [B, 3] float64, metres, in its own frame.
        high: [B, 3] float64, metres, in its own frame.
        colours: [B, 3] float64, 0..255.
    """

    rotation: np.ndarray
    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colours: np.ndarray

    @classmethod
    def of(cls, boxes: Sequence[Box], rotation: np.ndarray, origin: np.ndarray) -> "Body":
        low, high, colours = (np.array([getattr(box, name) for box in boxes]) for name in ("low", "high", "colour"))
        return cls(rotation, origin, low, high, colours)

    @classmethod
    def of_furniture(cls, piece: Furniture) -> "Body":
        return cls.of(piece.boxes, piece.rotation, piece.to_room((0.0, 0.0, 0.0)))


@dataclass(frozen=True)
class Frame:
    """What the camera sees.

    Attributes:
        pixels: [H, W, 3] uint8.
        owner: [H, W] int64, index of the body that is seen, -1 where it is the room itself.
    """

    pixels: np.ndarray
    owner: np.ndarray

    def share(self, body: int) -> float:
        """Share of the pixels that show a body."""
        return float((self.owner == body).mean())

    def middle(self) -> "Frame":
        """The middle half of the width and of the height."""
        rows, columns = (slice(side // 4, side - side // 4) for side in self.owner.shape)
        return Frame(self.pixels[rows, columns], self.owner[rows, columns])


def render(room: Room, bodies: Sequence[Body], pose: np.ndarray, generator: np.random.Generator) -> Frame:
    """Look at bodies in a room from a camera-to-world pose [4, 4] with OpenCV axes."""
    rays = RAYS @ pose[:3, :3].T
    eye = pose[:3, 3]
    depth, pixels = look_at_room(room, eye, rays)
    owner = np.full(len(rays), ROOM)
    for index, body in enumerate(bodies):
        chosen, distance, colours = look_at_body(body, eye, rays)
        nearer = distance < depth[chosen]
        chosen = chosen[nearer]
        depth[chosen], pixels[chosen], owner[chosen] = distance[nearer], colours[nearer], index
    pixels += generator.normal(0, NOISE, pixels.shape)
    shape = FRAME_SIZE[::-1]
    return Frame(np.clip(pixels, 0, 255).round().astype(np.uint8).reshape(*shape, 3), owner.reshape(shape))


def view_rays() -> np.ndarray:
    """Unit vectors through the centres of the pixels, row by row, in the camera's axes, [72·96, 3] float64."""
    x, y = np.meshgrid(*(np.arange(side) + 0.5 for side in FRAME_SIZE))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1) @ np.linalg.inv(INTRINSICS).T
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


RAYS = view_rays()


def brightness(normals: np.ndarray) -> np.ndarray:
    """Lambert's law with much ambient light; normals [..., 3] in the room."""
    return AMBIENT + (1 - AMBIENT) * normals @ LIGHT


def look_at_room(room: Room, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [N] and colour [N, 3] of floor, wall or sky along rays [N, 3] from inside the room."""
    limits = np.array([*room.size, np.inf])
    with np.errstate(divide="ignore"):
        reach = np.where(rays > 0, limits - eye, eye) / np.abs(rays)
    side = reach.argmin(axis=1)
    depth = reach[np.arange(len(rays)), side]
    colours = np.empty_like(rays)
    for axis, paint in enumerate((room.walls, room.walls, room.floor)):
        for sign in (-1, 1):
            seen = (side == axis) & (np.sign(rays[:, axis]) == sign)
            normal = np.zeros(3)
            normal[axis] = -sign
            colours[seen] = np.asarray(paint) * brightness(normal)
    above = eye[2] + depth * rays[:, 2] > WALL_HEIGHT
    colours[above] = SKY
    return np.where(above, np.inf, depth), colours


def look_at_body(body: Body, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rays [N, 3] hit a body: their indices [H], the distances [H] and the colours there [H, 3]."""
    start = (eye - body.origin) @ body.rotation
    low, high = body.low.min(axis=0), body.high.max(axis=0)
    # only rays within the cone around the body's bounding sphere are tried; from inside the sphere all are
    towards, radius = (low + high) / 2 - start, np.linalg.norm(high - low) / 2
    distance = np.linalg.norm(towards)
    cosine = np.sqrt(1 - (radius / distance) ** 2) if distance > radius else -1.0
    candidates = np.flatnonzero(rays @ (body.rotation @ towards) >= cosine * distance)

    # slabs: a ray is inside a box from the last of the three planes that it enters by to the first that it leaves by;
    # a component near zero would divide by zero, so it is replaced by a tiny one, which is as good as never entering
    local = (rays[candidates] @ body.rotation).T.astype(np.float32)  # [3, C]
    inverse = 1 / np.where(np.abs(local) < PARALLEL, PARALLEL, local)
    first, second = (
        (bound - start).T.astype(np.float32)[:, :, None] * inverse[:, None] for bound in (body.low, body.high)
    )
    entry, leaving = np.minimum(first, second), np.maximum(first, second).min(axis=0)  # [3, B, C], [B, C]
    depth = entry.max(axis=0)
    depth[(depth > leaving) | (depth <= 0)] = np.inf
    nearest, column = depth.argmin(axis=0), np.arange(len(candidates))
    hit = np.isfinite(depth[nearest, column])
    nearest, column, candidates = nearest[hit], column[hit], candidates[hit]

    axis = entry[:, nearest, column].argmax(axis=0)
    facing = -np.sign(local[axis, column])
    normals = body.rotation.T[axis] * facing[:, None]
    return candidates, depth[nearest, column], body.colours[nearest] * brightness(normals)[:, None]


def sample_cloud(room: Room, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points of floor, walls and furniture: [P, 3] float32 metres, and their colours [P, 3] uint8.

    One point every 5 cm x 5 cm of a surface on average, at random places; undersides are left out.
    """
    corner, opposite = (0.0, 0.0, 0.0), (*room.size, WALL_HEIGHT)
    shell = [(Box(corner, opposite, room.walls), side) for side in UPRIGHT] + [
        (Box(corner, opposite, room.floor), FLOOR)
    ]
    parts = [sample_side(box, *side, np.eye(3), False, generator) for box, side in shell]
    for piece in room.furniture:
        for box in piece.boxes:
            for side in (*UPRIGHT, TOP):
                points, colours = sample_side(box, *side, piece.rotation, True, generator)
                parts.append((np.add(points, [*piece.centre, 0.0]), colours))
    points, colours = (np.concatenate(column) for column in zip(*parts, strict=True))
    points += generator.normal(0, ROUGHNESS, points.shape)
    colours += generator.normal(0, NOISE, colours.shape)
    return points.astype(np.float32), np.clip(colours, 0, 255).round().astype(np.uint8)


def sample_side(
    box: Box, axis: int, upper: int, rotation: np.ndarray, outwards: bool, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random points of one side of a turned box, the lower or the upper one along an axis, as seen from one side.

    Returns:
        [P, 3] float64 metres and [P, 3] float64 colours 0..255.
    """
    extent = np.subtract(box.high, box.low)
    count = generator.poisson(np.delete(extent, axis).prod() / SPACING**2)
    at = generator.random((count, 3))
    at[:, axis] = upper
    normal = rotation[:, axis] * (1 if outwards == bool(upper) else -1)
    colours = np.tile(np.asarray(box.colour) * brightness(normal), (count, 1))
    return (np.asarray(box.low) + at * extent) @ rotation.T, colours
