"""Every format of cameras gives the same poses and intrinsics, is found out, and is told when it is damaged."""

import shutil

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.cameras.reading import load_cameras
from stllm_edge.runtime.inputs.matching import match_cameras
from stllm_edge.runtime.inputs.writing import write_matrix

from ..written import colmap_binary, colmap_text, epic, euroc, folder, json_list, nerfstudio, rows_of_12, tum


def test_every_format_gives_the_same(written) -> None:
    made, source, lens = written
    matched = match_cameras(load_cameras(source), load_clip(made.video))
    assert set(matched.poses) == set(made.stems)
    for stem, pose in made.poses.items():
        assert np.abs(matched.poses[stem] - pose).max() < 1e-12
    if lens:
        assert np.allclose(matched.intrinsics, made.intrinsics, rtol=1e-12)
    else:
        assert matched.intrinsics is None
    assert next(matched.clip.read([0])).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("write", "inside"),
    [
        (colmap_text, "images.txt"),
        (colmap_text, "../.."),
        (colmap_text, ".."),
        (colmap_binary, "cameras.bin"),
        (nerfstudio, ".."),
        (tum, ".."),
        (euroc, ".."),
        (euroc, "cam0"),
        (euroc, "state_groundtruth_estimate0"),
        (euroc, "state_groundtruth_estimate0/data.csv"),
    ],
)
def test_a_format_is_found_from_its_folder_and_from_its_files(record, write, inside: str) -> None:
    made = record()
    cameras = load_cameras((write(made) / inside).resolve())
    assert len(cameras.poses) == 6


def test_what_is_no_format_lists_the_known(record, tmp_path) -> None:
    made = record()
    with pytest.raises(BadInput, match=r"holds none; expected a COLMAP model, EPIC-Fields"):
        load_cameras(made.video)
    with pytest.raises(BadInput, match="nowhere: no such file"):
        load_cameras(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="JSON of another kind"):
        load_cameras(made.write("other.json", '{"a": 1}'))
    with pytest.raises(BadInput, match="6 rows of 5 numbers are no poses"):
        load_cameras(made.write("five.txt", "1 2 3 4 5\n" * 6))


def test_formats_with_a_convention_of_their_own_take_no_other(record) -> None:
    made = record()
    for write in (colmap_text, epic, nerfstudio, euroc):
        with pytest.raises(BadInput, match=r"--pose-convention w2c: .* says itself how its poses are meant"):
            load_cameras(write(made), pose_convention="w2c")


def test_a_convention_is_used_where_the_format_has_none(record) -> None:
    made = record()
    for write in (folder, rows_of_12, json_list):
        pose = load_cameras(write(made), pose_convention="w2c").poses
        assert np.allclose(next(iter(pose.values())), np.linalg.inv(made.poses[made.stems[0]]))


def test_several_models_are_not_chosen_from(record) -> None:
    made = record()
    model = colmap_text(made)
    shutil.copytree(model, model.with_name("1"))
    with pytest.raises(BadInput, match="holds 2 COLMAP models; give one"):
        load_cameras(made.root)
    assert len(load_cameras(model).poses) == 6


# damaged files

FORMATS = {
    "colmap_text": colmap_text,
    "colmap_binary": colmap_binary,
    "epic.json": epic,
    "transforms.json": nerfstudio,
    "groundtruth.txt": tum,
    "euroc": euroc,
    "kitti.txt": rows_of_12,
    "list.json": json_list,
    "one_pose_a_file": folder,
}


def test_damaged_cameras_are_read_or_refused(record, tmp_path, survives_damage) -> None:
    made, originals = record(), tmp_path / "originals"
    originals.mkdir()
    for name, write in FORMATS.items():
        source = write(made)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, originals / name)
    # one of many files stands for all
    for file in sorted((originals / "one_pose_a_file").iterdir())[1:]:
        file.unlink()
    survives_damage("cameras", originals, 60)


def test_damaged_intrinsics_are_read_or_refused(record, tmp_path, survives_damage) -> None:
    originals = tmp_path / "originals"
    originals.mkdir()
    write_matrix(originals / "K.txt", record().intrinsics)
    survives_damage("intrinsics", originals, 60)
