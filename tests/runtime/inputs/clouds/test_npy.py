"""Arrays in archives; single arrays are tested with the interface in `test_points.py`."""

import io
import zipfile

import numpy as np
import pytest
from stllm_edge.runtime import BadInput


def npz(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("points", "colours"), [("points", "colours"), ("xyz", "rgb"), ("points", "colors")])
def test_points_and_colours_by_name(compressed: bool, points: str, colours: str, cloud, read) -> None:
    arrays = {points: cloud.points, colours: cloud.colours, "normals": cloud.points}
    known = read(npz(compressed, **arrays), ".npz")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


def test_one_array_of_six_columns(cloud, read) -> None:
    known = read(npz(arr_0=np.concatenate([cloud.points, cloud.colours], axis=1)), ".npz")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


def test_opacity_is_left_out(cloud, read) -> None:
    colours = np.concatenate([cloud.colours, cloud.colours[:, :1]], axis=1)
    assert np.array_equal(read(npz(points=cloud.points, colors=colours), ".npz").colours, cloud.colours)


def lzma() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("points.npy", b"")
    return buffer.getvalue()


POINTS = np.ones((4, 3), np.float32)
BAD = {
    "no colours": (npz(points=POINTS), "no colours"),
    "other names": (npz(a=POINTS, b=POINTS), "expected arrays points and colours, .* found a, b"),
    "other lengths": (npz(points=POINTS, colours=POINTS[1:]), "has 4 points and 3 colours"),
    "one axis": (npz(points=POINTS.ravel(), colours=POINTS), r"points: expected \[P, 3\] numbers"),
    "objects": (npz(points=np.full((4, 3), {}, object), colours=POINTS), "pickled objects"),
    "another compression": (lzma(), "points.npy is packed in a way that NumPy does not use"),
    "no archive": (b"PK nothing", "not a readable .npz archive"),
    "a bomb": (npz(True, points=np.zeros((300_000, 3)), colours=np.zeros((300_000, 3))), "would unpack to"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_archives_are_one_line(content: bytes, words: str, read) -> None:
    with pytest.raises(BadInput, match=words):
        read(content, ".npz")
