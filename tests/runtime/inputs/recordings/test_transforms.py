"""Poses between samples, and chains of frames."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.recordings.transforms import NANO, Track, Transforms


def turned(degrees: float, x: float = 0.0) -> list[float]:
    half = np.deg2rad(degrees) / 2
    return [x, 0, 0, 0, 0, np.sin(half), np.cos(half)]


def track(samples: dict[float, list[float]], *, static: bool = False) -> Track:
    times = np.array([round(time * NANO) for time in samples], np.int64)
    return Track.of(times, np.array(list(samples.values())), static=static)[0]


def at(found: Track, *times: float) -> tuple[np.ndarray, np.ndarray]:
    return found.at(np.array([round(time * NANO) for time in times], np.int64))


def angle(pose: np.ndarray) -> float:
    return float(np.rad2deg(np.arctan2(pose[1, 0], pose[0, 0])))


@pytest.mark.parametrize(("degrees", "third"), [(90, 30), (179, 179 / 3), (-90, -30), (270, -30), (0.001, 0.001 / 3)])
def test_turns_are_even_and_the_shortest(degrees: float, third: float) -> None:
    poses, known = at(track({0: turned(0), 0.3: turned(degrees, 0.9)}), 0, 0.1, 0.3)
    assert known.all()
    assert angle(poses[1]) == pytest.approx(third, abs=1e-9)
    assert poses[:, 0, 3] == pytest.approx([0, 0.3, 0.9])


def test_ends_hold_for_the_tolerance_only() -> None:
    _, known = at(track({1: turned(0), 1.1: turned(9)}), 0.979, 0.981, 1.119, 1.121)
    assert known.tolist() == [False, True, True, False]


def test_a_gap_is_crossed_only_where_nothing_moved() -> None:
    _, known = at(track({0: turned(0), 0.51: turned(9), 9: turned(9), 9.5: turned(99)}), 0.2, 5, 9.2)
    assert known.tolist() == [False, True, True]


def test_a_single_sample_holds_at_its_time_a_static_one_always() -> None:
    one = {5.0: turned(20, 1)}
    assert at(track(one), 4, 5, 6)[1].tolist() == [False, True, False]
    poses, known = at(track(one, static=True), 0, 99)
    assert known.all()
    assert poses[1, 0, 3] == 1


def test_what_is_no_rotation_is_left_out_and_of_one_time_the_last_counts() -> None:
    rows = np.array([turned(0), [0, 0, 0, 0, 0, 0, 0], [np.nan, 0, 0, 0, 0, 0, 1], turned(0, 7), turned(5)])
    found, bad = Track.of(np.array([0, 10, 20, 0, 40], np.int64), rows)
    assert (bad, found.times.tolist(), found.places[0, 0]) == (2, [0, 40], 7)


CHAIN = Transforms(
    {
        ("map", "odom"): track({0: turned(90), 1: turned(90)}),
        ("odom", "base"): track({0: turned(0, 1), 1: turned(0, 1)}),
        ("base", "eye"): track({0: turned(0, 2)}, static=True),
        ("base", "lidar"): track({0: turned(0, 5)}, static=True),
        ("earth", "map"): track({0: turned(0)}, static=True),
    },
    "bag x",
)


def test_chains_go_up_and_down() -> None:
    times = np.array([NANO // 2], np.int64)
    poses, known = CHAIN.at("eye", "map", times)
    assert known.all()
    assert poses[0, :3, 3] == pytest.approx([0, 3, 0], abs=1e-9)
    poses, _ = CHAIN.at("lidar", "eye", times)
    assert poses[0, :3, 3] == pytest.approx([3, 0, 0], abs=1e-9)
    assert CHAIN.ancestors("eye") == ["eye", "base", "odom", "map", "earth"]
    assert not CHAIN.moves("lidar", "eye")
    assert CHAIN.span("eye", "earth") == (0, NANO)


def test_frames_that_nothing_connects_are_refused() -> None:
    with pytest.raises(BadInput, match="no transform connects eye with world; its frames are base, earth, eye"):
        CHAIN.path("eye", "world")


def test_frames_in_a_circle_end() -> None:
    circle = Transforms({("a", "b"): track({0: turned(0)}), ("b", "a"): track({0: turned(0)})}, "bag x")
    assert circle.ancestors("a") == ["a", "b"]
