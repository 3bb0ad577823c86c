"""All formats together: the cases from the field, the same room in each, and files that are damaged anyhow.

`STLLM_DAMAGED=2000 pytest tests/runtime/inputs/clouds/test_clouds.py` damages so many copies of each file.
"""

import importlib.util
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
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


def saved(save: Callable[..., object], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def las(points: np.ndarray, colours: np.ndarray, compressed: bool) -> bytes:
    """Of a file whose steps are a tenth of a millimetre."""
    import laspy

    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales = [1e-4] * 3
    written = laspy.LasData(header)
    written.xyz = points.astype(np.float64)
    written.red, written.green, written.blue = (colours.astype(np.uint16) * 257).T
    return saved(lambda buffer: written.write(buffer, do_compress=compressed))


def draco(points: np.ndarray, colours: np.ndarray, write: Any) -> bytes:
    """A GLB whose geometry is compressed."""
    import DracoPy

    packed = DracoPy.encode(points, colors=colours, quantization_bits=20, preserve_order=True)
    extension = {"bufferView": 2, "attributes": {"POSITION": 0, "COLOR_0": 1}}

    def change(tree: dict[str, Any]) -> None:
        for accessor in tree["accessors"][:2]:
            del accessor["bufferView"]
        tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}

    blob = np.frombuffer(packed + bytes(-len(packed) % 4), np.uint8).reshape(-1, 4)
    return bytes(write.glb({"POSITION": points, "COLOR_0": colours, "_PACKED": blob}, change=change))


@pytest.fixture(scope="module")
def files(cloud, write) -> dict[str, bytes]:
    """The cloud in every format that needs no library, by suffix and form."""
    columns = write.named(cloud.points, cloud.colours)
    packed = dict(zip("xyz", cloud.points.T, strict=True)) | {"rgb": write.packed(cloud.colours)}
    table = np.concatenate([cloud.points, cloud.colours], axis=1)
    text = "".join(" ".join(f"{number:.9g}" for number in row) + "\n" for row in table)
    half = [{"POSITION": cloud.points[part], "COLOR_0": cloud.colours[part]} for part in (slice(20), slice(20, None))]
    return {
        "ascii.ply": write.ply(columns, form="ascii"),
        "little.ply": write.ply(columns),
        "big.ply": write.ply(packed, form="binary_big_endian"),
        "two.glb": write.glb(*half),
        "ascii.pcd": write.pcd(packed, data="ascii"),
        "binary.pcd": write.pcd(columns),
        "compressed.pcd": write.pcd(packed, data="binary_compressed"),
        "plain.npy": saved(np.save, table),
        "plain.npz": saved(np.savez, points=cloud.points, colours=cloud.colours),
        "compressed.npz": saved(np.savez_compressed, points=cloud.points, colours=cloud.colours),
        "rows.xyz": text.encode(),
        "named.csv": ("x,y,z,r,g,b\n" + text.replace(" ", ",")).encode(),
    }


@pytest.fixture(scope="module")
def library_files(cloud, write) -> dict[str, bytes]:
    """The cloud in the formats whose libraries are installed."""
    found = {}
    if importlib.util.find_spec("laspy"):
        found["points.las"] = las(*cloud, compressed=False)
        if importlib.util.find_spec("lazrs"):
            found["points.laz"] = las(*cloud, compressed=True)
    if importlib.util.find_spec("DracoPy"):
        found["draco.glb"] = draco(*cloud, write)
    return found


def test_every_format_gives_the_same_cloud(files, library_files, cloud, tmp_path: Path) -> None:
    for name, content in {**files, **library_files}.items():
        file = tmp_path / name
        file.write_bytes(content)
        known = load_points(file)
        tolerance = 1e-4 if name in library_files else 0
        assert np.abs(known.points - cloud.points).max() <= tolerance, name
        assert np.array_equal(known.colours, cloud.colours), name
        assert not known.offset.any(), name


# damaged files


def test_damaged_files_are_read_or_refused_within_bounds(files, library_files, tmp_path: Path) -> None:
    for name, content in {**files, **library_files}.items():
        (tmp_path / name).write_bytes(content)
    script, count = Path(__file__).with_name("damaged.py"), os.environ.get("STLLM_DAMAGED", "60")
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), count]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
