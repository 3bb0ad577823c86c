"""Collecting a calibration set: which questions, from what, and where an interrupted one goes on."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.calib.collection import Candidate, stratified

KINDS, SCENES = ("direction", "distance", "item"), tuple(f"P{number:02d}" for number in range(6))


def candidates(per_stratum: int) -> list[Candidate]:
    return [
        Candidate(f"{kind}-{scene}-{number}", kind, scene, "Where?", lambda frames: pytest.fail("nothing is read"))
        for kind in KINDS
        for scene in SCENES
        for number in range(per_stratum)
    ]


def test_types_and_scenes_are_taken_in_turn() -> None:
    chosen = stratified(candidates(5), 12, seed=0)
    assert set(Counter(one.kind for one in chosen).values()) == {4}
    assert set(Counter(one.scene for one in chosen).values()) == {2}


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    every = candidates(5)
    chosen = [one.id for one in stratified(every, 8, seed=3)]
    assert [one.id for one in stratified(every[::-1], 8, seed=3)] == chosen
    assert [one.id for one in stratified(every, 8, seed=4)] != chosen


def collect(stllm: Any, checkpoint: Path, out: Path, *options: object) -> Any:
    return stllm("calib", "collect", "--ckpt", checkpoint, "--out", out, "--samples", 4, "--frames", 1, *options)


def test_collecting_goes_on_where_it_stopped(
    tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stllm_edge.calib import collection

    written: list[str] = []
    save = collection.Sample.save

    def interrupted(sample: Any, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        save(sample, path)

    monkeypatch.setattr(collection.Sample, "save", interrupted)
    assert collect(stllm, tiny_checkpoint, tmp_path / "set", *world).exit_code != 0
    first = (tmp_path / "set/samples/000.npz").read_bytes()
    monkeypatch.setattr(collection.Sample, "save", save)
    result = collect(stllm, tiny_checkpoint, tmp_path / "set", *world)
    assert result.exit_code == 0, result.output
    assert "goes on after 2 of 4 samples" in result.output
    assert sorted(file.name for file in (tmp_path / "set/samples").iterdir()) == [
        f"00{place}.npz" for place in range(4)
    ]
    whole = collect(stllm, tiny_checkpoint, tmp_path / "whole", *world)
    assert whole.exit_code == 0
    assert (tmp_path / "whole/samples/000.npz").read_bytes() == first
    assert (tmp_path / "whole/set.json").read_bytes() == (tmp_path / "set/set.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give either --rea FILE with --root DIR, or --scene with --video"),
        (["--scene", "nowhere"], "--scene and --video go together"),
        (["--rea", "nowhere.json"], "--root is missing"),
        (["--scene", "a", "--video", "b", "--samples", 1], "--samples 1: expected at least 4"),
        (["--scene", "a", "--video", "b", "--frames", 0], "--frames 0: expected positive numbers"),
    ],
)
def test_what_cannot_be_collected_is_refused(
    options: list[object], words: str, tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path
) -> None:
    given = [dict(zip("ab", world[1::2], strict=True)).get(str(option), option) for option in options]
    result = collect(stllm, tiny_checkpoint, tmp_path / "set", *given)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "set").exists()


def test_a_missing_tokenizer_is_named_with_the_extra_that_brings_it(
    tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    result = collect(stllm, tiny_checkpoint, tmp_path / "set", *world)
    assert result.exit_code == 2
    assert result.output.endswith(": tokenizers is not installed; pip install 'stllm-edge[export]'\n")


def test_a_folder_that_holds_something_else_is_left_alone(
    tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = collect(stllm, tiny_checkpoint, tmp_path, *world)
    assert result.exit_code == 2
    assert "holds something else" in result.output
