"""What fits, the best of it, and what would make it fit; as the command prints it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.planner.devices import find_device, names
from stllm_edge.benchmarks.planner.plan import Outlook, outlook, parse_size, remedies
from stllm_edge.benchmarks.planner.subject import Subject, of_bundle, of_checkpoint
from stllm_edge.benchmarks.planner.work import Question
from stllm_edge.runtime.errors import BadInput

QUESTION = Question(frames=8, voxels=10_000, new_tokens=32)


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path) -> Subject:
    return of_bundle(tiny_bundle)


def with_room(subject: Subject, room: int, also: int = 0) -> Outlook:
    """On a device that has so much for a question."""
    device = find_device("orin-nano-8gb@15W")
    return outlook(replace(device, visible=int(device.idle.high) + room + also), subject, QUESTION, also)


def test_every_precision_and_quantisation_has_a_row(subject: Subject) -> None:
    rows = with_room(subject, 10**10).rows
    found = [(row.choice.quant, row.choice.precision) for row in rows]
    assert found == [(quant, precision) for quant in ("F32", "Q8_0", "Q4_K_M") for precision in ("fp32", "fp16")]


def test_encoders_of_integers_are_planned_after_those_that_are_more_exact(
    int8_bundle: Path, tiny_checkpoint: Path
) -> None:
    held = with_room(of_bundle(int8_bundle), 10**10).rows
    assert list(dict.fromkeys(row.choice.precision for row in held))[:3] == ["fp32", "fp16", "int8"]
    planned = of_checkpoint(tiny_checkpoint).encoders
    assert list(planned) == ["fp32", "fp16", "int8"]
    assert planned["int8"]["vision"] < 0.28 * planned["fp32"]["vision"]
    assert planned["int8"]["points"] == planned["fp32"]["points"]


def test_best_is_the_most_exact_that_fits(subject: Subject) -> None:
    rows = with_room(subject, 10**10).rows
    peaks = {row.choice.quant: row.peak for row in rows if row.choice.precision == "fp16"}
    best = with_room(subject, 10**10).best
    assert best is not None
    assert best.choice.quant == "F32"
    assert best.choice.precision == "fp16"  # faster on a GPU
    assert with_room(subject, min(peaks.values()) - 1).best is None


def test_memory_of_other_programs_is_not_for_a_question(subject: Subject) -> None:
    assert with_room(subject, 10**9, also=10**8).room == 10**9


def test_what_would_make_it_fit_does(subject: Subject) -> None:
    tight = with_room(subject, min(row.peak for row in with_room(subject, 10**10).rows) - 10**5)
    assert tight.best is None
    (remedy,) = remedies(tight, subject)
    assert "--frames 4" in remedy
    nowhere = list(remedies(with_room(subject, 10**6), subject))
    assert nowhere == [found for found in nowhere if "more memory" in found]
    shared = list(remedies(with_room(subject, 10**6, also=10**9), subject))
    assert any("--also" in found for found in shared)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1.5GB", 1_500_000_000), ("800 MB", 800_000_000), ("1GiB", 2**30), ("7b", 7)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size("--also", text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1.5 TB", "1,5GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"--also .*: expected a size such as 1\.5GB or 800MB"):
        parse_size("--also", text)


def test_the_command_prints_a_table_a_device(stllm: Any, tiny_bundle: Path) -> None:
    printed = stllm("bench", "plan", "--bundle", tiny_bundle, "--device", "agx-thor", "--device", "orin-nx-16gb@40W")
    assert printed.exit_code == 0, printed.output
    for words in ("agx-thor@MAXN", "orin-nx-16gb@40W", "prediction, not a measurement", "best that fits: fp16", "NX"):
        assert words in printed.stdout


def test_the_command_prints_json_for_all_devices(stllm: Any, tiny_checkpoint: Path) -> None:
    printed = stllm("bench", "plan", "--ckpt", tiny_checkpoint, "--json", "--frames", 4, "--also", "1GB")
    found = json.loads(printed.stdout)
    assert [device["device"] for device in found] == names()
    for device in found:
        assert device["kind"] == "prediction"
        assert device["room_bytes"] == device["visible_bytes"] - device["idle_bytes"][1] - 10**9
        assert device["sources"]
        assert all(row["fits"] == (row["peak_bytes"] <= device["room_bytes"]) for row in device["rows"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --bundle or --ckpt, one of them"),
        (["--bundle", "B", "--ckpt", "C"], "give --bundle or --ckpt, one of them"),
        (["--bundle", "B", "--device", "orin"], "no such board; there are orin-nano-8gb"),
        (["--bundle", "B", "--device", "agx-thor@40W"], "agx-thor has no mode 40W; its modes are MAXN"),
        (["--bundle", "B", "--also", "much"], "--also much: expected a size"),
        (["--bundle", "B", "--frames", "0"], "--frames 0: expected at least 1"),
        (["--bundle", "B", "--voxels", "0"], "--voxels 0: expected at least 1"),
        (["--bundle", "B", "--new-tokens", "0"], "--new-tokens 0: expected at least 1"),
    ],
)
def test_bad_input_is_one_line(stllm: Any, tiny_bundle: Path, options: list[str], message: str) -> None:
    arguments = [str(tiny_bundle) if word in ("B", "C") else word for word in options]
    refused = stllm("bench", "plan", *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
