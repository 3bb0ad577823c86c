"""The search on given tables of measurements: the front of a whole grid, with a part of its questions."""

from itertools import pairwise

import numpy as np
import pytest
from stllm_edge.benchmarks.tuning.limits import Limits
from stllm_edge.benchmarks.tuning.search import Skipped, Unfit, cut, search
from stllm_edge.runtime import BadInput, DoesNotFit

from .tables import Table, Traits, drawn_table, drawn_traits, undominated

QUESTIONS = [f"question {number}" for number in range(200)]
ROUNDS = cut([QUESTIONS[place : place + 5] for place in range(0, 200, 5)])
# quick and bad, slow and good, small: and what costs more than one of them for nothing
SIX = {
    "exact": Traits(1.0, 10**9, 0.0),
    "no better": Traits(1.5, 10**9, 0.0),
    "larger": Traits(1.0, 14 * 10**8, 0.0),
    "small": Traits(1.5, 5 * 10**8, 0.1),
    "quick": Traits(0.4, 10**9, 0.5),
    "worse": Traits(0.6, 14 * 10**8, 0.5),
}


def table(traits: dict[str, Traits] = SIX, seed: int = 0) -> Table:
    return drawn_table(traits, QUESTIONS, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_the_front_of_the_whole_grid_and_of_the_truth(seed: int) -> None:
    traits = drawn_traits(np.random.default_rng(seed), 12)
    whole = search(list(traits), ROUNDS, table(traits, seed), exhaustive=True)
    found = search(list(traits), ROUNDS, (asked := table(traits, seed)))
    assert set(found.front) == set(whole.front) == undominated(traits)
    assert whole.asked == 12 * 200
    # each question once
    assert found.asked == len(asked.asked) == len(set(asked.asked)) < whole.asked
    assert set(found.front) | set(found.drops) == set(traits)


def test_many_that_are_worth_nothing_cost_little() -> None:
    traits = {f"{copy} {name}": one for name, one in SIX.items() for copy in range(6)}
    found = search(list(traits), ROUNDS, table(traits))
    assert set(found.front) == {"0 exact", "0 small", "0 quick"}
    assert found.asked <= 0.4 * len(traits) * 200
    assert found.drops["3 worse"].by == "0 quick"


def test_all_that_are_left_are_asked_the_same_questions() -> None:
    found = search(list(SIX), ROUNDS, table())
    assert [len(found.columns[name]) for name in ("exact", "small", "quick")] == [200] * 3
    assert len(found.columns["larger"]) == len(ROUNDS[0]) == 25
    assert found.reference == "exact"
    assert found.columns["quick"].same.mean() == found.columns["quick"].right.mean() == 0.5


def test_the_most_exact_is_asked_on_though_another_covers_it() -> None:
    found = search(["exact", "better"], ROUNDS, table({"exact": SIX["exact"], "better": Traits(0.4, 10**9, 0.0)}))
    assert (found.front, found.drops["exact"].by) == (["better"], "better")
    assert len(found.columns["exact"]) == len(found.columns["better"]) == 200


def test_what_misses_a_limit_is_asked_no_more_and_covers_nothing() -> None:
    limits = Limits(first=0.8, memory=12 * 10**8, agreement=0.3)
    found = search(list(SIX), ROUNDS, (asked := table()), limits=limits)
    assert found.front == ["quick"]
    assert found.drops["exact"].reason == "over --max-ttft"
    # too large for certain, so not asked at all
    assert {"larger", "worse"}.isdisjoint(name for name, _ in asked.asked)
    assert found.drops["larger"].reason == found.drops["worse"].reason == "over --max-memory"
    assert len(found.columns["small"]) == 25
    assert search(list(SIX), ROUNDS, table(), limits=Limits(agreement=0.95)).drops["quick"].reason == (
        "below --min-agreement"
    )


def test_one_that_meets_the_limits_is_kept_beside_a_better_one_that_does_not() -> None:
    traits = {"better": Traits(1.03, 10**9, 0.0), "worse": Traits(1.0, 10**9, 0.005)}
    one = table(traits)
    first = np.median([asked.first for asked in one.answers["worse"].values()])
    found = search(list(traits), ROUNDS, one, limits=Limits(first=1.01 * first))
    assert found.front == ["worse"]


def test_those_that_do_not_run_are_left_out_whenever_that_shows(caplog: pytest.LogCaptureFixture) -> None:
    one = table()
    del one.bytes["exact"]
    one.answers["small"][QUESTIONS[30]] = Unfit("needs 3 GB, 2 GB are free")
    found = search(list(SIX), ROUNDS, one)
    assert found.reference == "no better"
    assert found.drops["exact"].reason == "does not run here: needs 9 MB, 1 MB are free"
    assert found.drops["small"].reason == "does not run here: needs 3 GB, 2 GB are free"
    assert "small: left out: needs 3 GB" in caplog.text


def test_nothing_that_runs() -> None:
    with pytest.raises(DoesNotFit, match="none of the 2 configurations runs here; a does not run here: needs 9 MB"):
        search(["a", "b"], ROUNDS, Table({}, {}))


def test_a_question_that_one_cannot_be_asked_counts_for_nobody() -> None:
    one = table()
    one.answers["quick"][QUESTIONS[0]] = Skipped("2 frames have a pose")
    found = search(list(SIX), ROUNDS, one)
    assert found.skipped == {QUESTIONS[0]: "2 frames have a pose"}
    assert len(found.columns["exact"]) == len(found.columns["quick"]) == 199


def test_no_question_that_can_be_asked() -> None:
    one = table()
    one.answers["exact"] = dict.fromkeys(QUESTIONS, Skipped("cloud.ply: missing"))
    with pytest.raises(BadInput, match=r"none of the questions can be asked: cloud\.ply: missing"):
        search(list(SIX), ROUNDS, one)


@pytest.mark.parametrize("total", [1, 3, 17, 40, 100, 203, 1757])
def test_rounds_double_and_keep_clips_whole(total: int) -> None:
    clips = [[f"{clip}-{number}" for number in range(min(3, total - clip))] for clip in range(0, total, 3)]
    rounds = cut(clips)
    assert [question for questions in rounds for question in questions] == [one for clip in clips for one in clip]
    so_far = np.cumsum([*map(len, rounds)])
    assert so_far[0] >= min(16, total)
    # all but the last, which takes what is left
    assert all(after >= 1.8 * before for before, after in pairwise(so_far[:-1]))
    ends = set(np.cumsum([*map(len, clips)]).tolist())
    assert set(so_far.tolist()) <= ends
