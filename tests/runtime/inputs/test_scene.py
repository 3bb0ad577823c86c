"""Scenes from folders, files and memory, and whether their cameras see them."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Scene, load_scene
from stllm_edge.runtime.inputs.scene import projected_share


def test_a_folder_is_a_scene(inputs) -> None:
    scene, stored = load_scene(inputs.scene), np.load(inputs.cloud)
    assert np.array_equal(scene.points, stored[:, :3])
    assert np.array_equal(scene.colours, stored[:, 3:])
    assert list(scene.poses) == [f"frame_000000000{number}" for number in (3, 5, 9)]
    assert scene.poses["frame_0000000009"][0, 3] == 0.2
    assert scene.intrinsics.tolist() == [[30, 0, 20], [0, 30, 15], [0, 0, 1]]


def test_a_point_cloud_file_takes_poses_and_intrinsics_from_elsewhere(inputs, tmp_path) -> None:
    cloud = inputs.cloud.rename(tmp_path / "cloud.npy")
    assert len(load_scene(cloud, poses=inputs.poses, intrinsics=inputs.intrinsics).points) == 60


def test_given_poses_and_intrinsics_win_over_the_folder_s(inputs, tmp_path) -> None:
    (tmp_path / "poses").mkdir()
    np.savetxt(tmp_path / "poses" / "other.txt", np.eye(4))
    np.savetxt(tmp_path / "other.txt", np.diag([7, 8, 1]))
    scene = load_scene(inputs.scene, poses=tmp_path / "poses", intrinsics=tmp_path / "other.txt")
    assert list(scene.poses) == ["other"]
    assert scene.intrinsics[0, 0] == 7


def test_a_scene_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        load_scene(tmp_path / "nowhere")


def test_a_folder_without_points(inputs) -> None:
    inputs.cloud.unlink()
    with pytest.raises(BadInput, match=r"expected one of points\.npy, points\.ply, points\.glb, .*found 0"):
        load_scene(inputs.scene)


def test_a_folder_with_two_clouds(inputs) -> None:
    (inputs.scene / "points.ply").touch()
    with pytest.raises(BadInput, match="found 2"):
        load_scene(inputs.scene)


@pytest.mark.parametrize("given", ["poses", "intrinsics", None])
def test_a_file_needs_poses_and_intrinsics(inputs, given: str | None) -> None:
    options = {given: getattr(inputs, given)} if given else {}
    with pytest.raises(BadInput, match="give --poses DIR and --intrinsics FILE"):
        load_scene(inputs.cloud, **options)


# in memory


def test_a_scene_from_arrays_is_the_one_from_files(inputs) -> None:
    stored, poses = np.load(inputs.cloud), {file.stem: np.loadtxt(file) for file in inputs.poses.iterdir()}
    ours, theirs = (
        Scene.of(stored[:, :3], stored[:, 3:], np.loadtxt(inputs.intrinsics), poses=poses),
        load_scene(inputs.scene),
    )
    for name in ("points", "colours", "intrinsics"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    assert ours.poses.keys() == theirs.poses.keys()
    assert all(np.array_equal(ours.poses[stem], theirs.poses[stem]) for stem in ours.poses)


@pytest.mark.parametrize("points", [np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("colours", [np.uint8, np.float64])
def test_arrays_may_be_of_any_numbers(points: type, colours: type) -> None:
    scene = Scene.of(np.arange(12, dtype=points).reshape(4, 3), np.full((4, 3), 200, colours), np.eye(3).tolist())
    assert np.array_equal(scene.points, np.arange(12).reshape(4, 3))
    assert (scene.colours == 200).all()
    assert scene.points.dtype == scene.colours.dtype == np.float32
    assert not scene.poses


ARRAYS = {
    "no points": (np.zeros((0, 3)), np.zeros((0, 3)), "^points and colours: holds no points"),
    "six columns": (np.zeros((4, 6)), np.zeros((4, 3)), r"^points: expected \[P, 3\] numbers, found \[4, 6\] float64"),
    "one axis": (np.zeros((4, 3)), np.zeros(12), r"^colours: expected \[P, 3\] numbers, found \[12\]"),
    "nothing": (None, np.zeros((4, 3)), r"^points: expected \[P, 3\] numbers, found \[\] object"),
    "complex": (
        np.zeros((4, 3), complex),
        np.zeros((4, 3)),
        r"^points: expected \[P, 3\] numbers, found .* complex128",
    ),
    "ragged": ([[0, 0, 0], [0]], np.zeros((2, 3)), r"^points: expected \[P, 3\] numbers, found rows that differ"),
    "fewer colours": (np.zeros((4, 3)), np.zeros((3, 3)), "^colours: has 3 rows for 4 points"),
    "NaN": (np.full((4, 3), np.nan), np.zeros((4, 3)), "4 of 4 points have coordinates that are NaN or infinite"),
    "beyond float32": (np.full((4, 3), 1e300), np.zeros((4, 3)), "4 of 4 points have coordinates that are NaN"),
    "NaN colours": (np.zeros((4, 3)), np.full((4, 3), np.nan), "4 of 4 points have colours that are NaN"),
    "24-bit colours": (np.zeros((4, 3)), np.full((4, 3), 99999), r"colours span 99999\.\.99999, expected 0\.\.255"),
}


@pytest.mark.parametrize(("points", "colours", "words"), ARRAYS.values(), ids=ARRAYS)
def test_bad_arrays_are_one_line(points: object, colours: object, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        Scene.of(points, colours, np.eye(3))
    assert "\n" not in str(caught.value)


def test_colours_in_memory_may_be_0_to_1() -> None:
    assert (Scene.of(np.zeros((4, 3)), np.full((4, 3), 0.2), np.eye(3)).colours == 51).all()


def test_pose_conventions_hold_for_poses_in_memory() -> None:
    w2c = np.eye(4)
    w2c[:3, 3] = [1, 2, 3]
    scene = Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), np.eye(3), poses={"0": w2c}, pose_convention="w2c")
    assert scene.poses["0"][:3, 3].tolist() == [-1, -2, -3]
    with pytest.raises(BadInput, match="colmap: unknown"):
        Scene.of(np.zeros((1, 3)), np.zeros((1, 3)), np.eye(3), pose_convention="colmap")


# projection


def scene_before(camera: np.ndarray, points: np.ndarray) -> Scene:
    world = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ camera.T
    return Scene(world[:, :3].astype(np.float32), points, {}, np.array([[30.0, 0, 20], [0, 30, 15], [0, 0, 1]]))


def test_projected_share_counts_the_points_inside_the_image() -> None:
    camera = np.eye(4)
    camera[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    camera[:3, 3] = [5, 6, 7]
    inside, beside, behind = [0.1, 0.1, 2], [3, 0, 2], [0, 0, -2]
    scene = scene_before(camera, np.array([inside, inside, beside, behind]))
    assert projected_share(scene, camera[None], (40, 30)) == 0.5
    assert projected_share(scene, np.linalg.inv(camera)[None], (40, 30)) == 0


def test_projected_share_counts_a_point_once_in_several_frames() -> None:
    scene = scene_before(np.eye(4), np.array([[0, 0, 2], [0, 0, -2]]))
    turned = np.diag([1.0, -1, -1, 1])
    assert projected_share(scene, np.stack([np.eye(4)] * 3), (40, 30)) == 0.5
    assert projected_share(scene, np.stack([np.eye(4), turned]), (40, 30)) == 1


def test_a_real_capture_is_seen_by_its_camera(capture) -> None:
    scene = load_scene(capture.scene)
    assert 100_000 < len(scene.points) < 640 * 480
    assert projected_share(scene, scene.poses["frame_0000000000"][None], (640, 480)) > 0.99
    flipped = load_scene(capture.scene, pose_convention="c2w-opengl")
    assert projected_share(flipped, flipped.poses["frame_0000000000"][None], (640, 480)) == 0
