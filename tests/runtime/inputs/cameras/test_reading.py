"""Every format of cameras gives the same poses and intrinsics, is found out, and is told when it is damaged."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.cameras.reading import load_cameras
from stllm_edge.runtime.inputs.matching import match_cameras

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


# mutated files


def mutate(data: bytes, draw: np.random.Generator) -> bytes:
    """Bytes changed, left out, doubled or put in, or an end cut off."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        place = int(draw.integers(0, max(1, len(changed))))
        end = place + int(draw.integers(1, 40))
        match int(draw.integers(0, 7)):
            case 0:
                changed[place : place + 1] = bytes(draw.integers(0, 256, 1, np.uint8))
            case 1:
                del changed[place:end]
            case 2:
                changed[place:place] = changed[place:end]
            case 3:
                del changed[place:]
            case 4:
                words = [
                    b"nan",
                    b"-inf",
                    b"1e999",
                    b"{",
                    b"]",
                    b"\xff\xfe",
                    b"\0" * 8,
                    b"\xff" * 8,
                    b"null",
                    b"-1",
                    b"\n",
                ]
                changed[place:place] = words[int(draw.integers(0, len(words)))]
            case 5:
                changed[place : place + 8] = b"\xff" * 8
            case _:
                changed[place : place + 4] = bytes(draw.integers(48, 58, 4, np.uint8))
    return bytes(changed)


def mutants(count: int, file: Path, seed: int) -> Iterator[int]:
    """Put a mutated form of a file in its place, one after the other, and the file itself back at the end."""
    data, draw = file.read_bytes(), np.random.default_rng(seed)
    for number in range(count):
        file.write_bytes(mutate(data, draw))
        yield number
    file.write_bytes(data)


FUZZED = {
    "COLMAP cameras.txt": (colmap_text, "cameras.txt"),
    "COLMAP images.txt": (colmap_text, "images.txt"),
    "COLMAP cameras.bin": (colmap_binary, "cameras.bin"),
    "COLMAP images.bin": (colmap_binary, "images.bin"),
    "EPIC-Fields": (epic, ""),
    "nerfstudio": (nerfstudio, ""),
    "TUM": (tum, ""),
    "EuRoC": (euroc, "state_groundtruth_estimate0/data.csv"),
    "EuRoC sensor.yaml": (euroc, "cam0/sensor.yaml"),
    "matrices": (rows_of_12, ""),
    "JSON": (json_list, ""),
    "a pose": (folder, "frame_0000000003.txt"),
}


@pytest.mark.parametrize(("write", "inside"), FUZZED.values(), ids=FUZZED)
def test_mutated_files_give_messages(record, caplog, write, inside: str, fuzz_count: int) -> None:
    made = record()
    source = write(made)
    clip = load_clip(made.video, fps=20)
    caplog.set_level(logging.ERROR, "stllm_edge")
    for _ in mutants(fuzz_count, source / inside if inside else source, seed=11):
        with contextlib.suppress(BadInput):
            match_cameras(load_cameras(source), clip)
