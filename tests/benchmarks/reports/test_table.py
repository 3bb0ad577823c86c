"""Tables of runs: what is in a line, what is a dash, and the same as JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.reports.runs import Run
from stllm_edge.benchmarks.reports.table import duration, number, show, size

Writer = Callable[..., Path]
SMALL = {"questions": 4, "repetitions": 2, "phases": ("cold", "warm")}


def lines_of(text: str) -> list[dict[str, str]]:
    """A Markdown table, read."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_many_devices_are_one_table(tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any) -> None:
    other = {"device": "NVIDIA Jetson AGX Orin", "power_mode": "MAXN", "verified": False, "parity": "absent"}
    first = write_run(tmp_path / "a.jsonl", run_recipe(**SMALL))
    second = write_run(tmp_path / "b.jsonl", run_recipe(**SMALL, run="b", about=other, end=None))
    result = stllm("bench", "show", first, second)
    assert result.exit_code == 0
    lines = lines_of(result.stdout)
    assert [line["device"][14:] for line in lines] == ["Orin Nano Developer Kit"] * 2 + ["AGX Orin"] * 2
    assert [line["phase"] for line in lines] == ["cold", "warm"] * 2
    assert lines[0]["n"] == "4 × 2"
    assert lines[0]["prompt"] == "6846–6849"
    assert lines[0]["bundle"] == "small"
    assert lines[2]["bundle"] == "small (unverified)"
    assert "b.jsonl, small: the run is not complete; 16 answers count" in result.stdout
    # tables of stages follow only where they are asked for
    assert "| stage" not in result.stdout
    assert stllm("bench", "show", first, second, "--stages").stdout.count("| stage") == 4
    assert stllm("bench", "show", first).stdout.count("| stage") == 2
    assert "| stage" not in stllm("bench", "show", first, "--no-stages").stdout


def test_approximate_reuse_is_marked_everywhere(tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any) -> None:
    exact = write_run(tmp_path / "a.jsonl", run_recipe(**SMALL))
    other = write_run(tmp_path / "b.jsonl", run_recipe(**SMALL, run="b", about={"recompute": 0.15}))
    words = "keep the video's keys and values but for 15% (--reuse-video)"
    shown = stllm("bench", "show", exact, other)
    assert [line["bundle"] for line in lines_of(shown.stdout)][1:3] == ["small", "small (approximate)"]
    assert f"b.jsonl, small: approximate: further questions {words}" in shown.stdout
    page = tmp_path / "page.html"
    assert stllm("bench", "show", exact, other, "--html", page).exit_code == 0
    text = page.read_text()
    assert "approximate: further questions keep" in text
    assert text.count('<span class="badge cannot-tell">approximate</span>') == 1


def test_figures_are_those_of_the_answers(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    run = run_of(run_recipe(**SMALL))
    warm = [answer for answer in run.answers if answer.phase == "warm"]
    line = lines_of(show([run], stages=False))[1]
    firsts = [answer.seconds["first_token"] for answer in warm]
    assert line["first token s"] == f"{number(float(np.median(firsts)))} ± {number(float(np.std(firsts, ddof=1)))}"
    between = float(np.median(np.concatenate([answer.intervals for answer in warm])))
    value, low, high = map(float, re.findall(r"[\d.]+", line["ms/token"]))
    assert value == pytest.approx(1e3 * between, abs=0.05)
    assert low <= value <= high
    assert float(line["tokens/s"]) == pytest.approx(1 / between, rel=0.01)
    assert line["J"] == "96.5"


def test_stages_have_dashes_where_samples_are_too_few(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    many = run_recipe(questions=13, repetitions=10, phases=("warm",))
    table = show([run_of(many)]).split("\n\n")[-1]
    vision = next(line for line in lines_of(table) if line["stage"] == "vision")
    assert (vision["n"], vision["p99"]) == ("130", "–")
    assert float(vision["median ms"]) < float(vision["p90"]) < float(vision["p95"]) <= float(vision["max"])
    few = show([run_of(run_recipe(**SMALL))]).split("\n\n")[-1]
    assert {line["p90"] for line in lines_of(few)} == {"–"}


def test_a_line_for_each_length(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    run = run_of(run_recipe(**{**SMALL, "phases": ("warm",)}, prompt=lambda question: 1000 * (1 + question % 2)))
    lines = lines_of(show([run], stages=False))
    assert [line["prompt"] for line in lines] == ["1000", "2000"]
    assert [line["n"] for line in lines] == ["2 × 2", "2 × 2"]


def test_columns_that_nobody_has_are_left_out(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    about = {"power_mode": None}
    assert "power mode" not in show([run_of(run_recipe(**SMALL, about=about))])
    both = show([run_of(run_recipe(**SMALL, about=about)), run_of(run_recipe(**SMALL))])
    assert [line["power mode"] for line in lines_of(both)] == ["–", "–", "MAXN_SUPER", "MAXN_SUPER"]


def test_texts_of_a_file_neither_break_the_table_nor_reach_the_terminal(
    run_recipe: Any, run_of: Callable[..., Run]
) -> None:
    about = {"device": "a | b\n\x1b[31mred", "bundle_path": "x/\u202ey"}
    shown = show([run_of(run_recipe(**SMALL, about=about))], stages=False)
    assert lines_of(shown)[0]["device"] == r"a \| b  [31mred"
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_the_same_as_json(tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any) -> None:
    path = write_run(tmp_path / "a.jsonl", run_recipe(**SMALL))
    result = stllm("bench", "show", path, "--json")
    (run,) = json.loads(result.stdout)["runs"]
    assert (run["device"], run["complete"], run["file"]) == (run["device"], True, str(path))
    cold, warm = run["parts"]
    assert cold["stages"]["vision"]["count"] == 8
    assert cold["stages"]["vision"]["p90"] is None
    assert warm["between_tokens"]["low"] <= warm["between_tokens"]["value"] <= warm["between_tokens"]["high"]
    assert warm["prompt_tokens"] == [6846, 6849]


@pytest.mark.parametrize(
    ("seconds", "said"), [(1234.5, "1234 s"), (12.34, "12.3 s"), (1.0, "1.00 s"), (0.0123, "12.3 ms"), (2e-5, "20 µs")]
)
def test_times_are_said_in_three_digits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_sizes_are_said_in_three_digits() -> None:
    assert (size(4.4e9), size(12_345_678)) == ("4.40 GB", "12 MB")
