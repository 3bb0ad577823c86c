"""Poses and intrinsics from text files."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Scene, load_scene
from stllm_edge.runtime.inputs.cameras import POSE_CONVENTIONS


def read_all(inputs) -> Scene:
    """A scene all of whose poses are read."""
    scene = load_scene(inputs.scene)
    assert len(dict(scene.poses)) == len(scene.poses)
    return scene


def test_commas_in_matrices_are_spaces(inputs) -> None:
    inputs.intrinsics.write_text("30, 0, 20\n0, 31, 15\n\n0, 0, 1\n")
    assert load_scene(inputs.scene).intrinsics[1, 1] == 31


def rotated(degrees: float) -> np.ndarray:
    pose = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose[:2, :2] = [[c, -s], [s, c]]
    return pose


def changed(place: tuple[int, int], value: float) -> np.ndarray:
    pose = rotated(20)
    pose[place] = value
    return pose


POSES = {
    "scaled": (rotated(10) * 1.1, "not rigid; its rotation deviates"),
    "slightly scaled": (np.diag([1.001, 1, 1, 1]), "not rigid; its rotation deviates from orthonormal by 0.002"),
    "all zero": (np.zeros((4, 4)), "not rigid"),
    "sheared": (changed((0, 1), 0.5), "not rigid"),
    "mirrored": (np.diag([1.0, 1, -1, 1]), "determinant"),
    "projective": (changed((3, 0), 0.1), "last row"),
    "last row of zeros": (changed((3, 3), 0), "last row"),
    "NaN": (changed((0, 3), np.nan), "NaN or infinity"),
    "NaN rotation": (changed((1, 1), np.nan), "NaN or infinity"),
    "infinite": (changed((2, 3), np.inf), "NaN or infinity"),
    "2x4": (rotated(10)[:2], r"expected 4x4 numbers, found \[2, 4\]"),
    "4x3": (rotated(10)[:, :3], r"expected 4x4 numbers, found \[4, 3\]"),
    "5x5": (np.eye(5), r"expected 4x4 numbers, found \[5, 5\]"),
}


@pytest.mark.parametrize(("pose", "words"), POSES.values(), ids=POSES)
def test_bad_poses_are_named_by_file(inputs, pose: np.ndarray, words: str) -> None:
    np.savetxt(inputs.poses / "frame_0000000005.txt", pose)
    with pytest.raises(BadInput, match=rf"frame_0000000005\.txt: .*{words}"):
        read_all(inputs)


@pytest.mark.parametrize("deviation", [4e-4, -4e-4])
def test_poses_rigid_within_a_thousandth_are_taken(inputs, deviation: float) -> None:
    np.savetxt(inputs.poses / "frame_0000000005.txt", np.diag([1 + deviation, 1, 1, 1]))
    read_all(inputs)


@pytest.mark.parametrize("content", [b"", b"1 0 0 0\n0 1 0\n", b"a b c d\n" * 4, b"\xff\xfe\x00", b"1e999 0\n"])
def test_pose_files_that_hold_no_matrix(inputs, content: bytes) -> None:
    (inputs.poses / "frame_0000000005.txt").write_bytes(content)
    with pytest.raises(BadInput, match=r"frame_0000000005\.txt: "):
        read_all(inputs)


def test_a_translation_beyond_float32_is_refused(inputs) -> None:
    np.savetxt(inputs.poses / "frame_0000000005.txt", changed((0, 3), 1e300))
    with pytest.raises(BadInput, match=r"frame_0000000005\.txt"):
        read_all(inputs)


@pytest.mark.parametrize("empty", [True, False])
def test_no_poses(inputs, tmp_path, empty: bool) -> None:
    folder = tmp_path / "none"
    if empty:
        folder.mkdir()
    with pytest.raises(BadInput, match="no poses"):
        load_scene(inputs.scene, poses=folder)


def test_poses_given_as_a_file(inputs) -> None:
    with pytest.raises(BadInput, match="no poses; expected a folder"):
        load_scene(inputs.scene, poses=inputs.intrinsics)


INTRINSICS = {
    "zero focal lengths": (np.diag([0.0, 0, 1]), "focal lengths are 0 and 0"),
    "zeros": (np.zeros((3, 3)), "the last row is .*, expected 0 0 1"),
    "negative": (np.diag([30.0, -30, 1]), "focal lengths are 30 and -30"),
    "4x4": (np.eye(4) + 1, r"expected 3x3 numbers, found \[4, 4\]"),
    "four numbers": (np.array([[30.0, 30, 20, 15]]), r"expected 3x3 numbers, found \[1, 4\]"),
    "eight in a row": (np.ones((1, 8)), r"expected 3x3 numbers, found \[1, 8\]"),
    "NaN": (np.full((3, 3), np.nan), "NaN or infinity"),
    "next to nothing": (np.diag([1e-300, 30, 1]), "no focal lengths and centre in pixels"),
    "beyond any image": (np.array([[30, 0, 1e300], [0, 30, 15], [0, 0, 1]]), "no focal lengths and centre in pixels"),
}


@pytest.mark.parametrize(("matrix", "words"), INTRINSICS.values(), ids=INTRINSICS)
def test_bad_intrinsics(inputs, matrix: np.ndarray, words: str) -> None:
    np.savetxt(inputs.intrinsics, matrix)
    with pytest.raises(BadInput, match=words):
        read_all(inputs)


def test_transposed_intrinsics_are_refused(inputs) -> None:
    np.savetxt(inputs.intrinsics, np.loadtxt(inputs.intrinsics).T)
    with pytest.raises(BadInput, match=r"K\.txt"):
        read_all(inputs)


def test_missing_intrinsics(inputs) -> None:
    inputs.intrinsics.unlink()
    with pytest.raises(BadInput, match=r"K\.txt: no such file"):
        read_all(inputs)


@pytest.mark.parametrize("convention", POSE_CONVENTIONS)
def test_pose_conventions_mean_the_same_camera(inputs, convention: str) -> None:
    pose = rotated(30)
    pose[:3, 3] = [1, -2, 3]
    written = pose @ np.diag([1, -1, -1, 1]) if convention.endswith("opengl") else pose
    written = np.linalg.inv(written) if convention.startswith("w2c") else written
    np.savetxt(inputs.poses / "frame_0000000005.txt", written)
    scene = load_scene(inputs.scene, pose_convention=convention)
    assert np.allclose(scene.poses["frame_0000000005"], pose)


def test_unknown_pose_convention_lists_the_known(inputs) -> None:
    with pytest.raises(BadInput, match="colmap: unknown; known are c2w, w2c, c2w-opengl, w2c-opengl"):
        load_scene(inputs.scene, pose_convention="colmap")


# lazily


def test_poses_are_read_when_they_are_asked_for(inputs) -> None:
    file = inputs.poses / "frame_0000000005.txt"
    file.write_text("nonsense")
    poses = load_scene(inputs.scene).poses
    assert list(poses) == [f"frame_000000000{number}" for number in (3, 5, 9)]
    assert poses["frame_0000000009"][0, 3] == 0.2
    with pytest.raises(BadInput, match=r"pose .*frame_0000000005\.txt: not a matrix of numbers"):
        poses["frame_0000000005"]
    file.unlink()
    with pytest.raises(BadInput, match=r"pose .*frame_0000000005\.txt: no such file"):
        poses["frame_0000000005"]


def test_poses_that_are_not_there_are_not_looked_for(inputs) -> None:
    poses = load_scene(inputs.scene).poses
    np.savetxt(inputs.poses / "late.txt", np.eye(4))
    assert "late" not in poses
    with pytest.raises(KeyError):
        poses["late"]


# in memory


@pytest.mark.parametrize(("pose", "words"), POSES.values(), ids=POSES)
def test_bad_poses_in_memory_are_named_by_argument(pose: np.ndarray, words: str) -> None:
    with pytest.raises(BadInput, match=rf"^poses\['7'\]: .*{words}"):
        Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), np.eye(3), poses={"7": pose})


@pytest.mark.parametrize(("matrix", "words"), INTRINSICS.values(), ids=INTRINSICS)
def test_bad_intrinsics_in_memory_are_named_by_argument(matrix: np.ndarray, words: str) -> None:
    with pytest.raises(BadInput, match=rf"^intrinsics: .*{words}"):
        Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), matrix)


@pytest.mark.parametrize(
    "values", [None, "30 30", [["1"] * 3] * 3, np.eye(3) + 1j, [[1, 0], [0]], np.eye(3, dtype=bool)]
)
def test_what_holds_no_numbers_is_no_matrix(values: object) -> None:
    with pytest.raises(BadInput, match=r"^intrinsics: not a matrix of numbers"):
        Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), values)
