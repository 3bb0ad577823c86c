"""stllm-bench tune from the command line to a preset that stllm-run takes."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from stllm_edge.benchmarks.rea.answering import Request, answer_clip
from stllm_edge.benchmarks.rea.dataset import by_clip
from stllm_edge.benchmarks.tuning.bench import Bench, peak_of
from stllm_edge.benchmarks.tuning.candidates import Choices, grid
from stllm_edge.benchmarks.tuning.search import Unfit
from stllm_edge.runtime import DoesNotFit, Options, Session

CHOSEN = ("--precision", "fp32", "--quant", "F32", "--quant", "Q8_0", "--frames", 2, "--kv", "f16")
SHORT = ("--max-new-tokens", 3, "--threads", 1)


@pytest.fixture(scope="module")
def tune(stllm: Any, tiny_bundle: Path, pristine: Any) -> Any:
    """Runs the command on the tiny bundle and the small data set."""

    def run(out: Path, *more: object) -> Result:
        source = ("--bundle", tiny_bundle, "--rea", pristine.file, "--root", pristine.root, "--out", out)
        return stllm("bench", "tune", *source, *CHOSEN, *SHORT, *more)

    return run


@pytest.fixture(scope="module")
def whole(tune: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What a whole search prints and leaves."""
    out = tmp_path_factory.mktemp("tune") / "out"
    return tune(out), out


@pytest.fixture
def out(whole: tuple[Result, Path], tmp_path: Path) -> Path:
    """A copy of its folder."""
    return shutil.copytree(whole[1], tmp_path / "out")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]


def preds(line: dict[str, Any]) -> tuple[Any, Any]:
    return line.get("id"), line.get("pred")


def cut(out: Path, count: int) -> None:
    """Leave so many lines, and a part of the next."""
    kept = (out / "measurements.jsonl").read_bytes().splitlines(keepends=True)
    (out / "measurements.jsonl").write_bytes(b"".join(kept[:count]) + kept[count][:30])


def test_it_prints_the_front_draws_it_and_writes_a_preset(whole: tuple[Result, Path]) -> None:
    result, out = whole
    assert result.exit_code == 0, result.output
    titles, *rows = result.stdout.splitlines()
    assert titles.split()[:2] == ["configuration", "questions"]
    assert len(rows) == 2
    assert [row.split()[0] for row in rows if row[0] != " "].count("→") == 1
    exact = next(row for row in rows if "fp32 F32, 2 frames, kv f16" in row)
    assert "8 " in exact
    assert "100.0 [67.6, 100.0]" in exact
    assert "16 questions asked of 2 configurations" in result.stderr
    texts = [
        element.text or "" for element in ElementTree.parse(out / "front.svg").iter() if element.tag[-4:] == "text"
    ]
    assert any(text.endswith("chosen") and "fp32" in text for text in texts)
    assert {path.name for path in out.iterdir()} == {"measurements.jsonl", "front.svg", "preset.json"}


def test_the_preset_says_what_it_was_measured_on_and_runs(
    whole: tuple[Result, Path], stllm: Any, tiny_bundle: Path, sample: tuple[Path, Path], pristine: Any
) -> None:
    preset = json.loads((whole[1] / "preset.json").read_text())
    measured = preset["measured"]
    assert (measured["bundle"], measured["questions"], measured["threads"]) == ("tiny", 8, 1)
    assert measured["rea"] == pristine.open().digest
    assert measured["memory"] > 50e6
    asked = ("-b", tiny_bundle, "-s", sample[0], "-V", sample[1], "-q", "Where is the mug?", "-n", 2, "--json")
    result = stllm("run", *asked, "--preset", whole[1] / "preset.json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {key: report[key] for key in ("precision", "quant", "frames")} == {
        key: preset["options"][key] for key in ("precision", "quant", "frames")
    }


def test_answers_are_those_of_a_run(whole: tuple[Result, Path], tiny_bundle: Path, pristine: Any) -> None:
    options = Options(precision="fp32", quant="F32", threads=1, resident=True)
    clip = by_clip(pristine.open().samples)[0]
    with Session(tiny_bundle, options) as session:
        request = Request(tiny_bundle, options, frames=2, max_new_tokens=3)
        expected = {record["id"]: record["pred"] for record in answer_clip(session, clip, request)}
    found = {line["id"]: line["pred"] for line in lines(whole[1])[1:] if line["candidate"]["quant"] == "F32"}
    assert expected.items() <= found.items()


def test_json_holds_all_figures(tune: Any, out: Path) -> None:
    report = json.loads(tune(out, "--json").stdout)
    assert report["asked"] == 16
    assert report["reference"] == "fp32 F32, 2 frames, kv f16"
    assert report["chosen"] in report["front"]
    assert report["preset"] == str(out / "preset.json")
    exact = next(one for one in report["configurations"] if one["quant"] == "F32")
    assert exact["questions"] == 8
    assert exact["agreement"] == pytest.approx([1.0, 0.676, 1.0], abs=1e-3)
    assert 0 < exact["first"][1] <= exact["first"][0] <= exact["first"][2]


def test_a_clip_is_looked_at_once_for_all_that_share_encoders_and_frames(
    tune: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(out, 3)
    looks: list[int] = []
    look = Session.look
    monkeypatch.setattr(Session, "look", lambda *given, **more: looks.append(1) or look(*given, **more))
    assert tune(out).exit_code == 0
    # four clips, and one more to warm up
    assert len(looks) == 5


def test_what_is_measured_is_not_measured_again(tune: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lines(out)
    cut(out, 11)
    asked: list[str] = []
    answer = Session.answer
    monkeypatch.setattr(Session, "answer", lambda *given, **more: asked.append(given[2]) or answer(*given, **more))
    result = tune(out)
    assert result.exit_code == 0, result.output
    # each session begins with an answer to warm up
    assert len(asked) == 18 - 10 + 2
    assert [preds(line) for line in lines(out)] == [preds(line) for line in before]
    assert "16 questions asked of 2 configurations, 8 of them new" in result.stderr


@pytest.mark.parametrize("failure", ["disk", "interrupt"])
def test_a_search_that_ends_midway_keeps_what_it_has(
    tune: Any, out: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    cut(out, 5)
    count = 0

    def fail(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(errno.ENOSPC, "No space left on device") if failure == "disk" else KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        result = tune(out)
    assert result.exit_code != 0
    if failure == "disk":
        said = result.stderr.splitlines()[-1]
        assert said.endswith("No space left on device); lines before are kept; run again to continue")
    else:
        assert f"interrupted; what is measured is kept in {out}, run again to continue" in result.stderr
    # the line whose acknowledgement failed may be there or not
    assert 8 <= len(lines(out)) <= 9
    assert tune(out).exit_code == 0
    assert len(lines(out)) == 1 + 2 + 16


def test_limits_that_nothing_meets_name_the_nearest(tune: Any, out: Path) -> None:
    for more, words in (
        (("--max-ttft", "1ms"), r"no configuration meets --max-ttft 0.001s; the nearest, fp32 "),
        (("--max-memory", "1MB"), r"no configuration meets --max-memory 1MB; the nearest, fp32 "),
    ):
        result = tune(out, *more)
        assert (result.exit_code, words in result.stderr.splitlines()[-1]) == (2, True), result.stderr
        assert not (out / "preset.json").exists()
        assert f"over {more[0]}" in result.stdout


def test_a_preset_goes_where_it_is_wanted(tune: Any, out: Path, tmp_path: Path) -> None:
    assert tune(out, "--preset", tmp_path / "kitchen.json", "--max-ttft", "1min").exit_code == 0
    assert json.loads((tmp_path / "kitchen.json").read_text())["preset"] == 1
    (tmp_path / "file").write_text("")
    result = tune(out, "--preset", tmp_path / "file/kitchen.json")
    assert (result.exit_code, "the preset cannot be written" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace('"threads": 1', '"threads": 2', 1),
            "is from another measurement (threads 2, not 1)",
        ),
        (
            lambda text: text.replace('"machine": "', '"machine": "other ', 1),
            'is from another measurement (machine "other',
        ),
        (lambda text: '{"header": 3}\n', "its first line is no header"),
        (lambda text: "text\n" + text, "exists and is not a file of this command"),
        (lambda text: text.replace('"memory": ', '"memory": -', 1), "line 2 is damaged (lacks or misstates 'line'"),
        (lambda text: text.replace('"digest": "', '"digest": 3, "x": "', 1), "line 2 is damaged (lacks or misstates"),
    ],
)
def test_measurements_of_something_else_are_refused(tune: Any, out: Path, change: Any, words: str) -> None:
    file = out / "measurements.jsonl"
    file.write_text(change(file.read_text()))
    result = tune(out)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert words in result.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--type", "colour"), "--type colour: unknown"),
        (("--scene", "P09_01"), "--scene P09_01: unknown"),
        (("--subset", "first:0"), "--subset first:0: asks for 0 of 8 samples"),
        (("--subset", "random:9"), "--subset random:9: asks for 9 of 8 samples"),
        (("--max-ttft", "soon"), "--max-ttft soon: expected a positive quantity"),
        (("--max-memory", "much"), "--max-memory much: expected a positive quantity"),
        (("--min-agreement", "98"), "--min-agreement 98.0: expected a share from 0 to 1"),
        (("--max-new-tokens", 0), "--max-new-tokens 0: expected at least 1"),
        (("--quant", "Q2_K"), "--quant Q2_K: "),
        (("--device", "abacus"), "--device abacus: unknown"),
    ],
)
def test_options_that_cannot_be(tune: Any, tmp_path: Path, more: tuple[object, ...], words: str) -> None:
    result = tune(tmp_path / "out", *more)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert words in result.stderr


def test_samples_that_cannot_be_used_are_skipped(tune: Any, tiny_bundle: Path, rea: Any, out: Path, stllm: Any) -> None:
    cut(out, 3)
    for frame in (3, 11, 18, 26):
        rea.frame("P01_11", frame).unlink()
    source = ("--bundle", tiny_bundle, "--rea", rea.file, "--root", rea.root, "--out", out)
    result = stllm("bench", "tune", *source, *CHOSEN, *SHORT)
    assert result.exit_code == 0, result.output
    assert "skipped P01_11-1-" in result.stderr
    assert "8 questions asked of 2 configurations" in result.stderr


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(Options(threads=1), 2) as bench:
        yield bench


def test_where_stages_do_not_fit_side_by_side_they_are_loaded_part_by_part(
    bench: Bench, tiny_bundle: Path, pristine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(plan: Any, held: int = 0) -> None:
        if plan.resident:
            raise DoesNotFit("needs 3 MB, 2 MB are free")

    monkeypatch.setattr("stllm_edge.benchmarks.tuning.bench.require_memory", refuse)
    monkeypatch.setattr("stllm_edge.runtime.session.require_memory", refuse)
    candidates = grid([tiny_bundle], Choices(("fp32",), ("Q8_0",), (1,), ("f16",)))
    samples = by_clip(pristine.open().samples)[0]
    found = list(bench.ask(dict.fromkeys(candidates, samples)))
    assert [outcome.whole >= outcome.first > 0 for _, _, outcome in found] == [True] * 2


def test_what_does_not_fit_at_all_is_unfit_and_the_next_one_looks(
    bench: Bench, tiny_bundle: Path, pristine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = grid([tiny_bundle], Choices(("fp32",), ("F32", "Q8_0"), (1,), ("f16",)))
    largest = max(Session(tiny_bundle, Options(quant=quant)).setup.plan(1, 1, 1).llm for quant in ("F32", "Q8_0"))

    def refuse(plan: Any, held: int = 0) -> None:
        if plan.llm == largest:
            raise DoesNotFit("needs 3 MB, 2 MB are free")

    monkeypatch.setattr("stllm_edge.benchmarks.tuning.bench.require_memory", refuse)
    monkeypatch.setattr("stllm_edge.runtime.session.require_memory", refuse)
    samples = by_clip(pristine.open().samples)[0]
    found = list(bench.ask(dict.fromkeys(candidates, samples)))
    assert [(candidate.options.quant, isinstance(outcome, Unfit)) for candidate, _, outcome in found] == [
        ("F32", True),
        ("Q8_0", False),
        ("Q8_0", False),
    ]


def test_a_process_that_the_kernel_ends_does_not_fit(
    bench: Bench, tiny_bundle: Path, pristine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (candidate,) = grid([tiny_bundle], Choices(("fp32",), ("Q8_0",), (1,), ("f16",)))
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(DoesNotFit, match="its process was ended by signal 9"):
        bench.memory(candidate, pristine.open().samples[0])


@pytest.mark.parametrize("available", [10**6, None])
def test_what_its_process_says_of_memory_and_of_files(
    tiny_bundle: Path, pristine: Any, monkeypatch: pytest.MonkeyPatch, available: int | None
) -> None:
    sample = asdict(pristine.open().samples[0])
    if available:
        monkeypatch.setattr("stllm_edge.runtime.memory.plan.available", lambda: available)
    else:
        sample["pointcloud"] = "nowhere.ply"
    options = asdict(Options(precision="fp32", quant="Q8_0", threads=1))
    told = peak_of({"bundle": str(tiny_bundle), "options": options, "sample": sample, "frames": 1, "max_new_tokens": 2})
    assert told["fits"] is (available is None)
    assert ("MB are free" if available else "nowhere.ply") in told["error"]


def test_a_configuration_that_can_be_asked_nothing_is_left_out(
    tune: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stllm_edge.benchmarks.tuning.records.MOST_TRIES", 1)
    # no clip has so many frames with a pose
    result = tune(out, "--frames", 9)
    assert result.exit_code == 0, result.output
    assert "fp32 F32, 9 frames, kv f16: left out: it cannot be asked " in result.stderr
    assert "does not run here: it cannot be asked" in result.stdout
    assert "16 questions asked of 2 configurations, 0 of them new" in result.stderr
