"""Colours of the nearest points against pixels."""

import numpy as np
import pytest
from stllm_edge.runtime.fit.colours import agreement, project

SIZE = (64, 48)
INTRINSICS = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def wall(depth: float, generator: np.random.Generator, count: int = 4000) -> np.ndarray:
    return np.concatenate([generator.uniform(-2, 2, (count, 2)), np.full((count, 1), depth)], axis=1)


def painted(points: np.ndarray) -> np.ndarray:
    """A colour by place, smooth over a pixel."""
    return 127 + 100 * np.sin(3 * points @ [[1, 0, 2.0], [0, 1, 1], [0, 0, 0]])


def picture(depth: float) -> np.ndarray:
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(INTRINSICS).T
    return np.clip(painted(rays * depth), 0, 255).astype(np.uint8)


@pytest.fixture
def seen() -> tuple[np.ndarray, np.ndarray]:
    points = wall(2.0, np.random.default_rng(0))
    return points, painted(points)


def test_points_fall_where_the_camera_sees_them() -> None:
    points = np.array([[0.0, 0, 2], [1, 0, 2], [0, 0, -2], [9, 0, 2]])
    index, pixels, depth = project(points, np.eye(4), INTRINSICS, SIZE)
    assert index.tolist() == [0, 1]
    assert pixels.tolist() == [[32, 24], [57, 24]]
    assert depth.tolist() == [2, 2]


def test_the_right_frame_agrees(seen) -> None:
    found = agreement(*seen, [np.eye(4)], INTRINSICS, [picture(2.0)], SIZE)
    assert found.cells > 300
    assert found.share > 0.9
    assert found.plain > 0.9
    assert found.difference < 6
    assert found.depth == pytest.approx(2.0)


def test_a_mirrored_frame_does_not(seen) -> None:
    found = agreement(*seen, [np.eye(4)], INTRINSICS, [picture(2.0)[:, ::-1]], SIZE)
    assert found.share < 0.3


def test_exposure_does_not_matter_and_is_seen_in_the_plain_share(seen) -> None:
    dark = (picture(2.0) * 0.6).astype(np.uint8)
    found = agreement(*seen, [np.eye(4)], INTRINSICS, [dark], SIZE)
    assert found.share > 0.85
    assert found.plain < found.share


def test_what_is_hidden_is_not_compared(seen) -> None:
    behind = wall(6.0, np.random.default_rng(1)) * [3, 3, 1]
    points = np.concatenate([seen[0], behind])
    colours = np.concatenate([seen[1], np.full((len(behind), 3), 255.0)])
    found = agreement(points, colours, [np.eye(4)], INTRINSICS, [picture(2.0)], SIZE)
    assert found.depth == pytest.approx(2.0)
    assert found.plain > 0.9


def test_frames_may_be_smaller_than_the_intrinsics_say(seen) -> None:
    half = picture(2.0)[::2, ::2]
    assert agreement(*seen, [np.eye(4)], INTRINSICS, [half], SIZE).share > 0.8


def test_nothing_in_view_is_nothing_known(seen) -> None:
    away = np.diag([1.0, -1, -1, 1])
    found = agreement(*seen, [away], INTRINSICS, [picture(2.0)], SIZE)
    assert (found.cells, found.share, found.seen) == (0, 0.0, 0.0)
    assert np.isnan(found.depth)
