"""Who covers whom, and the front."""

from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.tuning.front import Column, covers, front, kernel, median_interval

N = 200


def column(*, seconds: float = 1.0, memory: int = 1000, right: int = N, same: int = N, noise: float = 0.0) -> Column:
    generator = np.random.default_rng(int(seconds * 1000) + memory)
    times = seconds * np.exp(generator.normal(0, noise, N)) if noise else np.full(N, seconds)
    flags = [np.arange(N) < count for count in (right, same)]
    return Column(memory, times, 2 * times, *flags)


PLAIN = column()


@pytest.mark.parametrize(
    ("changed", "covered"),
    [
        ({}, False),
        ({"seconds": 0.97}, False),
        ({"seconds": 0.94}, True),
        ({"memory": 960}, False),
        ({"memory": 940}, True),
        ({"memory": 940, "right": N - 2}, True),
        ({"memory": 940, "right": N - 3}, False),
        ({"memory": 940, "same": N - 2}, True),
        ({"memory": 940, "same": N - 3}, False),
        ({"memory": 940, "seconds": 1.04}, True),
        ({"memory": 940, "seconds": 1.06}, False),
        ({"memory": 1060, "seconds": 0.5}, False),
    ],
)
def test_the_less_exact_covers_by_a_difference_that_counts_and_loses_none(
    changed: dict[str, Any], covered: bool
) -> None:
    assert covers(column(**changed), PLAIN, more_exact=False) is covered


def test_of_equal_ones_the_more_exact_covers() -> None:
    assert covers(PLAIN, column(seconds=0.97, memory=960), more_exact=True)
    assert not covers(PLAIN, column(seconds=0.9), more_exact=True)


def test_more_right_answers_count_on_their_own() -> None:
    assert covers(column(right=N, same=150), column(right=150, same=150), more_exact=False)


def test_before_the_end_being_no_slower_has_to_be_shown() -> None:
    noisy = column(seconds=1.04, memory=900, noise=0.2)
    assert covers(noisy, PLAIN, more_exact=False)
    assert not covers(noisy, PLAIN, more_exact=False, sure=True)
    assert covers(column(memory=900, noise=0.02), PLAIN, more_exact=False, sure=True)


def test_the_front_says_who_covers_whom() -> None:
    columns = [
        ("exact", PLAIN),
        ("same as exact", column(seconds=1.01)),
        ("quick", column(seconds=0.5, right=150, same=140)),
        ("bad", column(seconds=0.6, right=140, same=130)),
    ]
    assert front(columns) == {"exact": "exact", "same as exact": "exact", "quick": "quick", "bad": "quick"}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_on_the_front_is_covered_and_everybody_else_is_covered_from_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # without circles: only lower places cover higher ones, in an order of their own
    order = generator.permutation(9)
    relation = np.triu(generator.random((9, 9)) < 0.3, 1)[order][:, order]
    found = kernel(9, lambda ours, other: bool(relation[ours, other]))
    chosen = {place for place, by in found.items() if place == by}
    assert found.keys() == set(range(9))
    assert not any(relation[ours, other] for ours in chosen for other in chosen)
    assert all(by in chosen and relation[by, place] for place, by in found.items() if place not in chosen)


def test_three_that_cover_each_other_in_a_circle_leave_the_most_exact() -> None:
    assert kernel(3, lambda ours, other: (ours + 1) % 3 == other) == {0: 0, 1: 0, 2: 2}


def test_an_interval_holds_the_median_of_what_is_drawn_most_times() -> None:
    generator = np.random.default_rng(1)
    intervals = [median_interval(generator.normal(3, 1, 40)) for _ in range(200)]
    assert 0.88 < np.mean([one.low <= 3 <= one.high for one in intervals]) < 0.99
    assert all(one.low <= one.value <= one.high for one in intervals)
