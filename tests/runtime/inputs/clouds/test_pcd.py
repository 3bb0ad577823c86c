"""PCD files of every form."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.clouds.pcd import unpack_lzf

FORMS = ("ascii", "binary", "binary_compressed")


def columns(cloud, write, kind: str) -> dict[str, np.ndarray]:
    return {**dict(zip("xyz", cloud.points.T, strict=True)), "rgb": write.packed(cloud.colours, kind)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["f4", "u4"])
def test_every_form_gives_the_same(form: str, kind: str, cloud, write, read) -> None:
    known = read(write.pcd(columns(cloud, write, kind), data=form), ".pcd")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


def test_packed_colours_as_whole_numbers_of_a_float_field(cloud, write, read) -> None:
    content = write.pcd(columns(cloud, write, "u4"), data="ascii").replace(b"TYPE F F F U", b"TYPE F F F F")
    assert np.array_equal(read(content, ".pcd").colours, cloud.colours)


@pytest.mark.parametrize("form", FORMS)
def test_colours_of_their_own_and_other_fields(form: str, cloud, write, read) -> None:
    stored = {"t": np.arange(40.0), **write.named(cloud.points, cloud.colours), "ring": np.zeros(40, np.uint16)}
    known = read(write.pcd(stored, data=form), ".pcd")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


def test_padding_is_passed_over(cloud, write, read) -> None:
    padded = np.zeros(40, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("pad", "u1", 4), ("rgb", "f4"), ("rest", "u1", 12)])
    for name, column in columns(cloud, write, "f4").items():
        padded[name] = column
    header = write.pcd(columns(cloud, write, "f4")).partition(b"DATA")[0]
    for before, after in (
        (b"x y z rgb", b"x y z _ rgb _"),
        (b"SIZE 4 4 4 4", b"SIZE 4 4 4 1 4 1"),
        (b"F F F F", b"F F F U F U"),
        (b"COUNT 1 1 1 1", b"COUNT 1 1 1 4 1 12"),
    ):
        header = header.replace(before, after)
    known = read(header + b"DATA binary\n" + padded.tobytes(), ".pcd")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


@pytest.mark.parametrize(
    ("packed", "content"),
    [
        (b"\x02abc", b"abc"),
        (b"\x00a\x20\x00", b"aaaa"),
        (b"\x00a\xe0\x03\x00", b"a" * 13),
        (b"\x01ab\x60\x01", b"abababa"),
        (b"\x03abcd\x40\x03\x00x", b"abcdabcdx"),
    ],
)
def test_lzf(packed: bytes, content: bytes) -> None:
    assert unpack_lzf(packed, len(content)) == content


def test_lzf_packed_by_its_own_library(cloud) -> None:
    lzf = pytest.importorskip("lzf")
    content = np.repeat(cloud.points, 50, axis=0).tobytes() + bytes(5000) + cloud.colours.tobytes()
    assert unpack_lzf(lzf.compress(content), len(content)) == content


CHANGES = {
    "more than there is": (b"POINTS 40", b"POINTS 99999999999999", "promises 99999999999999"),
    "no field": (b"FIELDS x", b"FIELDS q", "lacks x, y, z"),
    "fewer sizes": (b"SIZE 4 4 4 4", b"SIZE 4 4 4", "not a readable PCD file"),
    "an unknown type": (b"TYPE F", b"TYPE Q", "not a readable PCD file"),
    "an unknown size": (b"SIZE 4", b"SIZE 3", "not a readable PCD file"),
    "a negative count": (b"COUNT 1", b"COUNT -1", "do not agree"),
    "no data": (b"DATA", b"DAT", "lacks a header up to DATA"),
    "unknown data": (b"DATA ", b"DATA x", "its data are x"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("before", "after", "words"), CHANGES.values(), ids=CHANGES)
def test_bad_headers_are_one_line(form: str, before: bytes, after: bytes, words: str, cloud, write, read) -> None:
    content = write.pcd(columns(cloud, write, "f4"), data=form).replace(before, after)
    with pytest.raises(BadInput, match=words if form != "binary_compressed" else f"{words}|damaged"):
        read(content, ".pcd")


@pytest.mark.parametrize("form", FORMS)
def test_truncated(form: str, cloud, write, read) -> None:
    with pytest.raises(BadInput, match=r"truncated|ends after|not rows of numbers"):
        read(write.pcd(columns(cloud, write, "f4"), data=form)[:-90], ".pcd")


@pytest.mark.parametrize("packed", [b"\x05ab", b"\x20\x00", b"\x00a\x20", b"\x00a\xe0"])
def test_damaged_lzf(packed: bytes) -> None:
    with pytest.raises(BadInput, match="damaged"):
        unpack_lzf(packed, 4)
