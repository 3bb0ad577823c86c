"""Divergences against their definitions."""

import numpy as np
import pytest
from stllm_edge.benchmarks.quality.metrics import LEAST_POSITIONS, Positions, Summary, compare


def logits(seed: int, count: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (count, 11)).astype(np.float32)


def test_divergence_is_that_of_the_definition() -> None:
    ours, theirs, true = logits(0), logits(1), np.array([3, -1, 0, 5, -1, 10, 2])
    found = compare(ours, theirs, true)
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=1, keepdims=True) for x in (theirs, ours))
    assert np.allclose(found.divergence, (p * np.log(p / q)).sum(axis=1))
    assert np.allclose(found.change[0], q[0, 3] - p[0, 3])
    assert np.isnan(found.change).tolist() == (true < 0).tolist()
    assert np.allclose(found.surprise[2], -np.log(q[2, 0]))
    assert (found.agreed == (ours.argmax(1) == theirs.argmax(1))).all()
    expected = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert Summary.of([found], [0]).values["rel_rms"] == pytest.approx(expected)


def test_a_model_has_no_divergence_from_itself() -> None:
    found = compare(logits(0), logits(0), np.full(7, 1))
    assert not found.divergence.any()
    assert not found.change.any()
    assert found.agreed.all()


def test_percentiles_are_refused_for_few_positions() -> None:
    few = compare(logits(0, LEAST_POSITIONS - 1), logits(1, LEAST_POSITIONS - 1), np.full(LEAST_POSITIONS - 1, 2))
    values = Summary.of([few], [0]).values
    assert values["kl_median"] is values["kl_p90"] is values["kl_p99"] is None
    assert values["kl_mean"] == pytest.approx(few.divergence.mean())
    enough = Positions.joined([few, few])
    values = Summary.of([enough], [0]).values
    assert values["kl_median"] == pytest.approx(np.median(enough.divergence))
    assert values["kl_max"] == few.divergence.max()


def test_standard_errors_are_those_of_whole_clips() -> None:
    generator = np.random.default_rng(0)
    questions, clips = [], []
    for clip in range(40):
        level = generator.exponential()
        for _ in range(5):
            count = 30
            plain = np.full(count, True)
            levels = np.full(count, level)
            questions.append(Positions(levels, plain, plain, *[levels] * 4))
            clips.append(clip)
    summary = Summary.of(questions, clips)
    levels = np.array([question.divergence[0] for question in questions[::5]])
    assert summary.errors["kl_mean"] == pytest.approx(levels.std() / np.sqrt(40), rel=0.15)
    assert summary.errors["kl_max"] is None
    assert (summary.positions, summary.questions) == (6000, 200)
