"""Questions of different sizes, as data, plot and growths."""

import json
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.planner.growth import Growth
from stllm_edge.benchmarks.planner.show import growths_text
from stllm_edge.benchmarks.planner.sweep import exponents, parse_axis, series
from stllm_edge.runtime.errors import BadInput


def test_data_plot_and_growths_of_two_axes(stllm: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "sweep.jsonl", tmp_path / "sweep.svg"
    options = ["--quant", "F32", "--voxels", 2000, "--frames", 2, "--repeat", 1, "--new-tokens", 4]
    vary = ["--vary", "frames=2,8", "--vary", "questions=1,2"]
    command = ["bench", "sweep", "--bundle", tiny_bundle, "--out", out, "--plot", plot, *vary, *options]
    printed = stllm(*command, "--json")
    assert printed.exit_code == 0, printed.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    stages = {row["stage"] for row in rows}
    assert stages >= {"voxels", "maps", "rays", "video", "vision", "points", "aligner", "prefill", "decode"}
    assert len(rows) == 4 * len(stages)
    assert all(row["ms"] == min(row["samples_ms"]) for row in rows)
    assert all(row["peak_mb"] > 1 for row in rows if row["stage"] in ("vision", "points", "aligner", "prefill"))
    growths = json.loads(printed.stdout)
    assert set(growths) == {"frames", "questions"}
    # how large it is depends on what else the machine does; fits are tested below on figures that are given
    assert isinstance(growths["frames"]["ms"]["video"]["exponent"], float)
    assert plot.read_text().startswith("<svg")
    again = stllm(*command)
    assert again.exit_code == 2
    assert f"--out {out}: exists; name another file, or remove it" in again.stderr
    assert len(out.read_text().splitlines()) == len(rows)


def test_context_counts_in_positions() -> None:
    rows = [
        {"axis": "context", "value": value, "positions": 100 + value, "stage": "prefill", "ms": (100 + value) * 2.0}
        for value in (1, 100, 400, 900)
    ]
    rows = [{**row, "peak_mb": 50.0} for row in rows]
    x, lines = series(rows, "context", "ms")
    assert x == [101, 200, 500, 1000]
    assert lines == {"prefill": [202.0, 400.0, 1000.0, 2000.0]}
    assert exponents(rows)["context"]["ms"]["prefill"].exponent == pytest.approx(1.0, abs=0.1)
    assert exponents(rows)["context"]["peak_mb"]["prefill"].exponent == 0.0


def test_an_axis_has_values_of_its_own_or_those_given() -> None:
    assert parse_axis("frames") == ("frames", (2, 4, 8, 16, 32))
    assert parse_axis("voxels=9000,3000") == ("voxels", (3000, 9000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colours=1,2", "expected one of frames, voxels, context, questions, such as frames=2,4,8"),
        ("frames=2,x", "expected whole numbers after =, such as frames=2,4,8"),
        ("frames=2", "a growth needs two values or more"),
        ("frames=0,2", "--vary frames 0: expected at least 1"),
    ],
)
def test_other_axes_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_axis(text)


def test_a_question_that_fails_says_why(stllm: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    command = ["bench", "sweep", "--bundle", tiny_bundle, "--out", tmp_path / "out", "--quant", "Q5_0"]
    refused = stllm(*command, "--vary", "frames=1,2")
    assert refused.exit_code == 2
    assert "Q5_0" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_noise_has_no_exponent_in_the_table() -> None:
    grown = {"points": Growth(1.0, 5.7, 0.001, 0.999), "maps": Growth(0.0, 12.2, 0.0, 1.0)}
    found = {"frames": {"ms": {**grown, "load_vision": Growth(3.0, 7.2, 1e-4, -0.1)}}}
    words = {line.split()[1]: line.split()[3] for line in growths_text(found).splitlines()[1:]}
    assert words == {"points": "1.00", "maps": "none", "load_vision": "unclear"}
