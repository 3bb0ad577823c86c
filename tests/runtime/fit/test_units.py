"""Whether coordinates are metres."""

import numpy as np
import pytest
from stllm_edge.runtime.fit.units import Measures, oddity


def measures(
    extent: float, view: float, speed: float | None = None, inside: bool = True, height: float = 1.5
) -> Measures:
    return Measures(np.zeros(3), np.array([extent, extent * 0.8, extent * 0.4]), view, height, speed, inside)


@pytest.mark.parametrize(
    ("extent", "view", "speed"),
    [(6, 2, 1), (1.4, 0.5, 0.2), (40, 6, 1.5), (55, 20, 2), (120, 9, 8), (0.8, 0.6, None)],
    ids=["room", "closet", "house", "hall", "street", "table"],
)
def test_usual_sizes_are_left_alone(extent: float, view: float, speed: float | None) -> None:
    assert oddity(measures(extent, view, speed, inside=extent > 1), 0.06) is None


@pytest.mark.parametrize(("unit", "factor"), [("millimetres", 0.001), ("centimetres", 0.01)])
@pytest.mark.parametrize("extent", [3, 6, 12])
def test_other_units_are_named(unit: str, factor: float, extent: float) -> None:
    found = oddity(measures(extent / factor, 2 / factor), 0.06)
    assert found is not None
    assert (found.certain, found.factor) == (True, factor)
    assert unit in found.reason


def test_inches_are_near_to_centimetres_and_a_person_says_which() -> None:
    found = oddity(measures(6 / 0.0254, 2 / 0.0254), 0.06)
    assert found is not None
    assert (found.certain, found.factor) == (True, None)
    assert "look like inches (0.0254) or centimetres (0.01)" in found.reason


@pytest.mark.parametrize(
    ("extent", "view", "speed", "words"),
    [(80, 25, 1, "large"), (80, 5, 14, "14 a second"), (0.6, 0.3, None, "small"), (0.3, 0.3, None, "small")],
)
def test_arbitrary_units_are_likely(extent: float, view: float, speed: float | None, words: str) -> None:
    found = oddity(measures(extent, view, speed), 0.02)
    assert found is not None
    assert (found.certain, found.factor) == (False, None)
    assert words in found.reason


@pytest.mark.parametrize(
    ("height", "view", "large"), [(7.5, 10, True), (4.5, 6, True), (4.5, 3, False), (1.6, 9, False)]
)
def test_a_camera_high_above_the_floor_is_likely_of_other_units(height: float, view: float, large: bool) -> None:
    found = oddity(measures(30, view, height=height), 0.06)
    assert (found is not None) == large


def test_a_scene_of_a_few_voxels_is_small() -> None:
    assert oddity(measures(1.4, 0.5), 0.06) is None
    assert oddity(measures(1.4, 0.5), 0.2) is not None


def test_speed_and_view_come_from_the_camera() -> None:
    points = np.random.default_rng(0).uniform(0, 4, (500, 3))
    poses = np.stack([np.eye(4)] * 3)
    poses[:, 0, 3] = [1, 2, 4]
    found = Measures.of(points, poses, np.nan, [0.0, 1.0, 2.0])
    assert found.speed == pytest.approx(1.5)
    assert found.height == pytest.approx(4, abs=0.2)
    assert 1 < found.view < 4
    assert Measures.of(points, poses, 2.0, None).speed is None
