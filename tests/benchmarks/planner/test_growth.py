"""Growths, fitted and drawn."""

from xml.etree import ElementTree

import numpy as np
import pytest
from stllm_edge.benchmarks.planner.growth import draw, fit

X = [2.0, 4.0, 8.0, 16.0, 32.0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("floor", [0.0, 20.0])
def test_floor_and_exponent_are_found_again(exponent: float, floor: float) -> None:
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(len(X))
    found = fit(X, [(floor + 3 * x**exponent) * each for x, each in zip(X, noise, strict=True)])
    assert found.exponent == pytest.approx(exponent, abs=0.15)
    assert found.floor == pytest.approx(floor, abs=3)
    assert found.fit > 0.99


def test_what_does_not_grow_has_no_exponent() -> None:
    found = fit(X, [100, 103, 99, 101, 104])
    assert (found.exponent, found.floor) == (0.0, pytest.approx(101.4))


def test_two_points_make_a_straight_line() -> None:
    assert fit([1, 10], [5, 500]).exponent == pytest.approx(2)
    with pytest.raises(ValueError, match="two points or more"):
        fit([3, 3], [1, 2])


def test_the_plot_is_an_svg_with_a_named_line_a_stage() -> None:
    lines = {"vision": [1.0, 2, 4, 8, 16], "a < b": [5.0, 5, 5, 6, 7]}
    root = ElementTree.fromstring(draw({"frames": (X, lines), "voxels": (X, lines)}, "small & trained"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("vision") == texts.count("a < b") == 2
    assert "small & trained" in texts
    drawn = [element.get("points", "") for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(drawn) == 4
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for points in drawn:
        places = [tuple(map(float, pair.split(","))) for pair in points.split()]
        assert len(places) == len(X)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
