"""Time and memory by stage."""

import time
from typing import Any

import pytest
from stllm_edge.runtime.memory import counters
from stllm_edge.runtime.memory.counters import Usage, highest_peak, own_usage
from stllm_edge.runtime.memory.meter import Meter

STAGES = ("video", "vision", "aligner")
SLEEP = 0.02


def test_times_add_up_even_when_a_stage_fails() -> None:
    meter = Meter(STAGES)
    with meter.measure("vision"):
        pass
    first = meter.milliseconds["vision"]
    with pytest.raises(ZeroDivisionError), meter.measure("vision"):
        1 / 0  # noqa: B018
    assert meter.milliseconds["vision"] > first > 0


def test_time_inside_another_stage_counts_once() -> None:
    meter = Meter(STAGES)
    start = time.perf_counter()
    with meter.measure("vision"):
        for _ in range(2):
            with meter.measure("video"):
                time.sleep(SLEEP)
                with meter.measure("aligner"):
                    time.sleep(2 * SLEEP)
        time.sleep(SLEEP)
    passed = time.perf_counter() - start
    assert list(meter.milliseconds) == ["vision", "video", "aligner"]
    slept = {"aligner": 4 * SLEEP, "video": 2 * SLEEP, "vision": SLEEP}
    assert all(meter.milliseconds[stage] >= 1e3 * least for stage, least in slept.items())
    # what one stage has too much, the sum has too
    assert sum(meter.milliseconds.values()) <= 1e3 * passed


def test_a_stage_within_itself_counts_once() -> None:
    meter = Meter(STAGES)
    start = time.perf_counter()
    with meter.measure("vision"), meter.measure("vision"):
        time.sleep(SLEEP)
    assert 1e3 * SLEEP <= meter.milliseconds["vision"] <= 1e3 * (time.perf_counter() - start)


def test_the_timeline_says_what_was_on_the_clock_at_each_moment() -> None:
    meter = Meter(STAGES)
    before = time.perf_counter()
    with meter.measure("vision"), meter.clock("video"):
        pass
    with meter.clock("aligner"):
        time.sleep(SLEEP)
    times, names = zip(*meter.timeline, strict=True)
    assert names == ("vision", "video", "vision", "", "aligner", "")
    assert before <= times[0]
    assert list(times) == sorted(times)
    assert meter.milliseconds["aligner"] == pytest.approx(1e3 * (times[5] - times[4]))
    # a clock alone takes no memory's measure
    assert set(meter.usage) == set(meter.peak_bytes) == {"vision"}
    assert 0 < meter.usage["vision"].anonymous < meter.usage["vision"].peak
    copy = meter.copy()
    with copy.clock("video"):
        pass
    assert len(meter.timeline) == len(names)


def test_a_failure_inside_leaves_the_stage_around_it_whole() -> None:
    meter = Meter(STAGES)
    with meter.measure("vision"):
        with pytest.raises(ZeroDivisionError), meter.measure("video"):
            1 / 0  # noqa: B018
        time.sleep(SLEEP)
    assert meter.milliseconds["video"] < 1e3 * SLEEP <= meter.milliseconds["vision"]


def test_a_name_that_is_no_stage_is_refused() -> None:
    meter = Meter(STAGES)
    with (
        pytest.raises(ValueError, match=r"no stage 'visoin'; there are video, vision, aligner"),
        meter.measure("visoin"),
    ):
        pass
    with pytest.raises(ValueError, match="'visoin'"):
        meter.note("visoin", Usage(peak=5))
    assert meter.milliseconds == meter.peak_bytes == {}


def test_a_copied_meter_goes_on_alone() -> None:
    meter = Meter(STAGES)
    with meter.measure("vision"):
        meter.note("vision", Usage(peak=5))
    milliseconds, peaks = dict(meter.milliseconds), meter.peak_bytes
    copy = meter.copy()
    assert (copy.milliseconds, copy.peak_bytes) == (milliseconds, peaks)
    with copy.measure("aligner"):
        copy.note("vision", Usage(peak=50))
    assert (meter.milliseconds, meter.peak_bytes) == (milliseconds, peaks)
    assert set(copy.milliseconds) == set(copy.peak_bytes) == {"vision", "aligner"}
    assert copy.peak_bytes["vision"] == peaks["vision"] + 45


def test_a_stage_s_peak_counts_what_was_freed_within_it(fresh_pages: Any) -> None:
    meter = Meter(STAGES)
    with meter.measure("video"):
        pass
    with meter.measure("vision"):
        fresh_pages(2**26).close()
    with meter.measure("aligner"):
        pass
    assert meter.peak_bytes["vision"] > max(meter.peak_bytes["video"], meter.peak_bytes["aligner"]) + 2**25


@pytest.mark.parametrize("when", ["before", "inside", "after"])
def test_the_peak_of_a_stage_around_another_is_the_highest(fresh_pages: Any, when: str) -> None:
    meter = Meter(STAGES)
    with meter.measure("aligner"):
        pass
    with meter.measure("vision"):
        if when == "before":
            fresh_pages(2**26).close()
        with meter.measure("video"):
            if when == "inside":
                fresh_pages(2**26).close()
        if when == "after":
            fresh_pages(2**26).close()
    above = {stage: meter.peak_bytes[stage] > meter.peak_bytes["aligner"] + 2**25 for stage in ("vision", "video")}
    assert above == {"vision": True, "video": when == "inside"}


def test_a_child_s_peak_is_added_to_that_of_this_process(fresh_pages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_highest", 0)
    meter = Meter(STAGES)
    with meter.measure("vision"):
        alone = own_usage().peak
        fresh_pages(2**26).close()
        # a stage inside starts the kernel's count anew
        with meter.measure("video"):
            pass
        meter.note("vision", Usage(peak=2**40))
        meter.note("vision", Usage(peak=2**30))
    assert meter.peak_bytes["vision"] > alone + 2**40 + 2**25
    assert meter.peak_bytes["video"] < 2**40
    assert highest_peak() >= meter.peak_bytes["vision"]
