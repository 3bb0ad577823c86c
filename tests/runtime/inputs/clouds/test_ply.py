"""PLY files of every form, names and types of colours, and what is wrong with others."""

import logging

import numpy as np
import pytest
from stllm_edge.runtime import BadInput

FORMS = ("ascii", "binary_little_endian", "binary_big_endian")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_form_gives_the_same(form: str, kind: type, cloud, write, read) -> None:
    known = read(write.ply(write.named(cloud.points.astype(kind), cloud.colours), form=form), ".ply")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)
    assert known.points.dtype == known.colours.dtype == np.float32
    assert not known.offset.any()


@pytest.mark.parametrize("names", ["Red Green Blue", "r g b", "diffuse_red diffuse_green diffuse_blue", "R G B"])
def test_usual_names_of_colours(names: str, cloud, write, read) -> None:
    columns = write.named(cloud.points, cloud.colours, names) | {"alpha": np.zeros(len(cloud.points), np.uint8)}
    assert np.array_equal(read(write.ply(columns), ".ply").colours, cloud.colours)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("scale", "kind"), [(1 / 255, np.float32), (1 / 255, np.float64), (257, np.uint16), (1, np.float32), (1, np.int32)]
)
def test_the_range_of_colours_is_that_of_their_type(form: str, scale: float, kind: type, cloud, write, read) -> None:
    columns = write.named(cloud.points, (cloud.colours * np.float64(scale)).astype(kind))
    assert np.array_equal(read(write.ply(columns, form=form), ".ply").colours, cloud.colours)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["f4", "u4"])
def test_packed_colours(form: str, kind: str, cloud, write, read) -> None:
    columns = dict(zip("xyz", cloud.points.T, strict=True)) | {"rgb": write.packed(cloud.colours, kind).astype(kind)}
    if kind == "u4":
        columns["rgb"] = columns["rgb"].astype(np.int32)
    assert np.array_equal(read(write.ply(columns, form=form), ".ply").colours, cloud.colours)


@pytest.mark.parametrize("comment", ["Müller", "点群", "end_header is not here", "property float x"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_comments_do_not_matter(comment: str, ends: bytes, cloud, write, read) -> None:
    content = write.ply(write.named(cloud.points, cloud.colours), extra=f"comment {comment}\nobj_info {comment}")
    head, mark, body = content.partition(b"end_header\n")
    content = (head + mark).replace(b"\n", ends) + body
    assert np.array_equal(read(content, ".ply").points, cloud.points)
    assert np.array_equal(read(content.replace("ü".encode(), b"\xfc"), ".ply").points, cloud.points)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("listed", [True, False])
def test_other_elements_may_come_first(form: str, listed: bool, cloud, write, read) -> None:
    content = write.ply(write.named(cloud.points, cloud.colours), form=form)
    kind = "list uchar short" if listed else "short"
    order = ">" if "big" in form else "<"
    rows = [[1, 2, 3], [4]] if listed else [[7], [8]]
    if form == "ascii":
        before = "".join(" ".join(map(str, [len(row), *row] if listed else row)) + "\n" for row in rows).encode()
    else:
        parts = [(bytes([len(row)]) if listed else b"") + np.array(row, order + "i2").tobytes() for row in rows]
        before = b"".join(parts)
    content = content.replace(b"element vertex", f"element other 2\nproperty {kind} some\nelement vertex".encode())
    content = content.replace(b"end_header\n", b"end_header\n" + before)
    assert np.array_equal(read(content, ".ply").points, cloud.points)


def test_old_macintosh_line_ends(cloud, write, read) -> None:
    head, mark, body = write.ply(write.named(cloud.points, cloud.colours)).partition(b"end_header\n")
    assert np.array_equal(read((head + mark).replace(b"\n", b"\r") + body, ".ply").points, cloud.points)


HEADER = b"ply\nformat %s 1.0\nelement vertex %d\n" + b"".join(
    b"property %s %s\n" % (kind, name)
    for name, kind in zip(b"x y z red green blue".split(), [b"float"] * 3 + [b"uchar"] * 3, strict=True)
)
BAD = {
    "more than there is, text": (
        HEADER % (b"ascii", 10**14) + b"end_header\n0 0 0 1 1 1\n",
        "promises 100000000000000",
    ),
    "more than there is": (HEADER % (b"binary_little_endian", 10**14) + b"end_header\n", "promises 100000000000000"),
    "a count beyond numbers": (HEADER % (b"ascii", 10**30) + b"end_header\n", "line .* is not known"),
    "fewer rows": (HEADER % (b"ascii", 2) + b"end_header\n0 0 0 1 1 1\n" + b"\n" * 99, "ends after 1 of 2 vertices"),
    "other numbers a row": (HEADER % (b"ascii", 1) + b"end_header\n0 0 0 1 1 1 1\n", "its rows hold 7 numbers"),
    "words": (HEADER % (b"ascii", 1) + b"end_header\n0 0 zero 1 1 1\n", "not rows of numbers"),
    "beyond the type": (HEADER % (b"ascii", 1) + b"end_header\n0 0 0 300 1 1\n", "red does not fit the type"),
    "the same twice": (HEADER.replace(b" y", b" x") % (b"ascii", 1) + b"end_header\n", "no property, or one twice"),
    "an unknown type": (HEADER.replace(b"uchar", b"byte") % (b"ascii", 1) + b"end_header\n", "line .* is not known"),
    "no end": (HEADER % (b"ascii", 1), "lacks a header from `ply` to `end_header`"),
    "no vertices": (b"ply\nformat ascii 1.0\nelement face 0\nproperty int a\nend_header\n", "no vertices"),
    "lists among vertices": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1 1\n",
        "vertices hold lists",
    ),
    "a list longer than the file": (
        b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uint int a\n"
        + (HEADER % (b"", 1)).split(b"1.0\n")[1]
        + b"end_header\n\xff\xff\xff\xff"
        + bytes(15),
        "only 0 bytes follow",
    ),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_one_line(content: bytes, words: str, read) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read(content, ".ply")
    assert str(caught.value).startswith("point cloud ")
    assert "\n" not in str(caught.value)


def test_intensity_is_told(cloud, write, read) -> None:
    columns = dict(zip("xyz", cloud.points.T, strict=True)) | {"intensity": cloud.points[:, 0]}
    with pytest.raises(BadInput, match="no colours, only intensity"):
        read(write.ply(columns), ".ply")


def test_a_clean_room_is_read_without_a_word(cloud, write, read, caplog) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        read(write.ply(write.named(cloud.points, cloud.colours)), ".ply")
    assert not caplog.text
