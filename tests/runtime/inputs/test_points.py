"""Point clouds from files of each kind, and every way that one can be bad."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from plyfile import PlyData, PlyElement
from stllm_edge.runtime import BadInput, Scene, load_scene

POINTS = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


COLOURS = np.random.default_rng(1).integers(0, 256, (30, 3)).astype(np.uint8)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_ply(path: Path, colours: np.ndarray | None = COLOURS, *, text: bool = False, kind: str = "u1") -> Path:
    fields = [(name, "f4") for name in "xyz"]
    columns = list(POINTS.T)
    if colours is not None:
        fields += [(name, kind) for name in ("red", "green", "blue")]
        columns += list(colours.T)
    rows = np.array(list(zip(*columns, strict=True)), dtype=fields)
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(path))
    return path


def write_glb(path: Path, *geometries: object) -> Path:
    path.write_bytes(trimesh.Scene(list(geometries)).export(file_type="glb"))
    return path


def load(inputs, cloud: Path | None = None) -> Scene:
    return load_scene(cloud or inputs.cloud, poses=inputs.poses, intrinsics=inputs.intrinsics)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8])
def test_npy_may_hold_any_numbers(inputs, dtype) -> None:
    array = np.arange(30, dtype=dtype).reshape(5, 6)
    np.save(inputs.cloud, array)
    scene = load(inputs)
    assert np.array_equal(scene.points, array[:, :3])
    assert np.array_equal(scene.colours, array[:, 3:])
    assert scene.points.dtype == scene.colours.dtype == np.float32


def test_npy_may_be_in_fortran_order(inputs) -> None:
    array = np.arange(30, dtype=np.float32).reshape(5, 6)
    np.save(inputs.cloud, np.asfortranarray(array))
    assert np.array_equal(load(inputs).points, array[:, :3])


@pytest.mark.parametrize("text", [True, False])
def test_ply(inputs, text: bool) -> None:
    scene = load(inputs, write_ply(inputs.scene / "cloud.ply", text=text))
    assert np.allclose(scene.points, POINTS, atol=1e-6)
    assert np.array_equal(scene.colours, COLOURS)


@pytest.mark.parametrize(
    "geometry",
    [
        trimesh.PointCloud(POINTS, colors=COLOURS),
        trimesh.Trimesh(POINTS, np.arange(30).reshape(10, 3), vertex_colors=COLOURS, process=False),
    ],
    ids=["points", "mesh"],
)
def test_glb(inputs, geometry) -> None:
    scene = load(inputs, write_glb(inputs.scene / "cloud.glb", geometry))
    assert np.array_equal(scene.points, POINTS)
    assert np.array_equal(scene.colours, COLOURS)


@pytest.mark.parametrize(("count", "kept"), [(1_000_000, 1_000_000), (1_000_001, 100_001)])
def test_glb_over_a_million_points_is_thinned_to_every_tenth(inputs, count: int, kept: int) -> None:
    points = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    colours = np.full((count, 4), 255, np.uint8)
    colours[:, 0] = np.arange(count) % 251
    scene = load(inputs, write_glb(inputs.scene / "cloud.glb", trimesh.PointCloud(points, colors=colours)))
    assert len(scene.points) == kept
    step = 10 if kept < count else 1
    assert np.array_equal(scene.points + scene.offset, points[::step])
    assert np.array_equal(scene.colours[:, 0], colours[::step, 0])


def test_suffixes_may_be_in_capitals(inputs) -> None:
    assert len(load(inputs, inputs.cloud.rename(inputs.scene / "CLOUD.NPY")).points) == 60


CLOUDS = {
    "no points": (npy_bytes(np.zeros((0, 6), np.float32)), "holds no points"),
    "three columns": (npy_bytes(np.zeros((4, 3), np.float32)), r"no colours; expected \[P, 6\]"),
    "seven columns": (npy_bytes(np.zeros((4, 7), np.float32)), "more than six columns"),
    "two columns": (npy_bytes(np.zeros((4, 2), np.float32)), r"expected \[P, 6\] numbers"),
    "one axis": (npy_bytes(np.zeros(6, np.float32)), r"expected \[P, 6\] numbers"),
    "three axes": (npy_bytes(np.zeros((2, 6, 6), np.float32)), r"expected \[P, 6\] numbers"),
    "complex": (npy_bytes(np.zeros((4, 6), np.complex64)), r"expected \[P, 6\] numbers"),
    "strings": (npy_bytes(np.full((4, 6), "1.0")), r"expected \[P, 6\] numbers"),
    "structured": (npy_bytes(np.zeros(4, [("x", "f4")])), r"expected \[P, 6\] numbers"),
    "pickled objects": (npy_bytes(np.full((4, 6), {}, object)), r"not a plain \.npy array"),
    "NaN": (npy_bytes(np.full((4, 6), np.nan, np.float32)), "4 of 4 points have coordinates that are NaN"),
    "infinity": (npy_bytes(np.array([[0, 0, np.inf, 1, 1, 1]])), "coordinates that are NaN or infinite"),
    "NaN colours": (npy_bytes(np.array([[0, 0, 0, 1, np.nan, 1]])), "colours that are NaN"),
    "beyond float32": (npy_bytes(np.array([[1e300, 0, 0, 1, 1, 1]])), "coordinates that are NaN or infinite"),
    "negative colours": (npy_bytes(np.array([[0, 0, 0, -1, 0, 0]])), r"colours span -1\.\.0, expected 0\.\.255"),
    "24-bit colours": (npy_bytes(np.array([[0, 0, 0, 65536, 0, 0]])), r"expected 0\.\.255, 0\.\.1 or 0\.\.65535"),
    "empty file": (b"", r"not a plain \.npy array"),
    "text": (b"0 0 0 255 255 255\n", r"not a plain \.npy array"),
    "truncated": (npy_bytes(np.zeros((40, 6), np.float32))[:-20], r"not a plain \.npy array"),
    "truncated header": (npy_bytes(np.zeros((40, 6), np.float32))[:40], r"not a plain \.npy array"),
}


@pytest.mark.parametrize(("content", "words"), CLOUDS.values(), ids=CLOUDS)
def test_bad_npy(inputs, content: bytes, words: str) -> None:
    inputs.cloud.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        load(inputs)


def test_an_archive_of_arrays_is_not_a_point_cloud(inputs) -> None:
    with inputs.cloud.open("wb") as file:
        np.savez(file, points=np.zeros((4, 6)))
    with pytest.raises(BadInput, match=r"points\.npy"):
        load(inputs)


def test_a_header_that_promises_more_than_memory_holds(inputs) -> None:
    content = npy_bytes(np.zeros((40, 6), np.float32))
    inputs.cloud.write_bytes(content.replace(b"(40, 6), }                 ", b"(99999999999999, 6), }     "))
    with pytest.raises(BadInput, match=r"points\.npy"):
        load(inputs)


PLYS = {
    "empty": b"",
    "text": b"hello\n",
    "header only": b"ply\nformat ascii 1.0\n",
    "no end": b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\n",
    "unknown format": b"ply\nformat other 1.0\nelement vertex 0\nend_header\n",
    "no vertices": b"ply\nformat ascii 1.0\nelement face 0\nproperty float x\nend_header\n",
    "no coordinates": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
}


@pytest.mark.parametrize("content", PLYS.values(), ids=PLYS)
def test_bad_ply(inputs, content: bytes) -> None:
    cloud = inputs.scene / "cloud.ply"
    cloud.write_bytes(content)
    with pytest.raises(BadInput, match=r"cloud\.ply"):
        load(inputs, cloud)


@pytest.mark.parametrize("text", [True, False])
def test_truncated_ply(inputs, text: bool) -> None:
    cloud = write_ply(inputs.scene / "cloud.ply", text=text)
    cloud.write_bytes(cloud.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"not rows of numbers|truncated or damaged"):
        load(inputs, cloud)


def test_ply_without_points(inputs) -> None:
    header = b"ply\nformat ascii 1.0\nelement vertex 0\n"
    header += b"".join(f"property float {name}\n".encode() for name in ("x", "y", "z", "red", "green", "blue"))
    cloud = inputs.scene / "cloud.ply"
    cloud.write_bytes(header + b"end_header\n")
    with pytest.raises(BadInput, match="holds no points"):
        load(inputs, cloud)


def test_ply_whose_coordinates_are_lists(inputs) -> None:
    header = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty list uchar float x\n"
    header += b"".join(f"property float {name}\n".encode() for name in ("y", "z", "red", "green", "blue"))
    cloud = inputs.scene / "cloud.ply"
    cloud.write_bytes(header + b"end_header\n1 5 0 0 1 1 1\n2 5 6 0 0 1 1 1\n")
    with pytest.raises(BadInput, match=r"cloud\.ply"):
        load(inputs, cloud)


def test_ply_without_colours_names_what_it_found(inputs) -> None:
    with pytest.raises(BadInput, match="no colours; lacks red, green, blue; found x, y, z"):
        load(inputs, write_ply(inputs.scene / "cloud.ply", None))


def test_ply_without_coordinates(inputs) -> None:
    rows = np.zeros(3, [("red", "u1"), ("green", "u1"), ("blue", "u1")])
    cloud = inputs.scene / "cloud.ply"
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(cloud))
    with pytest.raises(BadInput, match="lacks x, y, z"):
        load(inputs, cloud)


@pytest.mark.parametrize(
    "content",
    [b"", b"glTF", b"not a glb at all", struct.pack("<4sII", b"glTF", 2, 12), b"glTF\x02\0\0\0\xff\xff\xff\xff"],
)
def test_bad_glb(inputs, content: bytes) -> None:
    cloud = inputs.scene / "cloud.glb"
    cloud.write_bytes(content)
    with pytest.raises(BadInput, match="not a readable GLB"):
        load(inputs, cloud)


def test_truncated_glb(inputs) -> None:
    cloud = write_glb(inputs.scene / "cloud.glb", trimesh.PointCloud(POINTS, colors=COLOURS))
    cloud.write_bytes(cloud.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"cloud\.glb"):
        load(inputs, cloud)


@pytest.mark.parametrize(
    "geometry",
    [trimesh.PointCloud(POINTS), trimesh.Trimesh(POINTS, np.arange(30).reshape(10, 3), process=False)],
    ids=["points", "mesh"],
)
def test_glb_without_colours(inputs, geometry) -> None:
    with pytest.raises(BadInput, match="no colours"):
        load(inputs, write_glb(inputs.scene / "cloud.glb", geometry))


def test_unknown_suffix_lists_the_known(inputs) -> None:
    with pytest.raises(BadInput, match=r"unknown suffix; known are \.npy, \.ply, \.glb, "):
        load(inputs, inputs.cloud.rename(inputs.scene / "cloud.e57"))
