"""stllm-bench rea check: counts, coverage, and every broken sample with its reason."""

import json

import pytest
from PIL import Image
from stllm_edge.benchmarks.rea.check import Coverage, check_dataset


def test_a_whole_data_set(rea) -> None:
    check = check_dataset(rea.open())
    assert check.types == {"relative_direction": 4, "find_my_item": 4}
    assert check.scenes == dict.fromkeys(("P01_11", "P02_101"), Coverage(4, 2, 40, 6, 6))
    assert (check.usable, check.broken) == (8, [])


@pytest.mark.parametrize(
    ("damage", "broken", "words"),
    [
        (lambda rea: rea.frame("P01_11", 3).unlink(), ["P01_11-1"], "frame_0000000003.jpg: missing"),
        (lambda rea: rea.frame("P01_11", 3).write_bytes(b""), ["P01_11-1"], "frame_0000000003.jpg: unreadable"),
        (
            lambda rea: [rea.pose("P02_101", number).write_text("nan " * 16) for number in (11, 18, 26)],
            ["P02_101-11"],
            "frame_0000000011.txt: holds NaN or infinity",
        ),
        (lambda rea: rea.cloud("P01_11").unlink(), ["P01_11-1", "P01_11-11"], "P01_11.npy: no such file"),
        (lambda rea: (rea.root / "P01_11.txt").write_text("1"), ["P01_11-1", "P01_11-11"], "expected 3x3"),
    ],
)
def test_broken_samples_are_listed_and_the_others_usable(rea, damage, broken: list[str], words: str) -> None:
    damage(rea)
    check = check_dataset(rea.open())
    assert sorted({sample.id.rpartition("-")[0] for sample in check.broken}) == sorted(broken)
    assert all(words in sample.reason for sample in check.broken)
    assert check.usable == 8 - 2 * len(broken)


def test_a_lost_pose_is_said_and_its_clip_usable(rea, caplog) -> None:
    rea.pose("P02_101", 18).write_text("-inf " * 16)
    assert check_dataset(rea.open()).broken == []
    assert "1 of 3 poses cannot be used and count as absent" in caplog.text


def test_coverage_counts_frames_and_poses_apart(rea) -> None:
    rea.pose("P01_11", 11).unlink()
    Image.new("RGB", (128, 96)).save(rea.frame("P01_11", 30))
    assert check_dataset(rea.open()).scenes["P01_11"] == Coverage(4, 2, 40, 7, 4)


def test_the_command_prints_a_table_or_json(rea, stllm) -> None:
    rea.frame("P01_11", 3).unlink()
    result = stllm("bench", "rea", "check", "--rea", rea.file, "--root", rea.root)
    assert result.exit_code == 0, result.output
    assert "6 of 8 samples are usable, 2 are broken" in result.stdout
    assert "broken: P01_11-1-find_my_item: frame " in result.stdout
    result = stllm("bench", "rea", "check", "--rea", rea.file, "--root", rea.root, "--json")
    report = json.loads(result.stdout)
    assert (report["usable"], report["types"]["find_my_item"], len(report["broken"])) == (6, 4, 2)
    assert report["scenes"]["P02_101"] == {"samples": 4, "clips": 2, "frames": 40, "found": 6, "posed": 6}


def test_nothing_usable_is_a_failure(rea, stllm) -> None:
    for scene in ("P01_11", "P02_101"):
        rea.cloud(scene).unlink()
    result = stllm("bench", "rea", "check", "--rea", rea.file, "--root", rea.root)
    assert result.exit_code == 1
    assert "0 of 8 samples are usable" in result.stdout


def test_a_file_of_another_data_set_is_one_line(rea, stllm) -> None:
    rea.entries[0]["metadata"]["dataset"] = "ScanQA"
    rea.write()
    result = stllm("bench", "rea", "check", "--rea", rea.file, "--root", rea.root)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "belongs to data set 'ScanQA'" in result.stderr


def test_pictures_of_every_clip(rea, stllm, tmp_path) -> None:
    result = stllm(
        "bench", "rea", "check", "--rea", rea.file, "--root", rea.root, "--pictures", tmp_path / "pictures", "--json"
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "pictures").glob("P01_11_*.png"))) == 2
    assert json.loads(result.stdout)["doubtful"] == []
