"""All formats together: the cases from the field, and the same room in each."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import Scene, load_clip, load_scene
from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.host.rays import voxel_directions, voxel_poses, world_to_first_camera
from stllm_edge.runtime.host.voxels import Voxels, voxelise
from stllm_edge.runtime.inputs.points import load_points
from stllm_edge.runtime.inputs.selection import select_frames

# cases from the field


def looked_at(scene: Scene, video: Path, size: float = 0.2) -> tuple[Voxels, dict[tuple[int, ...], np.ndarray]]:
    """Voxels, and the direction to each by its index."""
    voxels = voxelise(scene.points, scene.colours, size)
    clip = load_clip(video, first_frame=1)
    selection = select_frames(clip, scene.poses, frames=4, default=4, offset=scene.offset)
    w2c = world_to_first_camera(voxel_poses(selection.poses, voxels.minimum, size))
    directions = voxel_directions(voxels.coords, w2c)
    return voxels, dict(zip(map(tuple, voxels.coords.tolist()), directions, strict=True))


def in_the_room(cases: Path, cloud: str, poses: str = "room/poses", **options: Any) -> Scene:
    return load_scene(cases / cloud, poses=cases / poses, intrinsics=cases / "room/K.txt", **options)


def agreement(cases: Path, scene: Scene, size: float = 0.2) -> tuple[float, float]:
    """Share of the clean room's voxels that are in place, and the largest angle between directions, degrees."""
    video = cases / "room/video"
    _, right = looked_at(in_the_room(cases, "room/cloud.ply"), video, size)
    _, found = looked_at(scene, video, size)
    common = right.keys() & found.keys()
    unit = ([side[key] / np.linalg.norm(side[key]) for key in common] for side in (right, found))
    cosines = [float(ours @ theirs) for ours, theirs in zip(*unit, strict=True)]
    return len(common) / max(len(right), len(found)), float(np.degrees(np.arccos(np.clip(min(cosines), -1, 1))))


CASES = {
    "06-glb-node-transform/translated/cloud.glb": 1.0,
    "07-glb-several-geometries/two_chunks/cloud.glb": 1.0,
    "21-colours-0-to-1/ply/cloud.ply": 1.0,
    "27-cloud-messages/uint16/cloud.ply": 1.0,
    "27-cloud-messages/diffuse/cloud.ply": 1.0,
    "27-cloud-messages/comment_utf8/cloud.ply": 1.0,
    "27-cloud-messages/nan/cloud.ply": 0.98,
    "99-stays-right/ply_big_endian/cloud.ply": 1.0,
    "99-stays-right/ply_header_crlf/cloud.ply": 1.0,
    "99-stays-right/glb_uint16/cloud.glb": 1.0,
}


@pytest.mark.parametrize("cloud", CASES)
def test_the_room_as_others_write_it(cloud: str, cases: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        scene = in_the_room(cases, cloud)
    assert ("have coordinates that are NaN" in caplog.text) == ("nan" in cloud)
    assert len(caplog.records) == ("nan" in cloud)
    share, angle = agreement(cases, scene)
    assert share >= CASES[cloud]
    assert angle < 0.1
    if "two_chunks" not in cloud and "nan" not in cloud:
        # in another order of points, another one gives a voxel its colour
        right = in_the_room(cases, "room/cloud.ply")
        assert np.array_equal(
            voxelise(scene.points, scene.colours, 0.2).feats, voxelise(right.points, right.colours, 0.2).feats
        )


def test_a_national_grid(cases: Path) -> None:
    folder = "15-map-coordinates-double/national_grid"
    share, angle = agreement(cases, in_the_room(cases, f"{folder}/cloud.ply", f"{folder}/poses"), 0.06)
    assert share > 0.99
    assert angle < 0.1


def test_a_stray_point_is_told_and_cropped(cases: Path, caplog) -> None:
    cloud = "14-stray-points/far/cloud.ply"
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        in_the_room(cases, cloud)
    assert "spans 2005 x 2006 x 2002 m" in caplog.text
    assert "rounded relative to the furthest, here by up to 7.8 m" in caplog.text
    assert "--crop 4 leaves out the points far off, 1 of 4001" in caplog.text
    assert agreement(cases, in_the_room(cases, cloud, crop=4)) == (1, pytest.approx(0, abs=0.1))


def test_a_draco_placeholder_is_refused(cases: Path) -> None:
    with pytest.raises(StllmError, match="compressed with Draco"):
        in_the_room(cases, "17-glb-compressed/draco_placeholder/cloud.glb")


# the same in every format


def test_every_format_gives_the_same_cloud(files, library_files, cloud, tmp_path: Path) -> None:
    for name, content in {**files, **library_files}.items():
        file = tmp_path / name
        file.write_bytes(content)
        known = load_points(file)
        tolerance = 1e-4 if name in library_files else 0
        assert np.abs(known.points - cloud.points).max() <= tolerance, name
        assert np.array_equal(known.colours, cloud.colours), name
        assert not known.offset.any(), name


def test_damaged_clouds_are_read_or_refused(files, library_files, tmp_path: Path, survives_damage: Any) -> None:
    for name, content in {**files, **library_files}.items():
        (tmp_path / name).write_bytes(content)
    survives_damage("clouds", tmp_path, 60)
