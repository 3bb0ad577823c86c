"""Clips and the cameras that files give for them: lenses, sizes, several cameras, poses that are lost, times."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.cameras import load_intrinsics, scaled
from stllm_edge.runtime.inputs.cameras.cameras import associate
from stllm_edge.runtime.inputs.cameras.intrinsics import parse_size
from stllm_edge.runtime.inputs.cameras.reading import load_cameras
from stllm_edge.runtime.inputs.matching import match_cameras

from .written import STAMPS, colmap_text, epic, euroc, json_list, nerfstudio, tum


def test_a_lens_of_another_size_is_scaled_to_the_frames_and_said(record, caplog) -> None:
    made = record()
    source = colmap_text(made, "1 PINHOLE 640 480 500 520 310 250")
    with caplog.at_level(logging.INFO, "stllm_edge"):
        matched = match_cameras(load_cameras(source), load_clip(made.video))
    assert np.allclose(matched.intrinsics, made.intrinsics)
    assert "scaled from 640x480 to the frames' 64x48" in caplog.text


@pytest.mark.parametrize(("size", "words"), [("480 640", "turned by a quarter"), ("640 640", "another shape; give")])
def test_a_lens_of_another_shape_is_refused(record, size: str, words: str) -> None:
    made = record()
    source = colmap_text(made, f"1 PINHOLE {size} 500 520 310 250")
    with pytest.raises(BadInput, match=words):
        match_cameras(load_cameras(source), load_clip(made.video))


@pytest.mark.parametrize(
    ("cameras", "edges"),
    [
        ("1 SIMPLE_RADIAL 64 48 50 31 25 -0.2", True),
        ("1 OPENCV 64 48 50 52 31 25 -0.2 0.05 0.001 0.001", True),
        ("1 OPENCV_FISHEYE 64 48 50 52 31 25 0.01 0 0 0", True),
        ("1 OPENCV 64 48 50 52 31 25 -0.001 0 0 0", False),
    ],
)
def test_frames_of_a_bending_lens_are_straightened(record, cameras: str, edges: bool) -> None:
    made = record()
    clip = load_clip(made.video)
    straight = match_cameras(load_cameras(colmap_text(made, cameras)), clip).clip
    (before,), (after,) = clip.read([2]), straight.read([2])
    assert np.array_equal(before, after) != edges
    (plain,), (content,) = clip.contents([2]), straight.contents([2])
    assert np.array_equal(content.pixels(), after)
    assert (content.parts == plain.parts) != edges
    untouched = match_cameras(load_cameras(colmap_text(made, cameras)), clip, straight=True).clip
    assert np.array_equal(next(untouched.read([2])), before)


@pytest.mark.parametrize("model", ["FOV", "THIN_PRISM_FISHEYE", "SPHERE"])
def test_lenses_that_are_not_read_name_the_way_on(record, model: str) -> None:
    with pytest.raises(BadInput, match=f"of the model {model}, which is not read; .*image_undistorter"):
        load_cameras(colmap_text(record(), f"1 {model} 64 48 50 52 31 25 0.1"))


def test_a_lens_that_folds_the_image_is_refused(record) -> None:
    made = record()
    source = colmap_text(made, "1 RADIAL 64 48 20 31 25 -3 0")
    with pytest.raises(BadInput, match="its distortion folds the image of 64x48"):
        match_cameras(load_cameras(source), load_clip(made.video))


def test_images_of_several_cameras_are_told_apart_by_their_folder(record) -> None:
    made = record()
    content = json.loads(nerfstudio(made).read_text())
    both = []
    for folder in ("video", "other"):
        for frame in content["frames"]:
            name = frame["file_path"].rpartition("/")[2]
            both.append({**frame, "file_path": f"{folder}/{name}", "fl_x": 50.0 if folder == "video" else 80.0})
            if folder == "other":
                both[-1]["transform_matrix"] = np.eye(4).tolist()
    source = made.write("both.json", json.dumps({**content, "frames": both}))
    matched = match_cameras(load_cameras(source), load_clip(made.video))
    assert np.allclose(matched.poses[made.stems[0]], made.poses[made.stems[0]])
    assert matched.intrinsics[0, 0] == 50
    made.video.rename(made.root / "third")
    with pytest.raises(BadInput, match="images of the same name lie in other, video"):
        match_cameras(load_cameras(source), load_clip(made.root / "third"))


def test_images_that_match_in_part_are_left_for_the_clip(record) -> None:
    made = record()
    (made.video / f"{made.stems[0]}.png").rename(made.video / "frame_1.png")
    matched = match_cameras(load_cameras(epic(made)), load_clip(made.video))
    assert set(matched.poses) == set(made.stems)


def test_one_clip_of_two_lenses_is_refused(record) -> None:
    made = record()
    content = json.loads(nerfstudio(made).read_text())
    content["frames"][2]["fl_x"] = 50.2
    clip = load_clip(made.video)
    assert match_cameras(load_cameras(made.write("a.json", json.dumps(content))), clip).intrinsics[0, 0] == 50
    content["frames"][2]["fl_x"] = 80.0
    with pytest.raises(BadInput, match="2 lenses that differ, focal lengths 50 and 80"):
        match_cameras(load_cameras(made.write("b.json", json.dumps(content))), clip)


@pytest.mark.parametrize("lost", [[float("nan")] * 7, [0.0] * 7, [0.5, 0, 0, 0, 1, 2, 3]])
def test_a_pose_that_is_lost_is_counted(record, caplog, lost: list[float]) -> None:
    made = record()
    content = json.loads(epic(made).read_text())
    content["images"]["frame_0000000003.jpg"] = lost
    source = made.write("lost.json", json.dumps(content))
    matched = match_cameras(load_cameras(source), load_clip(made.video))
    assert len(matched.poses) == 5
    assert "frame_0000000003" not in matched.poses
    assert "1 of 6 poses cannot be used and count as absent; first pose frame_0000000003 of" in caplog.text
    content["images"] = dict.fromkeys(content["images"], lost)
    with pytest.raises(BadInput, match=r"frame_0000000001 of .*; none of 6 poses can be used"):
        match_cameras(load_cameras(made.write("all.json", json.dumps(content))), load_clip(made.video))


# what was applied to nerfstudio's poses

APPLIED = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, -0.25], [0, -1, 0, 2], [0, 0, 0, 1]])


def test_what_nerfstudio_applied_is_undone(record) -> None:
    made = record()
    cameras = load_cameras(nerfstudio(made, APPLIED, 0.25))
    poses = match_cameras(cameras, load_clip(made.video)).poses
    assert all(np.allclose(poses[stem], pose, atol=1e-12) for stem, pose in made.poses.items())


def test_what_nerfstudio_applied_stays_for_its_own_cloud(record) -> None:
    made = record()
    source = nerfstudio(made, APPLIED, ply_file_path="sparse_pc.ply")
    poses = load_cameras(source, cloud=made.root / "ns" / "sparse_pc.ply").poses
    stem = made.stems[1]
    assert np.allclose(poses[f"images/{stem}"], APPLIED @ made.poses[stem])


def test_an_angle_of_view_is_a_focal_length(record) -> None:
    made = record()
    content = json.loads(nerfstudio(made, camera_angle_x=2 * np.arctan(32 / 50)).read_text())
    for key in ("fl_x", "fl_y", "cx", "cy"):
        del content[key]
    matched = match_cameras(load_cameras(made.write("angle.json", json.dumps(content))), load_clip(made.video))
    assert np.allclose(matched.intrinsics, [[50, 0, 32], [0, 50, 24], [0, 0, 1]])


# times


def test_association_takes_the_nearest_within_the_tolerance() -> None:
    poses = np.array([0.3, 0.1, 0.2, 5.0])
    assert associate([0.1, 0.14, 0.16, 0.319, 0.33, 4.99], poses, 0.02).tolist() == [1, -1, -1, 0, -1, 3]
    assert associate([0.149, 0.151, -9, 99], poses, 0.06).tolist() == [1, 2, -1, -1]
    assert associate([1.0, 1.02], np.array([1.01]), 0.0101).tolist() == [0, 0]


def test_frames_without_a_pose_in_time_are_counted(record, caplog) -> None:
    made = record(*(str(stamp) for stamp in STAMPS))
    source = tum(made)
    source.write_text("\n".join(source.read_text().splitlines()[:-2]) + "\n")
    with caplog.at_level(logging.INFO, "stllm_edge"):
        matched = match_cameras(load_cameras(source), load_clip(made.video))
    assert list(matched.poses) == list(made.stems[:-2])
    assert "4 of 6 frames have a pose within 0.02 s" in caplog.text


def test_clocks_that_differ_are_refused_with_both_spans(record) -> None:
    made = record(*(str(stamp + 10**12) for stamp in STAMPS))
    with pytest.raises(
        BadInput, match=r"no pose within 0\.02 s of a frame; poses are at 1403636579.*, frames at 14036375"
    ):
        match_cameras(load_cameras(tum(made)), load_clip(made.video))


def test_numbers_of_frames_are_no_times(record) -> None:
    made = record()
    with pytest.raises(BadInput, match=r"frames \(frame_0000000001\.\.\) have no such times in their names"):
        match_cameras(load_cameras(tum(made)), load_clip(made.video, fps=20))


def test_a_trajectory_from_the_clip_s_beginning_goes_by_its_times(record) -> None:
    made = record()
    rows = [f"{0.05 * place + 0.001} {place} 0 0 0 0 0 1" for place in range(8)]
    clip = load_clip(made.video, fps=20, first_frame=1)
    poses = match_cameras(load_cameras(made.write("t.txt", "\n".join(rows))), clip).poses
    assert [pose[0, 3] for pose in poses.values()] == [0, 1, 2, 3, 4, 5]


def test_the_columns_that_a_header_names_win(record) -> None:
    made = record()
    rows = ["time,x,y,z,qw,qx,qy,qz", *(f"{0.05 * place},{place},0,0,0,0,0,1" for place in range(6))]
    clip = load_clip(made.video, fps=20, first_frame=1)
    poses = match_cameras(load_cameras(made.write("t.csv", "\n".join(rows))), clip).poses
    assert np.allclose(poses[made.stems[0]], np.diag([-1.0, -1, 1, 1]))


def test_a_body_needs_the_place_of_its_camera(record) -> None:
    made = record(*(str(stamp) for stamp in STAMPS))
    source = euroc(made)
    (source / "cam0" / "sensor.yaml").unlink()
    with pytest.raises(BadInput, match=r"states are those of a body, and no cam0/sensor\.yaml says"):
        load_cameras(source)


def test_as_many_poses_as_frames_where_neither_has_names(record) -> None:
    made = record()
    source = json_list(made)
    Image.new("RGB", (64, 48)).save(made.video / "frame_0000000007.png")
    with pytest.raises(BadInput, match="holds 6 poses without names for 7 frames"):
        match_cameras(load_cameras(source), load_clip(made.video))


# intrinsics


def test_intrinsics_of_another_size(record) -> None:
    made = record()
    matrix = load_intrinsics(made.write("K.txt", "100 0 62\n0 104 50\n0 0 1\n"))
    assert np.allclose(scaled(matrix, parse_size("128x96"), (64, 48), "K"), made.intrinsics)
    assert scaled(matrix, (64, 48), (64, 48), "K")[0, 0] == 100
    for text in ("128", "0x96", "128x96x3", "1e3x5", "-1x4"):
        with pytest.raises(BadInput, match=f"--intrinsics-of {text}: expected the frames' size"):
            parse_size(text)
    with pytest.raises(BadInput, match="belong to images of 128x128, the frames have 64x48"):
        scaled(matrix, parse_size("128x128"), (64, 48), "K")
