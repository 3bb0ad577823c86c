"""Where marks stand: bars follow each other, curves keep their look, axes hold what they show."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.reports import charts
from stllm_edge.benchmarks.reports.compare import compare
from stllm_edge.benchmarks.reports.runs import Run


@pytest.fixture(scope="module")
def run(run_recipe: Any, run_of: Callable[..., Run]) -> Run:
    return run_of(run_recipe(questions=5, repetitions=3))


def test_stages_of_a_question_follow_each_other_and_fill_the_width(run: Run) -> None:
    part = run.part("warm")
    chart = charts.waterfall(part)
    end = 0.0
    for bar in chart.bars:
        ((_, start, length, _),) = bar.pieces
        assert start == pytest.approx(end)
        end = start + length
    assert end == pytest.approx(100)
    assert [bar.name for bar in chart.bars][-1] == "other"
    totals = [np.median([a.seconds["total"] for a in part.answers if a.sample == f"P01-{n:03d}"]) for n in range(5)]
    assert chart.note.startswith(f"question P01-{int(np.argsort(totals)[2]):03d}, ")
    assert 80 < chart.first.at < 100


def test_dots_of_a_stage_stand_about_its_median(run: Run) -> None:
    chart = charts.strips(run.part("warm"), 100)
    for row in chart.rows:
        places = [float(at) for at in re.findall(r"M(\d+) ", row.dots)]
        assert len(places) == 15
        assert np.median(places) == pytest.approx(500, abs=1)
        assert 0 <= min(places) < max(places) <= 1000
        assert 0 <= row.box[0] <= 50 <= row.box[0] + row.box[1] <= 100
    assert len(re.findall("M", charts.strips(run.part("warm"), 4).rows[0].dots)) == 4


def test_memory_of_a_stage_is_the_most_it_held(run: Run) -> None:
    bars = {bar.name: bar for bar in charts.memory_of_stages(run.part("warm"))}
    assert "total" not in bars
    assert bars["video"].label == "5.40 GB"
    assert [kind for kind, *_ in bars["video"].pieces] == ["anonymous", "file"]
    assert sum(length for _, _, length, _ in bars["other"].pieces) == pytest.approx(100)


def test_runs_stand_on_one_scale(run: Run, run_recipe: Any, run_of: Callable[..., Run]) -> None:
    slow = run_of(run_recipe(questions=5, repetitions=3, run="b", slower=dict.fromkeys(["prefill", "vision"], 3.0)))
    short, long = charts.stacks([run, slow], "warm")
    length = [sum(piece[2] for piece in bar.pieces) for bar in (short, long)]
    assert length[1] == pytest.approx(100)
    assert 35 < length[0] < 55


def sensed(values: list[float | None], unit: str = "celsius") -> list[dict[str, Any]]:
    return [{"sensor": "s", "unit": unit, "seconds": float(at), "value": value} for at, value in enumerate(values)]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_curve_of_many_readings_keeps_its_peak() -> None:
    values: list[float | None] = [50.0] * 5000
    values[3333] = 90.0
    plot = charts.plot(sensed(values), "celsius")
    drawn = points(plot.curves[0].path)
    assert len(drawn) <= 240
    assert min(drawn, key=lambda point: point[1])[0] == pytest.approx(667, abs=1)
    assert plot.curves[0].label == "50 to 90 °C"
    assert all(0 <= y <= plot.height for _, y in drawn)


def test_a_sensor_that_vanishes_leaves_a_gap_and_none_no_picture() -> None:
    plot = charts.plot(sensed([40.0, 41.0, None, None, 42.0, None]), "celsius")
    assert plot.curves[0].path.count("M") == 2
    assert plot.curves[0].label == "40 to 42 °C, vanished"
    assert charts.plot(sensed([None, None]), "celsius") is None
    assert charts.plot([], "hertz") is None


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-3.0, 4.0], [1e9, 1.1e9]])
def test_axes_hold_what_they_show(values: list[float]) -> None:
    for unit in ("celsius", "byte", "hertz", "watt"):
        plot = charts.plot(sensed([value if unit == "celsius" else abs(value) for value in values], unit), unit)
        assert all(0 <= y <= plot.height for _, y in points(plot.curves[0].path))
        assert all(-1e-6 <= tick.at <= 100 for tick in plot.y)
        assert 1 <= len(plot.y) <= 6


def test_ratios_stand_on_both_sides_of_the_same(run: Run, run_recipe: Any, run_of: Callable[..., Run]) -> None:
    other = run_of(run_recipe(questions=5, repetitions=3, run="b", slower={"vision": 1.5, "prefill": 0.6}))
    forest = charts.forest(compare(run, other))
    rows = {name: row for name, *row in forest.rows}
    assert rows["warm vision"][1] == "slower"
    assert rows["warm vision"][2] > forest.one > rows["warm prefill"][2] + rows["warm prefill"][3]
    assert all(0 <= start <= start + length <= 100.001 for _, _, start, length, _ in rows.values())
    assert forest.band[0] < 50 < sum(forest.band)
    few = run_of(run_recipe(questions=2, repetitions=1))
    assert charts.forest(compare(few, few)) is None
