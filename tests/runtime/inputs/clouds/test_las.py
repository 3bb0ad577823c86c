"""LAS and LAZ files, written by the library that reads them."""

import io
import struct
import sys

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.errors import MissingDependency


def las(
    cloud, *, form: int = 2, shift: tuple[float, ...] = (0, 0, 0), compressed: bool = False, steps: int = 257
) -> bytes:
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=form, version="1.4" if form > 5 else "1.2")
    header.scales, header.offsets = [1e-4] * 3, np.array(shift)
    written = laspy.LasData(header)
    written.xyz = cloud.points.astype(np.float64) + shift
    if form in (2, 3, 7):
        written.red, written.green, written.blue = (cloud.colours.astype(np.uint16) * steps).T
    buffer = io.BytesIO()
    written.write(buffer, do_compress=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize("form", [2, 3, 7])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shift", [(0, 0, 0), (691_000, 5_334_000, 500)])
def test_points_of_a_map(form: int, compressed: bool, shift: tuple[float, ...], cloud, read) -> None:
    if compressed:
        pytest.importorskip("lazrs")
    known = read(las(cloud, form=form, shift=shift, compressed=compressed), ".laz" if compressed else ".las")
    assert np.abs(known.points + known.offset - cloud.points - shift).max() < 1e-4
    assert np.array_equal(known.colours, cloud.colours)


def test_colours_of_eight_bits_in_sixteen(cloud, read, caplog) -> None:
    assert np.array_equal(read(las(cloud, steps=1), ".las").colours, cloud.colours)
    assert "they are read as 0..255" in caplog.text


def test_points_without_colours(cloud, read) -> None:
    with pytest.raises(BadInput, match="no colours; points of format 1"):
        read(las(cloud, form=1), ".las")


@pytest.mark.parametrize("keep", [0, 100, 300])
def test_truncated(keep: int, cloud, read) -> None:
    with pytest.raises(BadInput, match=r"not a readable LAS|truncated"):
        read(las(cloud)[:keep], ".las")


def test_without_the_library_the_extra_is_named(cloud, read, monkeypatch) -> None:
    pytest.importorskip("lazrs")
    content = las(cloud, compressed=True)
    monkeypatch.setitem(sys.modules, "lazrs", None)
    with pytest.raises(MissingDependency, match=r"LAZ needs lazrs .*pip install 'stllm-edge\[formats\]'"):
        read(content, ".laz")


def by_hand(cloud, promised: int = 40) -> bytes:
    """LAS without a library: points of format 2, with steps of a millimetre from 530,000 m."""
    head = bytearray(227)
    head[:4], head[24:26] = b"LASF", b"\x01\x02"
    struct.pack_into("<HIIBHI", head, 94, 227, 227, 0, 2, 26, promised)
    struct.pack_into("<6d", head, 131, 1e-3, 1e-3, 1e-3, 530_000, 180_000, 0)
    rows = np.zeros(40, [("xyz", "<i4", 3), ("other", "V8"), ("rgb", "<u2", 3)])
    rows["xyz"], rows["rgb"] = np.round(cloud.points * 1000), cloud.colours.astype(np.uint16) * 257
    return bytes(head) + rows.tobytes()


def test_las_needs_no_library(cloud, read) -> None:
    known = read(by_hand(cloud), ".las")
    assert np.abs(known.points + known.offset - cloud.points - [530_000, 180_000, 0]).max() < 6e-4
    assert np.array_equal(known.colours, cloud.colours)


@pytest.mark.parametrize("promised", [41, 2**32 - 1])
def test_more_than_there_is(promised: int, cloud, read) -> None:
    with pytest.raises(BadInput, match=f"truncated or damaged; the header promises {promised} points"):
        read(by_hand(cloud, promised), ".las")


@pytest.mark.parametrize("chunks", [100_000, 2**32 - 1])
def test_a_table_of_chunks_that_the_file_has_no_room_for(chunks: int, cloud, read) -> None:
    pytest.importorskip("lazrs")
    content = bytearray(las(cloud, compressed=True))
    (begin,) = struct.unpack_from("<I", content, 96)
    (table,) = struct.unpack_from("<q", content, begin)
    struct.pack_into("<I", content, table + 4, chunks)
    with pytest.raises(BadInput, match=f"promises {chunks} chunks"):
        read(bytes(content), ".laz")
