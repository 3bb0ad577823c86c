"""Workloads: questions that are told from others by their content, wherever the files lie."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.question import Question
from stllm_edge.benchmarks.latency.workload import OTHER, of_recording, of_subset
from stllm_edge.benchmarks.rea.subset import Subset
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.options import Recording


@pytest.fixture
def recording(sample: tuple[Path, Path]) -> Recording:
    return Recording(*sample)


def test_a_subset_is_named_and_its_questions_come_clip_by_clip(rea: Any) -> None:
    workload = of_subset(rea.open(), Subset("first:4"), frames=None, new_tokens=8).settled([3])
    assert workload.name == "val first:4, 3 frames, 8 tokens"
    assert [question.id for question in workload.questions] == [entry["id"] for entry in rea.entries[:4]]
    first, second = workload.questions[:2]
    # the other question is the next one about the same clip
    assert (first.other, second.other) == (second.text, first.text)


def test_a_clip_with_one_question_is_asked_another(rea: Any) -> None:
    workload = of_subset(rea.open(), Subset("first:1"), frames=None, new_tokens=8)
    assert workload.questions[0].other == OTHER


def test_the_digest_follows_what_is_computed_and_not_where_it_lies(rea: Any, tmp_path: Path) -> None:
    def digest(subset: str = "first:2", frames: int | None = 3, new_tokens: int = 8, data: Any = rea) -> str:
        return of_subset(data.open(), Subset(subset), frames=frames, new_tokens=new_tokens).settled([3]).digest

    moved = replace(rea, root=Path(shutil.copytree(rea.root, tmp_path / "moved")))
    # the bundle's number of frames is the same as that number asked for
    assert digest() == digest(data=moved) == digest(frames=None)
    others = [digest("first:3"), digest("end:2"), digest(frames=2), digest(new_tokens=9)]
    rea.entries[0]["conversations"][0]["value"] += " Where?"
    rea.write()
    assert len({digest(), *others, digest(data=moved)}) == 6


def test_questions_about_a_recording_take_turns(recording: Recording) -> None:
    workload = of_recording(recording, ["Where is it?", "What is it?", "Why?"], frames=4, new_tokens=2)
    assert [question.id for question in workload.questions] == ["question-1", "question-2", "question-3"]
    assert [question.other for question in workload.questions] == ["What is it?", "Why?", "Where is it?"]
    alone = of_recording(recording, [OTHER], frames=4, new_tokens=2)
    assert alone.questions[0].other not in ("", OTHER)


def test_the_digest_of_a_recording_follows_its_files(recording: Recording, tmp_path: Path) -> None:
    def digest(used: Recording, asked: str = "Where?") -> str:
        return of_recording(used, [asked], frames=4, new_tokens=2).digest

    scene = Path(shutil.copytree(recording.scene, tmp_path / "scene"))
    assert digest(recording) == digest(replace(recording, scene=scene))
    next((scene / "poses").iterdir()).unlink()
    others = [replace(recording, scene=scene), replace(recording, fps=2.0), replace(recording, first_frame=1)]
    assert len({digest(recording), digest(recording, "Why?"), *map(digest, others)}) == 5


def test_questions_reach_another_process_as_they_are(rea: Any, recording: Recording) -> None:
    asked = [
        *of_subset(rea.open(), Subset("first:2"), frames=None, new_tokens=8).questions,
        *of_recording(recording, ["Where?"], frames=4, new_tokens=2).questions,
    ]
    assert [Question.from_json(question.to_json()) for question in asked] == asked
    for question in asked:
        scene, clip, _ = question.load()
        assert len(scene.points)
        assert len(clip)


@pytest.mark.parametrize(
    ("asked", "options", "reason"),
    [
        ([], {}, "a workload is --rea and --root, or --scene, --video and --question"),
        (["Where?", "Where?"], {}, "a --question is given twice"),
        ([""], {}, "question"),
        (["Where?"], {"frames": 0}, "--frames 0: expected at least 1"),
        (["Where?"], {"new_tokens": 1}, "--max-new-tokens 1: expected at least 2"),
    ],
)
def test_what_is_no_workload_is_one_line(
    asked: list[str], options: dict[str, Any], reason: str, recording: Recording
) -> None:
    with pytest.raises(BadInput, match=reason):
        of_recording(recording, asked, **{"frames": 4, "new_tokens": 2, **options})


def test_a_subset_that_selects_nothing_is_refused(rea: Any) -> None:
    with pytest.raises(BadInput, match="no sample is of both the types and the scenes"):
        of_subset(rea.open(), Subset("all", ("action_planning",)), frames=None, new_tokens=8)
    with pytest.raises(BadInput, match="asks for 99 of 8 samples"):
        of_subset(rea.open(), Subset("first:99"), frames=None, new_tokens=8)


def test_bundles_of_other_numbers_of_frames_need_one_number(rea: Any) -> None:
    workload = of_subset(rea.open(), Subset("first:1"), frames=None, new_tokens=8)
    with pytest.raises(BadInput, match="the bundles sample 4 and 32 frames by default; give --frames"):
        workload.settled([4, 32])
    assert replace(workload, frames=2).settled([4, 32]).frames == 2
