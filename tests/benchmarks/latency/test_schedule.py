"""Which question is asked when: cold first, warm until stable, then rounds in which bundles take turns."""

from collections.abc import Callable
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.schedule import Schedule, Step, is_stable, steps
from stllm_edge.runtime.errors import BadInput


def carried_out(
    schedule: Schedule,
    bundles: int = 1,
    questions: int = 1,
    seconds: Callable[[Step], float] = lambda step: 1.0,
    done: dict[Step, float] | None = None,
) -> list[Step]:
    """Steps in the order in which they are asked for."""
    known = {} if done is None else done
    asked = []
    for step in steps(schedule, bundles, questions, known):
        assert step not in known
        known[step] = seconds(step)
        asked.append(step)
    return asked


def short(found: list[Step]) -> list[str]:
    return [f"{s.bundle}{s.question} {s.phase}{s.repetition}{' warm-up' * s.warm_up}" for s in found]


def test_cold_processes_come_first_then_warm_ups_then_rounds() -> None:
    found = short(carried_out(Schedule(cold=2, repetitions=2), questions=2))
    assert found[:2] == ["00 cold0", "00 cold1"]
    assert found[2:8] == [f"00 {phase}{again} warm-up" for again in range(3) for phase in ("warm", "repeated")]
    assert found[8:] == [
        f"0{question} {phase}{again}" for again in range(2) for question in range(2) for phase in ("warm", "repeated")
    ]


def test_bundles_take_turns_with_the_same_question() -> None:
    found = short(carried_out(Schedule(cold=2, repetitions=1), bundles=2, questions=2))
    assert found[:4] == ["00 cold0", "10 cold0", "00 cold1", "10 cold1"]
    rounds = [step for step in found[4:] if "warm-up" not in step]
    assert rounds == [
        *("00 warm0", "00 repeated0", "10 warm0", "10 repeated0"),
        *("01 warm0", "01 repeated0", "11 warm0", "11 repeated0"),
    ]
    assert sum("warm-up" in step for step in found) == 2 * 6


@pytest.mark.parametrize(
    ("totals", "stable"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([3.0, 1.0, 1.0], False),
        ([3.0, 1.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.001, 1.002], True),
        ([1.0, 1.05, 1.1, 1.15], False),
    ],
)
def test_stable_is_a_median_that_hardly_moves(totals: list[float], stable: bool) -> None:
    assert is_stable(totals) is stable


def test_warm_ups_end_at_their_limit_where_nothing_is_stable() -> None:
    found = carried_out(Schedule(cold=0, most_warm_ups=7, repetitions=1), seconds=lambda step: 1.1**step.repetition)
    assert [step.repetition for step in found if step.warm_up and step.phase == "warm"] == list(range(7))


def test_rounds_go_on_until_they_took_long_enough() -> None:
    found = carried_out(Schedule(cold=0, repetitions=2, min_seconds=9.0))
    # two seconds a round
    assert max(step.repetition for step in found if not step.warm_up) == 4


@pytest.mark.parametrize("kept", range(0, 21, 4))
def test_what_is_left_of_an_interrupted_run_is_done_after_new_warm_ups(kept: int) -> None:
    schedule = Schedule(cold=2, repetitions=3)
    whole = carried_out(schedule, bundles=1, questions=2)
    done = dict.fromkeys(whole[:kept], 1.0)
    rest = carried_out(schedule, questions=2, done=done)
    counted = [step for step in whole if not step.warm_up]
    assert [step for step in [*whole[:kept], *rest] if not step.warm_up] == counted
    loaded = any(not step.warm_up and step.phase != "cold" for step in rest)
    assert sum(step.warm_up for step in rest) == (6 if loaded else 0)
    assert len({*whole[:kept], *rest}) == kept + len(rest)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"cold": -1}, "--cold -1: expected at least 0"),
        ({"most_warm_ups": 2}, "--warm-up 2: expected at least 3"),
        ({"repetitions": 0}, "--repetitions 0: expected at least 1"),
        ({"min_seconds": float("nan")}, "--min-seconds nan: expected a number of seconds"),
        ({"delay": -1.0}, "--delay -1.0: expected a number of seconds"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        Schedule(**wrong).check()
