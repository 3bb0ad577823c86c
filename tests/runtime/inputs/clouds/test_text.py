"""Rows of text between anything, with names of columns or without."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput


def text(cloud, separator: str = " ", head: str = "", columns: slice | list[int] = slice(None)) -> bytes:
    rows = np.concatenate([cloud.points.astype(np.float64), cloud.colours], axis=1)[:, columns]
    return (head + "".join(separator.join(f"{number:.9g}" for number in row) + "\n" for row in rows)).encode()


@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv", ".asc", ".pts"])
@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";", "   "])
def test_separators(suffix: str, separator: str, cloud, read) -> None:
    known = read(text(cloud, separator), suffix)
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


@pytest.mark.parametrize(
    "head", ["x,y,z,red,green,blue\n", "//X Y Z R G B\n40\n", "# é\n#x y z r g b\n", "\ufeff40\n", "\n"]
)
def test_first_lines(head: str, cloud, read) -> None:
    assert np.array_equal(read(text(cloud, ",", head), ".csv").points, cloud.points)


def test_names_order_the_columns(cloud, read) -> None:
    known = read(text(cloud, ",", "b,x,y,z,r,g\n", [5, 0, 1, 2, 3, 4]), ".csv")
    assert np.array_equal(known.points, cloud.points)
    assert np.array_equal(known.colours, cloud.colours)


def test_seven_columns_of_pts_have_an_intensity(cloud, read) -> None:
    known = read(text(cloud, " ", "40\n", [0, 1, 2, 0, 3, 4, 5]), ".pts")
    assert np.array_equal(known.colours, cloud.colours)


@pytest.mark.parametrize("crlf", [True, False])
def test_comments_among_the_rows(crlf: bool, cloud, read) -> None:
    content = text(cloud) + b"# the end\n"
    assert len(read(content.replace(b"\n", b"\r\n") if crlf else content, ".xyz").points) == 40


BAD = {
    "three columns": (b"1 2 3\n4 5 6\n", "no colours; expected rows x y z r g b, found 3 columns"),
    "seven columns": (b"1 2 3 4 5 6 7\n", "more than six columns; .* name the columns in the first line"),
    "rows that differ": (b"1 2 3 4 5 6\n1 2 3\n", "not rows of numbers"),
    "other names than columns": (b"x y z r g b\n1 2 3 4 5\n", "names 6 columns, but its rows hold 5"),
    "intensity": (b"x y z intensity\n1 2 3 4\n", "no colours, only intensity"),
    "nothing": (b"", "holds no rows of numbers"),
    "comments": (b"#\n" * 999, "holds no rows of numbers"),
    "decimal commas": (b"1,5;2;3;4;5;6\n", "not rows of numbers"),
    "binary": (bytes(range(256)) * 9, "not rows of numbers"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_one_line(content: bytes, words: str, read) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read(content, ".xyz")
    assert "\n" not in str(caught.value)
