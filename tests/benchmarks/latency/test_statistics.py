"""Statistics against scipy, and against what they are for: how often an interval holds the truth."""

import statistics
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from stllm_edge.benchmarks.latency.statistics import bootstrap, drift, percentile, samples_needed, summarise


@pytest.mark.parametrize(("share", "least"), [(0.90, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_samples_a_percentile_needs_are_those_of_mlperf(share: float, least: int) -> None:
    assert samples_needed(share) == least
    # by scipy's binomial: with the least number, two above the percentile are near certain; with one less they are not
    assert stats.binom.cdf(1, least, 1 - share) <= 0.01 < stats.binom.cdf(1, least - 1, 1 - share)


def test_less_confidence_needs_fewer_samples() -> None:
    assert samples_needed(0.9, 0.95) == 46
    assert stats.binom.cdf(1, 46, 0.1) <= 0.05 < stats.binom.cdf(1, 45, 0.1)


@pytest.mark.parametrize(("count", "known"), [(63, ()), (64, ("p90",)), (130, ("p90", "p95")), (661, ("p90", "p95"))])
def test_percentiles_that_the_samples_do_not_support_are_missing(count: int, known: tuple[str, ...]) -> None:
    summary = summarise(list(np.linspace(1, 2, count)))
    assert tuple(name for name in ("p90", "p95", "p99") if getattr(summary, name) is not None) == known


def test_a_summary_is_that_of_the_standard_library() -> None:
    samples = list(np.random.default_rng(3).lognormal(size=700))
    summary = summarise(samples)
    assert summary.count == 700
    assert summary.median == pytest.approx(statistics.median(samples))
    assert summary.mean == pytest.approx(statistics.fmean(samples))
    assert summary.sd == pytest.approx(statistics.stdev(samples))
    assert (summary.minimum, summary.maximum) == (min(samples), max(samples))
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    assert (summary.p90, summary.p95, summary.p99) == pytest.approx((cuts[89], cuts[94], cuts[98]))
    assert percentile(samples, 0.999) is None


def test_one_sample_has_no_spread() -> None:
    assert summarise([0.25]).sd is None


def test_the_bootstrap_draws_as_scipy_does() -> None:
    generator = np.random.default_rng(5)
    groups = [
        list(generator.normal(1 + level, 0.01, size))
        for level, size in zip((0.0, 0.2, 0.1, 0.4), (7, 5, 9, 8), strict=True)
    ]
    found = bootstrap(groups, np.mean, resamples=2000, seed=7)

    def mean(draw: np.ndarray) -> float:
        return float(np.mean(np.concatenate([groups[place] for place in draw])))

    settings = {"n_resamples": 2000, "vectorized": False, "method": "percentile", "rng": np.random.default_rng(7)}
    expected = stats.bootstrap((np.arange(4),), mean, **settings).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(np.mean(np.concatenate(groups)))


def test_tokens_of_an_answer_are_no_independent_samples() -> None:
    """Where answers differ and their tokens do not, the interval is as wide as the answers are apart."""
    generator = np.random.default_rng(0)
    held, naive = 0, 0
    for seed in range(40):
        answers = [list(generator.normal(1, 0.1) + generator.normal(0, 0.01, 31)) for _ in range(20)]
        tokens = [[spent] for answer in answers for spent in answer]
        whole, single = (bootstrap(groups, np.mean, resamples=200, seed=seed) for groups in (answers, tokens))
        held += whole.low <= 1 <= whole.high
        naive += single.low <= 1 <= single.high
    assert held >= 34
    assert naive <= 16


def test_a_single_answer_says_nothing_of_others() -> None:
    found = bootstrap([[1.0, 2.0, 3.0]])
    assert (found.value, found.low, found.high) == (2.0, None, None)


def test_the_test_for_a_trend_is_kendalls() -> None:
    seconds = list(np.random.default_rng(2).normal(1, 0.1, 30) + np.linspace(0, 0.1, 30))
    found = drift(seconds, ["a"] * 30)
    expected = stats.kendalltau(np.arange(30), seconds, method="asymptotic").pvalue
    # ours corrects for continuity: with a score one less it is the same
    assert found.chance == pytest.approx(expected, rel=0.1)
    assert found.chance > expected


def asked(repetitions: int, questions: int, slower: float, noise: float, seed: int) -> tuple[list[float], list[str]]:
    """Rounds over questions of different length, each round slower than the one before it."""
    generator = np.random.default_rng(seed)
    long = generator.uniform(0.5, 2, questions)
    steps = 1 + slower * np.linspace(0, 1, repetitions)
    spent = np.outer(steps, long) * generator.normal(1, noise, (repetitions, questions))
    return spent.ravel().tolist(), [f"q{n}" for n in range(questions)] * repetitions


def test_a_run_that_throttles_is_found_and_a_steady_one_is_left_alone() -> None:
    throttled = [drift(*asked(5, 10, 0.15, 0.02, seed)) for seed in range(50)]
    assert all(found.found for found in throttled)
    assert np.median([found.change for found in throttled]) == pytest.approx(0.14, abs=0.02)
    assert sum(drift(*asked(5, 10, 0.0, 0.02, seed)).found for seed in range(200)) <= 4
    assert drift(*asked(9, 1, -0.3, 0.01, 0)).found


def test_a_change_of_less_than_two_percent_is_no_drift() -> None:
    found = drift(*asked(9, 20, 0.01, 0.001, 0))
    assert found.chance < 0.01
    assert not found.found


def test_questions_of_different_length_are_no_drift() -> None:
    """One question after the other, each three times, longer and longer."""
    lengths = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    generator = np.random.default_rng(1)
    seconds = [length * generator.normal(1, 0.01) for length in lengths for _ in range(3)]
    assert all(after > before for before, after in pairwise(seconds[::3]))
    found = drift(seconds, [length for length in lengths for _ in range(3)])
    assert not found.found
    assert abs(found.change) < 0.05


@pytest.mark.parametrize("repetitions", [1, 2])
def test_too_few_repetitions_tell_no_drift(repetitions: int) -> None:
    assert drift(*asked(repetitions, 20, 0.5, 0.01, 0)) is None
