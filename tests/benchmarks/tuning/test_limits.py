"""Limits: how they are written, who meets them, who is chosen and who is nearest."""

import numpy as np
import pytest
from stllm_edge.benchmarks.tuning.front import Column
from stllm_edge.benchmarks.tuning.limits import Limits, parse_bytes, parse_seconds
from stllm_edge.runtime import BadInput


def column(seconds: float, memory: int, same: int, spread: float = 0.0) -> Column:
    times = seconds + spread * np.linspace(-1, 1, 100)
    flags = np.arange(100) < same
    return Column(memory, times, times, flags, flags)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), (" 1.5 S ", 1.5), ("2", 2.0), ("1min", 60.0), (".5s", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds("--max-ttft", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 10**9), ("512MiB", 2**29), ("1.5 gb", 15 * 10**8), ("4096", 4096), ("1KiB", 1024)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes("--max-memory", text) == count


@pytest.mark.parametrize("text", ["soon", "", "5 parsec", "-1s", "0", "1e9s", "1,5s", "9" * 400])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(BadInput, match="expected a positive quantity such as 5s or 500ms"):
        parse_seconds("--max-ttft", text)
    with pytest.raises(BadInput, match="expected a positive quantity such as 6GB or 512MiB"):
        parse_bytes("--max-memory", text)


def test_no_text_is_no_limit() -> None:
    assert parse_seconds("--max-ttft", None) is parse_bytes("--max-memory", None) is None
    assert Limits().excess(column(9.0, 10**12, 0)) == {}
    assert Limits().surely_missed(column(9.0, 10**12, 0)) is None


@pytest.mark.parametrize("agreement", [-0.1, 1.1, float("nan")])
def test_an_agreement_that_is_no_share(agreement: float) -> None:
    with pytest.raises(BadInput, match="expected a share from 0 to 1"):
        Limits(agreement=agreement).check()


def test_each_limit_is_missed_by_its_own_share() -> None:
    limits = Limits(first=2.0, memory=1000, agreement=0.8)
    assert limits.excess(column(3.0, 1100, 60)) == pytest.approx(
        {"--max-ttft": 0.5, "--max-memory": 0.1, "--min-agreement": 0.25}
    )
    assert limits.excess(column(2.0, 1000, 80)) == {}


def test_a_limit_is_surely_missed_where_the_whole_interval_is_beyond() -> None:
    limits = Limits(first=2.0, agreement=0.8)
    assert limits.surely_missed(column(2.2, 1, 100, spread=0.1)) == "--max-ttft"
    assert limits.surely_missed(column(2.2, 1, 100, spread=2.0)) is None
    assert limits.surely_missed(column(1.0, 1, 75)) is None
    assert limits.surely_missed(column(1.0, 1, 60)) == "--min-agreement"
    assert Limits(memory=9).surely_missed(column(1.0, 10, 100)) == "--max-memory"


def test_the_quickest_is_chosen_under_a_least_agreement_else_the_one_that_agrees_most() -> None:
    columns = [("slow", column(2.0, 1, 100)), ("quick", column(1.0, 1, 90)), ("as good", column(1.5, 1, 100))]
    assert Limits(agreement=0.8).choose(columns) == "quick"
    assert Limits().choose(columns) == "as good"


def test_the_nearest_is_the_one_whose_worst_miss_is_smallest() -> None:
    limits = Limits(first=1.0, memory=1000)
    columns = [("large", column(0.5, 1900, 100)), ("slow", column(1.5, 900, 100)), ("both", column(1.4, 1300, 100))]
    assert limits.nearest(columns) == ("both", "1.4 s to the first text and 0 MB")
    assert limits.nearest(columns[:2]) == ("slow", "1.5 s to the first text")
    assert Limits(agreement=0.99).nearest([("worse", column(1, 1, 60)), ("bad", column(1, 1, 80))])[0] == "bad"


def test_limits_are_told_as_they_are_given() -> None:
    assert str(Limits(5.0, 6 * 10**9, 0.98)) == "--max-ttft 5s --max-memory 6000MB --min-agreement 0.98"
