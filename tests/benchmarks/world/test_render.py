"""The ray caster and the point cloud against boxes whose picture is known."""

import numpy as np
from stllm_edge.benchmarks.world.furniture import Box, turned
from stllm_edge.benchmarks.world.render import INTRINSICS, Body, render, sample_cloud
from stllm_edge.benchmarks.world.room import Room, make_room

EMPTY = Room((5.0, 4.0), (130.0, 130.0, 130.0), (210.0, 205.0, 200.0), ())
LOOKING_ALONG_X = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 1.5], [0, 0, 0, 1]])


def cube(x: float, y: float, z: float, half: float, yaw: float = 0.0) -> Body:
    return Body.of([Box((-half,) * 3, (half,) * 3, (200.0, 40.0, 40.0))], turned(yaw), np.array([x, y, z]))


def test_cube_covers_the_pixels_of_its_near_face() -> None:
    frame = render(EMPTY, [cube(3.5, 2, 1.5, 0.5)], LOOKING_ALONG_X, np.random.default_rng(0))
    half = INTRINSICS[0, 0] * 0.5 / 2.0
    rows, columns = np.nonzero(frame.owner == 0)
    assert (columns.min(), columns.max() + 1) == (round(48 - half), round(48 + half))
    assert (rows.min(), rows.max() + 1) == (round(36 - half), round(36 + half))
    assert frame.share(0) == (frame.owner == 0).sum() / (72 * 96)
    assert np.abs(frame.pixels[36, 48].astype(float) - np.array([200, 40, 40]) * 0.65).max() < 12


def test_nearer_body_hides_the_farther_and_what_is_behind_is_not_seen() -> None:
    bodies = [cube(4, 2, 1.5, 0.3), cube(2.5, 2, 1.5, 0.3, yaw=0.4), cube(0.4, 2, 1.5, 0.3)]
    frame = render(EMPTY, bodies, LOOKING_ALONG_X, np.random.default_rng(0))
    assert set(np.unique(frame.owner)) == {-1, 1}
    left = render(EMPTY, [cube(3, 2.6, 1.5, 0.2)], LOOKING_ALONG_X, np.random.default_rng(0))
    assert np.nonzero(left.owner == 0)[1].max() < 48, "y to the left of x"


def test_floor_wall_and_open_top_are_where_they_are() -> None:
    frame = render(EMPTY, [], LOOKING_ALONG_X, np.random.default_rng(0))
    focal = INTRINSICS[1, 1]
    top, bottom = 36 - focal * 0.9 / 4, 36 + focal * 1.5 / 4
    column = frame.pixels[:, 48].astype(float)
    assert column[: int(top) - 1].min() > 220
    assert np.ptp(column[int(top) + 2 : int(bottom) - 1].mean(axis=1)) < 25
    assert column[int(bottom) + 2 :, 0].max() < 145


def test_cloud_lies_on_the_surfaces_at_its_density_with_their_colours() -> None:
    room = make_room(5, 0)
    points, colours = sample_cloud(room, np.random.default_rng(0))
    assert (points.dtype, colours.dtype) == (np.float32, np.uint8)
    distances = np.min([surface_distance(points, piece) for piece in room.furniture], axis=0)
    shell = np.abs(np.column_stack([points, points[:, :2] - room.size])).min(axis=1)
    assert np.minimum(distances, shell).max() < 0.012
    floor = np.abs(points[:, 2]) < 0.01
    assert abs(floor.sum() * 0.05**2 / np.prod(room.size) - 1) < 0.1
    assert np.abs(colours[floor & (distances > 0.1)].mean(axis=0) / room.floor - 1).max() < 0.03
    assert 2.38 < points[:, 2].max() < 2.42


def surface_distance(points: np.ndarray, piece: object) -> np.ndarray:
    """Distance [P] from the nearest box's surface, from outside or inside."""
    local = (points - [*piece.centre, 0.0]) @ turned(piece.yaw)  # type: ignore[attr-defined]
    best = np.full(len(points), np.inf)
    for box in piece.boxes:  # type: ignore[attr-defined]
        over = np.maximum(np.asarray(box.low) - local, local - np.asarray(box.high))
        best = np.minimum(best, np.abs(np.linalg.norm(np.maximum(over, 0), axis=1) + np.minimum(over.max(axis=1), 0)))
    return best
