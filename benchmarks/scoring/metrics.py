"""How similar two texts are: CIDEr-D, BLEU, ROUGE-L, sentence similarity; and intervals for shares and means."""

import importlib.util
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.errors import MissingDependency
from .wording import words

__all__ = ["Bleu", "Estimate", "Resampling", "cider_d", "rouge_l", "sentence_similarity", "wilson"]

LOG = logging.getLogger(__name__)
# 97.5 % point of the normal distribution: intervals hold 95 %
Z = 1.959963984540054
RESAMPLES = 1000
ORDERS = 4
LENGTH_SIGMA = 6.0
SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

NGrams = Counter[tuple[str, ...]]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Estimate:
    """Wilson's interval of a share in 0..1; `trials` at least 1."""
    share = successes / trials
    centre = share + Z**2 / (2 * trials)
    half = Z * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    low, high = ((centre + sign * half) / (1 + Z**2 / trials) for sign in (-1, 1))
    # rounding may put a bound just outside
    return Estimate(share, max(float(low), 0.0), min(float(high), 1.0))


class Resampling:
    """Bootstrap over questions: how often each is drawn, [1000, n] int64; the same draws serve every metric."""

    def __init__(self, questions: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.draws = generator.multinomial(questions, np.full(questions, 1 / questions), size=RESAMPLES)

    def mean(self, scores: np.ndarray) -> Estimate:
        """Mean of scores [n] and its percentile interval."""
        means = self.draws @ scores / len(scores)
        return Estimate(float(scores.mean()), *map(float, np.percentile(means, [2.5, 97.5])))

    def bleu(self, bleu: "Bleu", chosen: np.ndarray) -> Estimate:
        """Corpus BLEU of the chosen questions [n] int64 and its percentile interval."""
        counts = bleu.counts[chosen]
        resampled = [bleu.score(drawn) for drawn in self.draws @ counts]
        return Estimate(bleu.score(counts.sum(axis=0)), *map(float, np.percentile(resampled, [2.5, 97.5])))


class Bleu:
    """BLEU-4 by sacrebleu, 0..100, without case; shorter answers count up to the order that they have.

    Attributes:
        counts: [n, 10] int64: n-grams that match (4), n-grams (4), words of the prediction, words of the reference.

    Raises:
        MissingDependency: sacrebleu is not installed.
    """

    def __init__(self, references: Sequence[str], predictions: Sequence[str]) -> None:
        sacrebleu = imported("sacrebleu")
        # answers of one word have no sequences of four, without which BLEU-4 would be 0
        self.metric = sacrebleu.BLEU(lowercase=True, effective_order=True)
        found = [
            self.metric.sentence_score(prediction, [reference])
            for reference, prediction in zip(references, predictions, strict=True)
        ]
        self.counts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], np.int64)

    def score(self, counts: np.ndarray) -> float:
        """Corpus BLEU from summed counts [10]."""
        values = [int(count) for count in counts]
        correct, total, (predicted, reference) = values[:ORDERS], values[ORDERS:-2], values[-2:]
        return float(self.metric.compute_bleu(correct, total, predicted, reference, effective_order=True).score)


def rouge_l(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """ROUGE-L F1 of each pair, [n] float64 in 0..1, by Google's rouge-score.

    Raises:
        MissingDependency: rouge-score is not installed.
    """
    scorer = imported("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    pairs = zip(references, predictions, strict=True)
    return np.array([scorer.score(reference, prediction)["rougeL"].fmeasure for reference, prediction in pairs])


def cider_d(
    references: Sequence[Sequence[str]], predictions: Sequence[str], tokenize: Callable[[str], list[str]] = words
) -> np.ndarray:
    """CIDEr-D of each prediction, [n] float64 in 0..10 (Vedantam et al. 2015, equation 4, as coco-caption computes it).

    Document frequencies are those of the references given, so a single question scores 0.

    Args:
        references: one or more texts a question.
        predictions: one text a question.
        tokenize: splits a text; by default lower-case words without punctuation.
    """
    documents = [[ngrams(tokenize(text)) for text in texts] for texts in references]
    frequency = Counter(ngram for texts in documents for ngram in set().union(*texts))
    idf = {ngram: np.log(len(documents) / count) for ngram, count in frequency.items()}
    unseen = float(np.log(len(documents)))

    def similarity(prediction: NGrams, reference: NGrams) -> float:
        penalty = np.exp(-((length(prediction) - length(reference)) ** 2) / (2 * LENGTH_SIGMA**2))
        total = 0.0
        for order in range(1, ORDERS + 1):
            ours, theirs = (weights(text, order) for text in (prediction, reference))
            norms = norm(ours) * norm(theirs)
            # clipping: repeating a word of the reference earns nothing
            dot = sum(min(weight, theirs.get(ngram, 0.0)) * theirs.get(ngram, 0.0) for ngram, weight in ours.items())
            total += dot / norms if norms else 0.0
        return 10.0 * total * float(penalty) / ORDERS

    def weights(text: NGrams, order: int) -> dict[tuple[str, ...], float]:
        return {ngram: count * idf.get(ngram, unseen) for ngram, count in text.items() if len(ngram) == order}

    predicted = [ngrams(tokenize(text)) for text in predictions]
    pairs = zip(documents, predicted, strict=True)
    return np.array([np.mean([similarity(ours, text) for text in texts]) for texts, ours in pairs])


def ngrams(tokens: list[str]) -> NGrams:
    return Counter(tuple(tokens[at : at + n]) for n in range(1, ORDERS + 1) for at in range(len(tokens) - n + 1))


def length(text: NGrams) -> int:
    return sum(count for ngram, count in text.items() if len(ngram) == 1)


def norm(vector: dict[tuple[str, ...], float]) -> float:
    return float(np.sqrt(sum(weight**2 for weight in vector.values())))


def sentence_similarity(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray | None:
    """Cosine of sentence embeddings (all-MiniLM-L6-v2, as REA's authors use), [n]; None, announced, if it is not here.

    Nothing is downloaded: the model must be in the local cache.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        LOG.info("sentence similarity is left out: sentence-transformers is not installed")
        return None
    library = imported("sentence_transformers")
    try:
        model = library.SentenceTransformer(SENTENCE_MODEL, local_files_only=True)
    except OSError:
        LOG.info("sentence similarity is left out: %s is not in the local cache", SENTENCE_MODEL)
        return None
    ours, theirs = (model.encode(list(texts), normalize_embeddings=True) for texts in (predictions, references))
    return np.asarray((ours * theirs).sum(axis=1), np.float64)


def imported(module: str) -> Any:
    """An optional library.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0].replace("_", "-")
        raise MissingDependency(f"{name} is not installed ({error}); pip install 'stllm-edge[bench]'") from None
