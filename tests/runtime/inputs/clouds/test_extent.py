"""Points that are nowhere, far off, or in the coordinates of a map."""

import logging

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Clip, Scene
from stllm_edge.runtime.host.voxels import voxelise
from stllm_edge.runtime.inputs.points import to_points
from stllm_edge.runtime.inputs.selection import select_frames

ROOM = np.random.default_rng(1).uniform((0, 0, 0), (5, 6, 2.4), (2000, 3))
GREY = np.full((2000, 3), 99, np.uint8)
GRIDS = [(530_000, 180_000, 48), (691_607.34, 5_334_764.12, 515), (-1_234_567, 32_500_000, 0), (0, 4500, -2000)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [0.06, 0.05, 0.2, 0.07])
def test_voxels_do_not_depend_on_where_the_grid_begins(grid: tuple[float, ...], size: float) -> None:
    # the grid's beginning as a whole number of voxels, so that the right voxels are known
    begin = np.round(np.array(grid) / size) * size
    known = to_points(ROOM + begin, GREY)
    plain = voxelise(ROOM.astype(np.float32), GREY, size).coords
    moved = voxelise(known.points, known.colours, size).coords
    same = set(map(tuple, plain)) & set(map(tuple, moved))
    assert len(same) > 0.99 * len(plain)
    assert np.abs(known.points).max() < 600
    assert (known.offset % 126 == 0).all()


def test_a_room_keeps_its_coordinates_to_the_last_bit() -> None:
    points = ROOM.astype(np.float32)
    known = to_points(points, GREY)
    assert known.points is points
    assert known.offset.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_poses_lose_the_offset_too(kind: type) -> None:
    pose = np.eye(4)
    pose[:3, 3] = (530_001.25, 180_002.5, 1.5)
    scene = Scene.of((ROOM + np.array([530_000, 180_000, 0])).astype(kind), GREY, np.eye(3))
    clip = Clip.of([np.zeros((4, 4, 3), np.uint8)], poses=[pose])
    selection = select_frames(clip, scene.poses, frames=1, default=1, offset=scene.offset)
    assert (selection.poses[0, :3, 3] + scene.offset).tolist() == pose[:3, 3].tolist()
    assert np.abs(selection.poses[0, :3, 3]).max() < 130


def test_points_that_are_none_are_left_out_and_counted(caplog) -> None:
    points, colours = ROOM.copy(), GREY.astype(np.float32)
    points[::4] = np.nan
    points[1, 2], points[2, 0], colours[3, 1] = np.inf, 1e300, np.nan
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        known = to_points(points, colours)
    kept = np.ones(2000, bool)
    kept[::4] = kept[[1, 2, 3]] = False
    assert np.array_equal(known.points, ROOM[kept].astype(np.float32))
    assert "503 of 2000 points have coordinates that are NaN or infinite, and are left out" in caplog.text


@pytest.mark.parametrize(("share", "refused"), [(0.89, False), (0.91, True)])
def test_over_nine_of_ten_that_are_none_are_refused(share: float, refused: bool) -> None:
    points = ROOM.copy()
    points[: int(2000 * share)] = np.nan
    if not refused:
        assert len(to_points(points, GREY).points) == 220
        return
    with pytest.raises(BadInput, match="1820 of 2000 points have coordinates that are NaN or infinite, over 90%"):
        to_points(points, GREY)


@pytest.mark.parametrize("stray", [(-2000, 0, 0), (0, 0, 3000), (-150, -150, -150), (-1e6, 0, 0)])
@pytest.mark.parametrize("origin", [(0, 0, 0), (530_000, 180_000, 48)])
def test_strays_are_told_with_the_option_that_crops_them(stray, origin, caplog) -> None:
    points = np.concatenate([ROOM, [stray]]) + origin
    colours = np.concatenate([GREY, GREY[:1]])
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        to_points(points, colours)
    (record,) = caplog.records
    said = record.getMessage()
    assert "coordinates are rounded relative to the furthest" in said
    assert "leaves out the points far off, 1 of 2001" in said
    crop = float(said.partition("--crop ")[2].split()[0])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        known = to_points(points, colours, crop=crop)
    assert not caplog.text
    assert np.array_equal(known.points, to_points(ROOM + origin, GREY).points)


@pytest.mark.parametrize("share", [0, 0.01, 0.2])
def test_a_large_scene_is_told_a_room_with_a_view_is_not(share: float, caplog) -> None:
    points = ROOM.copy()
    points[: int(2000 * share)] *= 4
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        to_points(points, GREY)
    assert not caplog.text
    points *= 200
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        to_points(points, GREY)
    assert "coordinates are rounded relative to the furthest" in caplog.text
    assert "--crop" in caplog.text


@pytest.mark.parametrize("crop", [0, -1, float("nan"), float("inf")])
def test_crops_that_are_none(crop: float) -> None:
    with pytest.raises(BadInput, match="expected metres > 0"):
        to_points(ROOM, GREY, crop=crop)


def test_a_crop_that_leaves_nothing() -> None:
    with pytest.raises(BadInput, match=r"has no point within 0\.001 m of its middle"):
        to_points(ROOM[:2] * 100, GREY[:2], crop=0.001)
