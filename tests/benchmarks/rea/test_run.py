"""stllm-bench rea run and merge: every item once, whatever happens in between."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.rea.answering import Request
from stllm_edge.benchmarks.rea.dataset import ReaDataset
from stllm_edge.benchmarks.rea.merge import merge_results
from stllm_edge.benchmarks.rea.results import read_results
from stllm_edge.benchmarks.rea.run import Run, Task, run_subset
from stllm_edge.benchmarks.rea.subset import Shard, Subset
from stllm_edge.runtime import BadInput, Options, Session

FAST = Options(precision="fp32", quant="Q8_0", threads=1, resident=True)
LENGTHS = {"frames": 2, "max_new_tokens": 3}


def answer(bundle: Path, dataset: ReaDataset, out: Path, *, advance: Any = None, **changed: Any) -> Run:
    """Run with some fields of the request or of the task changed."""
    asked = {"options": FAST, **LENGTHS, **changed}
    request = Request(bundle, **{name: asked.pop(name) for name in ("options", "frames", "max_new_tokens")})
    return run_subset(Task(request, **asked), dataset, out, advance=advance or (lambda samples: None))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first frame of each clip that a session looks at."""
    seen: list[str] = []
    look = Session.look

    def recorded(session: Session, scene: Any, clip: Any, **options: Any) -> Any:
        number = int(clip.frames.files[0].removeprefix("frame_").removesuffix(".jpg"))
        seen.append(f"{clip.frames.folder.name} {number}")
        return look(session, scene, clip, **options)

    monkeypatch.setattr(Session, "look", recorded)
    return seen


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path, pristine: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All samples answered in one go."""
    return answer(tiny_bundle, pristine.open(), tmp_path_factory.mktemp("whole"))


def answers(run: Run) -> dict[str, str]:
    return {record["id"]: record["pred"] for record in run.records}


def test_every_sample_is_answered_with_its_times(whole, pristine) -> None:
    assert [record["id"] for record in whole.records] == [entry["id"] for entry in pristine.entries]
    assert (whole.answered, whole.broken) == (8, [])
    first = whole.records[0]
    assert (first["query"], first["gt"]) == ("In which direction is the table?", "To the left.")
    assert (first["question_type"], first["scene_id"]) == ("relative_direction", "P01_11")
    assert 1 <= first["new_tokens"] <= 3
    assert {"vision", "points", "aligner", "prefill", "decode"} <= set(first["milliseconds"])
    assert 0 < whole.records[1]["seconds"] < first["seconds"]


def test_predictions_are_what_the_graders_read(whole) -> None:
    predictions = json.loads((whole.results.parent / "predictions.json").read_text())
    assert predictions == [{key: record[key] for key in ("query", "gt", "pred")} for record in whole.records]


def test_a_clip_is_looked_at_once(tiny_bundle, rea, tmp_path, looks, whole) -> None:
    rea.entries.insert(0, rea.entries.pop())
    rea.write()
    run = answer(tiny_bundle, rea.open(), tmp_path / "out")
    assert sorted(looks) == ["P01_11 11", "P01_11 3", "P02_101 11", "P02_101 3"]
    assert [record["id"] for record in run.records] == [entry["id"] for entry in rea.entries]
    assert answers(run) == answers(whole)


def test_resuming_neither_repeats_nor_loses_an_item(tiny_bundle, pristine, tmp_path, looks, whole) -> None:
    lines = whole.results.read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:-20])
    run = answer(tiny_bundle, pristine.open(), tmp_path)
    assert (run.answered, sorted(looks)) == (5, ["P01_11 11", "P02_101 11", "P02_101 3"])
    assert answers(run) == answers(whole)
    assert len(run.results.read_bytes().splitlines()) == 9
    again = answer(tiny_bundle, pristine.open(), tmp_path)
    assert (again.answered, len(looks), answers(again)) == (0, 3, answers(whole))


def test_a_run_that_is_interrupted_keeps_what_it_has(tiny_bundle, pristine, tmp_path) -> None:
    def interrupt(samples: int) -> None:
        if samples and (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(tiny_bundle, pristine.open(), tmp_path, advance=interrupt)
    assert len(read_results(tmp_path / "results.jsonl")[1]) == 3
    assert not (tmp_path / "predictions.json").exists()


def test_a_run_that_is_killed_goes_on(tiny_bundle, pristine, tmp_path, whole) -> None:
    arguments = ["--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root, "--out", tmp_path]
    choices = ["--quant", "Q8_0", "--frames", 2, "--max-new-tokens", 3, "--threads", 1]
    program = "from stllm_edge.cli import bench; bench()"
    command = [sys.executable, "-c", program, "rea", "run", *map(str, [*arguments, *choices])]
    results = tmp_path / "results.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not results.exists() or results.read_bytes().count(b"\n") < 3):
            time.sleep(0.01)
        process.kill()
    kept = len(read_results(results)[1])
    run = answer(tiny_bundle, pristine.open(), tmp_path)
    assert 2 <= kept < 8
    assert (run.answered, answers(run)) == (8 - kept, answers(whole))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"options": Options(precision="fp32", quant="F32")}, "another bundle"),
        ({"options": Options(precision="fp32", quant="Q8_0", kv="f32")}, r"other options \(kv f16, not f32\)"),
        ({"frames": 3}, r"other options \(frames 2, not 3\)"),
        ({"max_new_tokens": 4}, r"other options \(max_new_tokens 3, not 4\)"),
        ({"subset": Subset("first:8")}, "another subset"),
    ],
)
def test_results_of_something_else_are_refused(tiny_bundle, pristine, whole, changed, words: str) -> None:
    with pytest.raises(BadInput, match=rf"results\.jsonl: is (from|of) {words}"):
        answer(tiny_bundle, pristine.open(), whole.results.parent, **changed)


def test_results_of_another_rea_file_are_refused(tiny_bundle, rea, whole) -> None:
    rea.entries[0]["conversations"][0]["value"] += " Say it."
    rea.write()
    with pytest.raises(BadInput, match=r"results\.jsonl: is from another REA file"):
        answer(tiny_bundle, rea.open(), whole.results.parent)


def test_broken_samples_are_skipped_and_asked_once_they_are_mended(tiny_bundle, rea, tmp_path, whole, caplog) -> None:
    missing = (rea.frame("P01_11", 3), rea.frame("P02_101", 26))
    frames = [frame.read_bytes() for frame in missing]
    for frame in missing:
        frame.unlink()
    run = answer(tiny_bundle, rea.open(), tmp_path / "out")
    assert [sample.id.rpartition("-")[0] for sample in run.broken] == [
        "P01_11-1",
        "P01_11-1",
        "P02_101-11",
        "P02_101-11",
    ]
    assert "skipped P01_11-1-find_my_item: frame " in caplog.text
    assert len(run.records) == 4
    for frame, content in zip(missing, frames, strict=True):
        frame.write_bytes(content)
    mended = answer(tiny_bundle, rea.open(), tmp_path / "out")
    assert (mended.answered, mended.broken, answers(mended)) == (4, [], answers(whole))


def test_a_lost_pose_takes_its_frame_out_and_is_said(tiny_bundle, rea, tmp_path, caplog) -> None:
    rea.pose("P02_101", 26).write_text("-inf " * 16)
    run = answer(tiny_bundle, rea.open(), tmp_path / "out")
    assert (len(run.records), run.broken) == (8, [])
    assert "1 of 3 poses cannot be used and count as absent" in caplog.text


def test_a_question_that_cannot_be_asked_is_broken_alone(tiny_bundle, rea, tmp_path) -> None:
    rea.entries[0]["conversations"][0]["value"] += " \ud800"
    rea.write()
    run = answer(tiny_bundle, rea.open(), tmp_path / "out", subset=Subset("first:2"))
    assert [sample.id for sample in run.broken] == [rea.entries[0]["id"]]
    assert "not valid UTF-8" in run.broken[0].reason
    assert [record["id"] for record in run.records] == [rea.entries[1]["id"]]


def test_shards_are_cut_between_clips_and_merged_are_the_whole(tiny_bundle, pristine, tmp_path, looks, whole) -> None:
    shards = [
        answer(tiny_bundle, pristine.open(), tmp_path, shard=Shard.parse(f"{number}/3")) for number in range(1, 4)
    ]
    assert (len(looks), [shard.answered for shard in shards]) == (4, [4, 2, 2])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"{stem}.{number}-of-3.{suffix}"
        for stem, suffix in (("predictions", "json"), ("results", "jsonl"))
        for number in range(1, 4)
    ]
    merged = merge_results([shard.results for shard in reversed(shards)], tmp_path / "merged")
    assert {record["id"]: record["pred"] for record in merged.records} == answers(whole)
    assert merged.missing == []
    ours, theirs = tmp_path / "merged", whole.results.parent
    assert (ours / "predictions.json").read_bytes() == (theirs / "predictions.json").read_bytes()
    assert read_results(ours / "results.jsonl")[0] == read_results(theirs / "results.jsonl")[0]


def test_merging_reports_what_is_missing_and_a_run_goes_on_from_there(
    tiny_bundle, pristine, tmp_path, stllm, whole
) -> None:
    shard = answer(tiny_bundle, pristine.open(), tmp_path, shard=Shard(1, 2))
    result = stllm("bench", "rea", "merge", shard.results, "--out", tmp_path / "merged")
    assert (result.exit_code, result.stdout) == (0, f"4 answers in {tmp_path / 'merged'}, 4 missing\n")
    assert result.stderr.splitlines() == [f"missing: {name}" for name in answers(whole) if name not in answers(shard)]
    run = answer(tiny_bundle, pristine.open(), tmp_path / "merged")
    assert (run.answered, answers(run)) == (4, answers(whole))


def test_what_does_not_belong_together_is_not_merged(tiny_bundle, pristine, tmp_path, stllm, whole) -> None:
    other = answer(tiny_bundle, pristine.open(), tmp_path / "other", subset=Subset("first:1"), frames=1)
    for files, words in (
        ([whole.results, other.results], "is from other options (frames 1, not 2) as in"),
        ([whole.results, whole.results], "answers 8 ids that"),
        ([tmp_path / "nothing.jsonl"], "nothing.jsonl: cannot be read (No such file or directory)"),
    ):
        result = stllm("bench", "rea", "merge", *files, "--out", tmp_path / "merged")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert words in result.stderr
    assert not (tmp_path / "merged").exists()


def test_answers_of_another_run_are_not_merged_over(tiny_bundle, pristine, tmp_path, stllm, whole) -> None:
    other = answer(tiny_bundle, pristine.open(), tmp_path / "other", subset=Subset("first:1"), frames=1)
    before = other.results.read_bytes()
    result = stllm("bench", "rea", "merge", whole.results, "--out", tmp_path / "other")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "is from other options (frames 1, not 2) as in" in result.stderr
    assert other.results.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-new-tokens", 10**6), "the model was made for 32768"),
        (("--scheduler", "nonsense"), "--scheduler nonsense: no Dask scheduler answers"),
        (("--shard", "0/2"), "--shard 0/2: expected i/n with 1 <= i <= n"),
        (("--shard", "3/2"), "--shard 3/2: expected"),
        (("--shard", "half"), "--shard half: expected"),
        (("--subset", "some"), "--subset some: unknown; known are all, "),
        (("--type", "colour"), "--type colour: unknown"),
        (("--max-new-tokens", 0), "--max-new-tokens 0: expected at least 1"),
        (("--frames", 0), "--frames 0: expected at least 1"),
        (("--quant", "Q2_K"), "--quant Q2_K: "),
        (("--fps", -1), "--fps -1.0: expected a positive number"),
    ],
)
def test_options_that_cannot_be(tiny_bundle, pristine, tmp_path, stllm, options, words: str) -> None:
    source = ("--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root, "--out", tmp_path / "out")
    result = stllm("bench", "rea", "run", *source, *options)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be(tiny_bundle, pristine, tmp_path, stllm, whole) -> None:
    (tmp_path / "out").write_text("")
    source = ("--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root)
    for result in (
        stllm("bench", "rea", "run", *source, "--out", tmp_path / "out"),
        stllm("bench", "rea", "merge", whole.results, "--out", tmp_path / "out"),
    ):
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "no folder can be made there" in result.stderr


def test_nothing_answered_is_a_failure_that_says_why(tiny_bundle, pristine, tmp_path, stllm) -> None:
    source = ("--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root, "--out", tmp_path / "out")
    result = stllm("bench", "rea", "run", *source, "--frames", 9, "--subset", "first:1")
    assert result.exit_code == 1
    assert "skipped P01_11-1-relative_direction: --frames 9: 3 of 3 frames" in result.stderr
    assert "1 samples were skipped, for the reasons above" in result.stderr


def test_the_command_prints_the_score(tiny_bundle, pristine, tmp_path, stllm) -> None:
    pytest.importorskip("stllm_edge.benchmarks.scoring.score")
    source = ("--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root, "--out", tmp_path / "out")
    result = stllm("bench", "rea", "run", *source, "--frames", 2, "--max-new-tokens", 3, "--subset", "first:3")
    assert result.exit_code == 0, result.output
    assert "relative_direction" in result.stdout
    assert "3 answers, 3 of them new" in result.stderr
