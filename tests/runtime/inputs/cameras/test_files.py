"""Pose files as people and programs leave them in folders, and poses that cannot be used."""

import codecs
import json
from collections.abc import Callable

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Scene, load_scene
from stllm_edge.runtime.inputs.cameras import load_intrinsics, load_poses, to_pose, usable

POSE = to_pose(
    [
        [0.9848077530122080, -0.1736481776669303, 0, 1.25],
        [0.1736481776669303, 0.9848077530122080, 0, -0.5],
        [0, 0, 1, 2],
        [0, 0, 0, 1],
    ],
    "pose",
)
ROWS = "\n".join(" ".join(f"{number:.17g}" for number in row) for row in POSE) + "\n"
FORTRAN = "\n".join(" ".join(f"{number:.16e}".replace("e", "D") for number in row) for row in POSE)

WRITTEN: dict[str, str | bytes] = {
    "plain": ROWS,
    "a mark and CRLF": codecs.BOM_UTF8 + ROWS.replace("\n", "\r\n").encode(),
    "UTF-16 with a mark": ROWS.encode("utf-16"),
    "UTF-16, big end first, with a mark": codecs.BOM_UTF16_BE + ROWS.encode("utf-16-be"),
    "UTF-16 without a mark": ROWS.encode("utf-16-le"),
    "UTF-32": ROWS.encode("utf-32"),
    "old Mac's line ends": ROWS.replace("\n", "\r"),
    "blank lines": "\n\n" + ROWS.replace("\n", "\n\n"),
    "commas": ROWS.replace(" ", ", "),
    "commas at line ends": ROWS.replace(" ", ", ").replace("\n", ",\n"),
    "tabs": ROWS.replace(" ", "\t"),
    "semicolons": ROWS.replace(" ", ";"),
    "MATLAB": "[" + ROWS.strip().replace("\n", ";\n ") + "];",
    "brackets": str(POSE.tolist()),
    "JSON over many lines": json.dumps(POSE.tolist(), indent=2).replace(",\n      ", ", ").replace("[\n      ", "["),
    "NumPy's form": f"np.array({POSE.tolist()}, dtype=np.float64)",
    "JSON, a number a line": json.dumps(POSE.tolist(), indent=2),
    "NumPy's print": np.array2string(POSE, precision=17, floatmode="maxprec"),
    "16 in one line": ROWS.replace("\n", " "),
    "16 lines": "\n".join(ROWS.split()),
    "3x4": "\n".join(ROWS.splitlines()[:3]),
    "12 in one line": " ".join(ROWS.splitlines()[:3]),
    "exponents": "\n".join(" ".join(f"{number:.17E}" for number in row) for row in POSE),
    "Fortran": FORTRAN,
    "Fortran, small": FORTRAN.lower(),
    "a comment in UTF-8": "# caméra vers le monde\n" + ROWS,
    "a comment in Latin-1": "# caméra\n".encode("latin-1") + ROWS.encode(),
    "a comment in Shift-JIS": "# カメラ\n".encode("shift-jis") + ROWS.encode(),
    "comments at line ends": ROWS.replace("\n", "  % row\n"),
    "a typographer's minus": ROWS.replace("-", "\N{MINUS SIGN}"),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_a_pose_is_read_to_the_last_bit_however_it_is_written(inputs, content: str | bytes) -> None:
    file = inputs.poses / "frame_0000000005.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert np.array_equal(load_scene(inputs.scene).poses["frame_0000000005"], POSE)


@pytest.mark.parametrize(
    "content", [np.eye(3).tolist(), np.eye(4).tolist(), np.eye(4)[:3].tolist(), [list(np.eye(3).ravel())]]
)
def test_intrinsics_are_read_with_padding_and_in_one_line(tmp_path, content: list[list[float]]) -> None:
    (tmp_path / "K.txt").write_text(json.dumps(content).replace("], ", "],\n"))
    assert np.array_equal(load_intrinsics(tmp_path / "K.txt"), np.eye(3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1_0 0 0 0\n" * 4, "not a matrix of numbers"),
        ("qw qx qy qz\n", "not a matrix of numbers"),
        ("1 0 0 0 1 2 3\n", r"expected 4x4 numbers, found \[1, 7\]"),
        ("1 0 0 0\n0 1 0 0 0 0 1 0\n0 0 0 1", r"found rows of \[4, 8\]"),
        ("1 " * 40_000, "over 65,536 bytes, which is no single matrix"),
    ],
)
def test_what_is_no_pose_is_told(inputs, content: str, words: str) -> None:
    (inputs.poses / "frame_0000000005.txt").write_text(content)
    with pytest.raises(BadInput, match=rf"^pose .*frame_0000000005\.txt: .*{words}"):
        load_scene(inputs.scene).poses["frame_0000000005"]


# what else lies in the folder


def test_files_that_are_no_poses_are_passed_over(inputs) -> None:
    stems = list(load_poses(inputs.poses))
    (inputs.poses / "._frame_0000000003.txt").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X\x80")
    (inputs.poses / ".hidden.txt").write_text("x")
    (inputs.poses / "README.txt").write_text("camera to world")
    (inputs.poses / "notes.md").write_text("x")
    assert list(load_poses(inputs.poses)) == stems


def test_names_without_numbers_stay_where_all_are_so(tmp_path) -> None:
    for name in ("left", "right"):
        np.savetxt(tmp_path / f"{name}.TXT", np.eye(4))
    poses = load_poses(tmp_path)
    assert list(poses) == ["left", "right"]
    assert np.array_equal(poses["left"], np.eye(4))


# rounding


def random_rotations(count: int) -> np.ndarray:
    rotations = np.linalg.qr(np.random.default_rng(3).standard_normal((count, 3, 3)))[0]
    return rotations * np.linalg.det(rotations)[:, None, None]


def posed(rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose


def test_rotations_of_three_decimals_are_read_and_made_whole() -> None:
    for rotation in random_rotations(2000):
        pose = to_pose(posed(rotation.round(3)), "pose")[:3, :3]
        assert np.abs(pose.T @ pose - np.eye(3)).max() <= 1e-3
        assert np.abs(pose - rotation).max() < 1.5e-3


def test_exact_rotations_stay_as_they_are() -> None:
    for rotation in random_rotations(200):
        assert np.array_equal(to_pose(posed(rotation), "pose")[:3, :3], rotation)


def test_two_decimals_are_told_to_be_too_few() -> None:
    (rotation,) = random_rotations(1)
    with pytest.raises(BadInput, match=r"not rigid; .* it has 2 decimals, write at least 3"):
        to_pose(posed(rotation.round(2)), "pose")


@pytest.mark.parametrize("scale", [1.001, 1.002, 0.998, 1.1])
def test_a_scale_is_no_rounding(scale: float) -> None:
    (rotation,) = random_rotations(1)
    with pytest.raises(BadInput, match="not rigid"):
        to_pose(posed(rotation * scale), "pose")


# poses that cannot be used


LOST: dict[str, Callable[[np.ndarray], str]] = {
    "minus infinity": lambda pose: "-inf -inf -inf -inf\n" * 4,
    "NaN": lambda pose: "nan " * 16,
    "zeros": lambda pose: "0 0 0 0\n" * 4,
    "empty": lambda pose: "",
    "cut off": lambda pose: "1 0 0 0\n0 1 0",
    "a word": lambda pose: "lost",
}


@pytest.mark.parametrize("content", LOST.values(), ids=LOST)
def test_a_lost_pose_counts_as_absent(inputs, content: Callable[[np.ndarray], str]) -> None:
    (inputs.poses / "frame_0000000005.txt").write_text(content(POSE))
    found, words = usable(load_poses(inputs.poses))
    assert list(found) == ["frame_0000000003", "frame_0000000009"]
    assert words.startswith("1 of 3 poses cannot be used and count as absent; first pose ")
    assert "frame_0000000005.txt: " in words


def test_poses_that_can_all_be_used_say_nothing(inputs) -> None:
    poses = load_poses(inputs.poses)
    found, words = usable(poses)
    assert (list(found), words) == (list(poses), "")


def test_a_folder_of_lost_poses_is_refused(inputs) -> None:
    for file in inputs.poses.iterdir():
        file.write_text("-inf " * 16)
    with pytest.raises(BadInput, match=r"frame_0000000003\.txt: holds NaN or infinity; none of 3 poses can be used"):
        usable(load_poses(inputs.poses))


def test_arrays_in_memory_are_not_mended() -> None:
    for bad in (POSE[:3], POSE.ravel(), np.full((4, 4), -np.inf), "1 0 0"):
        with pytest.raises(BadInput, match=r"^poses\['1'\]: "):
            Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), np.eye(3), poses={"1": bad})


# cases from the field


@pytest.mark.parametrize("case", ["apple_pose", "readme", "bom", "three_decimals", "pose_infinite"])
def test_one_file_does_not_stop_the_others(reference_case, case: str) -> None:
    clean = load_poses(reference_case("room") / "poses")
    found, words = usable(load_poses(reference_case(f"24-one-file-stops-all/{case}") / "poses"))
    lost = ["frame_0000000004"] if case == "pose_infinite" else []
    assert list(found) == [stem for stem in clean if stem not in lost]
    assert bool(words) == bool(lost)
    for stem, pose in found.items():
        assert np.abs(pose - clean[stem]).max() < (1.5e-3 if case == "three_decimals" else 1e-9)
