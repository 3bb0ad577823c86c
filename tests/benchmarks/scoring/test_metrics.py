"""Metrics against published and hand-computed values, and their intervals."""

import importlib.machinery
import importlib.util
import logging
import sys
import types
from math import exp, sqrt

import numpy as np
import pytest
import sacrebleu
from stllm_edge.benchmarks.scoring.metrics import Bleu, Resampling, cider_d, rouge_l, sentence_similarity, wilson
from stllm_edge.runtime.errors import MissingDependency

CHEF = [
    ("28-Year-Old Chef Found Dead at San Francisco Mall", "28-year-old chef found dead in San Francisco mall"),
    (
        "A 28-year-old chef who had recently moved to San Francisco was found dead in the stairwell "
        "of a local mall this week.",
        "A 28-year-old chef who recently moved to San Francisco was found dead in the staircase "
        "of a local shopping center.",
    ),
    (
        "But the victim's brother says he can't think of anyone who would want to hurt him, "
        'saying, "Things were finally going well for him."',
        "The victim's brother said he cannot imagine anyone who would want to harm "
        'him,"Finally, it went uphill again at him."',
    ),
]


def test_cider_d_of_the_documented_example_of_aac_metrics() -> None:
    references = [
        ["a man speaks.", "someone speaks.", "a man is speaking while a bird is chirping in the background"],
        ["rain is falling hard on a surface"],
    ]
    scores = cider_d(references, ["a man is speaking", "rain falls"])
    assert scores == pytest.approx([1.3641, 0.5587], abs=5e-5)
    assert scores.mean() == pytest.approx(0.9614, abs=5e-5)


def test_cider_d_of_the_test_case_of_summeval() -> None:
    references, predictions = zip(*CHEF, strict=True)
    scores = cider_d([[reference] for reference in references], predictions, tokenize=str.split)
    assert scores.mean() == pytest.approx(2.5759014911864084, abs=1e-12)


def test_cider_d_by_hand() -> None:
    references = [["a b"], ["c d"]]
    halved = cider_d(references, ["a", "c d"])[0]
    assert halved == pytest.approx(10 / 4 * (1 / sqrt(2)) * exp(-1 / 72))
    repeated = cider_d(references, ["a a", "c d"])[0]
    assert repeated == pytest.approx(10 / 4 * (1 / (2 * sqrt(2)))), "a repeated word is clipped"


def test_cider_d_of_identical_texts_and_of_one_text_only() -> None:
    texts = ["turn left at the door", "walk straight to my sofa", "nothing else is needed here"]
    assert cider_d([[text] for text in texts], texts) == pytest.approx([10.0] * 3)
    assert cider_d([[texts[0]]] * 3, [texts[0]] * 3) == pytest.approx([0.0] * 3), "words in every reference say nothing"
    assert cider_d([[text] for text in texts], ["", "", ""]) == pytest.approx([0.0] * 3)


def test_bleu_from_counts_is_sacrebleu_s() -> None:
    references, predictions = map(list, zip(*CHEF, strict=True))
    ours = Bleu(references, predictions)
    theirs = sacrebleu.corpus_bleu(predictions, [references], lowercase=True).score
    assert ours.score(ours.counts.sum(axis=0)) == pytest.approx(theirs, abs=1e-9)


def test_bleu_and_rouge_of_short_identical_answers_are_full() -> None:
    short = Bleu(["In front."], ["In front."])
    assert short.score(short.counts[0]) == pytest.approx(100.0)
    assert rouge_l(["In front."], ["in front"]) == pytest.approx([1.0])
    assert rouge_l(["the cat sat"], ["the dog sat"]) == pytest.approx([2 / 3])


def test_wilson_s_intervals_are_those_of_newcombe_s_table() -> None:
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    found = {key: wilson(*key) for key in published}
    assert {key: (round(one.low, 4), round(one.high, 4)) for key, one in found.items()} == published


def test_bootstrap_is_seeded_and_as_wide_as_theory_says() -> None:
    scores = np.random.default_rng(5).normal(3.0, 2.0, 400)
    estimate = Resampling(400, seed=1).mean(scores)
    assert estimate == Resampling(400, seed=1).mean(scores)
    assert estimate != Resampling(400, seed=2).mean(scores)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.1)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingDependency, match=r"sacrebleu is not installed .*pip install 'stllm-edge\[bench\]'"):
        Bleu(["a"], ["a"])
    with pytest.raises(MissingDependency, match="rouge-score is not installed"):
        rouge_l(["a"], ["a"])


class UnitVectors:
    """Embeds a text as its first letter's axis."""

    def __init__(self, name: str, local_files_only: bool) -> None:
        assert local_files_only

    def encode(self, texts: list[str], normalize_embeddings: bool) -> np.ndarray:
        return np.eye(256)[[ord(text[0]) for text in texts]]


def test_sentence_similarity_is_announced_when_absent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, "stllm_edge"):
        assert sentence_similarity(["a"], ["a"]) is None
    assert "sentence similarity is left out: sentence-transformers is not installed" in caplog.text


def test_sentence_similarity_is_the_cosine_of_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.ModuleType("sentence_transformers")
    library.__spec__ = importlib.machinery.ModuleSpec("sentence_transformers", None)
    library.SentenceTransformer = UnitVectors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    assert sentence_similarity(["left", "left"], ["left", "right"]) == pytest.approx([1.0, 0.0])
