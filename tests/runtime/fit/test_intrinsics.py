"""Intrinsics against the size of frames."""

import numpy as np
import pytest
from stllm_edge.runtime.fit.intrinsics import misfit, of_frames


def matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


@pytest.mark.parametrize(
    ("intrinsics", "size"),
    [
        (matrix(525, 525, 319.5, 239.5), (640, 480)),
        (matrix(310.7, 309.2, 229.6, 126.8), (456, 256)),
        (matrix(150.5, 151.5, 60.2, 80.4), (120, 160)),
        (matrix(458.654, 457.296, 367.215, 248.375), (752, 480)),
        (matrix(1450, 1450, 960, 720), (1920, 1440)),
        (matrix(300, 300, 330, 215), (640, 480)),
    ],
    ids=["TUM", "wide", "tall", "EuRoC", "phone", "off by a little"],
)
def test_usual_intrinsics_are_left_alone(intrinsics: np.ndarray, size: tuple[int, int]) -> None:
    assert misfit(intrinsics, size) is None


def test_a_centre_of_zero_is_no_share_of_a_frame() -> None:
    found = misfit(matrix(1.2, 1.6, 0, 0), (640, 480))
    assert found is not None
    assert found.certain
    assert found.alone
    assert found.size is None
    assert "counts from the middle" in found.reason


@pytest.mark.parametrize(
    ("intrinsics", "expected"),
    [
        (matrix(1050, 1050, 639, 479), (1280, 960)),
        (matrix(262, 262, 160, 120), (320, 240)),
        (matrix(1400, 1400, 960, 540), (1920, 1080)),
        (matrix(0.82, 1.09, 0.5, 0.5), (1, 1)),
    ],
    ids=["double", "half", "another shape", "shares"],
)
def test_the_size_that_they_belong_to_is_named(intrinsics: np.ndarray, expected: tuple[int, int]) -> None:
    found = misfit(intrinsics, (640, 480))
    assert found is not None
    assert found.certain
    assert found.size == pytest.approx(expected, abs=3)
    assert misfit(of_frames(intrinsics, found.size, (640, 480)), (640, 480)) is None


def test_turned_frames_are_told() -> None:
    found = misfit(matrix(525, 525, 240, 320), (640, 480))
    assert found is not None
    assert "turned by 90 degrees" in found.reason
    assert found.size is None


@pytest.mark.parametrize("focal", [5000, 60])
def test_odd_fields_of_view_are_likely_wrong(focal: float) -> None:
    found = misfit(matrix(focal, focal, 320, 240), (640, 480))
    assert found is not None
    assert not found.certain
    assert "field of view" in found.reason


def test_a_centre_outside_of_any_frame() -> None:
    found = misfit(matrix(500, 500, -300, 240), (640, 480))
    assert found is not None
    assert "outside of frames" in found.reason
