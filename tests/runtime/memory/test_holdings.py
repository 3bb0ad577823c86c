"""What stages hold is told from what else this process has."""

import mmap
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.memory.holdings import Holdings

SIZE = 2**26
BOUNDS = {"vision": 10 * SIZE, "llm": 10 * SIZE}


@pytest.fixture
def holdings() -> Holdings:
    return Holdings()


def near(size: int) -> Any:
    """Other threads and the allocator move a little memory meanwhile."""
    return pytest.approx(size, abs=2**22)


def test_what_work_leaves_is_held_and_what_others_have_is_not(holdings: Holdings, fresh_pages: Any) -> None:
    before = fresh_pages(SIZE)
    kept = holdings.work("vision", fresh_pages, SIZE)
    between = fresh_pages(SIZE)
    more = holdings.work("llm", fresh_pages, 2 * SIZE)
    assert holdings.within(BOUNDS) == near(3 * SIZE)
    for pages in (before, kept, between, more):
        pages.close()


def test_work_adds_up_and_what_it_frees_is_not_held(holdings: Holdings, fresh_pages: Any) -> None:
    first, second = (holdings.work("vision", fresh_pages, SIZE) for _ in range(2))
    assert holdings.within(BOUNDS) == near(2 * SIZE)
    holdings.work("vision", first.close)
    assert holdings.within(BOUNDS) == near(SIZE)
    second.close()


def test_an_array_that_is_returned_is_the_caller_s(holdings: Holdings, fresh_pages: Any) -> None:
    kept: list[mmap.mmap] = []

    def work(*, value: float) -> np.ndarray:
        kept.append(fresh_pages(SIZE))
        return np.full(2 * SIZE // 8, value)

    output = holdings.work("vision", work, value=1.0)
    assert output.nbytes == 2 * SIZE
    assert holdings.within(BOUNDS) == near(SIZE)
    # one that lies in memory that was there takes nothing away
    holdings.work("vision", lambda: output)
    assert holdings.within(BOUNDS) == near(SIZE)
    kept[0].close()


def test_work_that_fails_may_leave_something(holdings: Holdings, fresh_pages: Any) -> None:
    kept: list[mmap.mmap] = []

    def work() -> None:
        kept.append(fresh_pages(SIZE))
        raise MemoryError

    with pytest.raises(MemoryError):
        holdings.work("vision", work)
    assert holdings.within(BOUNDS) == near(SIZE)
    kept[0].close()


def test_no_stage_holds_more_than_is_planned_for_it(holdings: Holdings, fresh_pages: Any) -> None:
    kept = [holdings.work(stage, fresh_pages, SIZE) for stage in ("vision", "llm")]
    assert holdings.within({"vision": 1000, "llm": 10 * SIZE}) == near(SIZE + 1000)
    holdings.clear()
    assert holdings.within(BOUNDS) == 0
    for pages in kept:
        pages.close()
