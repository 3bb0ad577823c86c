"""Tokens chosen from logits, by the best one, by draws, and within a grammar."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.llm.sampler import Sampler
from stllm_edge.runtime.llm.sampling import Sampling
from stllm_edge.runtime.llm.vocabulary import Vocabulary

STOP_IDS = (1002,)


@pytest.fixture(scope="module")
def vocabulary(tiny_bundle: Path) -> Iterator[Vocabulary]:
    with Vocabulary(tiny_bundle / "llm" / "F32.gguf") as loaded:
        yield loaded


def logits_of(vocabulary: Vocabulary, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).standard_normal(len(vocabulary), np.float32)


def draw(vocabulary: Vocabulary, logits: np.ndarray, count: int = 1, **sampling: object) -> list[int]:
    with Sampler(Sampling(**sampling), vocabulary, STOP_IDS) as choose:
        return [choose(logits) for _ in range(count)]


def write(vocabulary: Vocabulary, most: int = 200, **sampling: object) -> str | None:
    """An answer to random logits; None where it does not end by itself."""
    written = b""
    with Sampler(Sampling(**sampling), vocabulary, STOP_IDS) as choose:
        for step in range(most):
            token = choose(logits_of(vocabulary, step, 5.0))
            if token in STOP_IDS:
                return written.decode()
            written += vocabulary.piece(token)
    return None


def test_temperature_zero_takes_the_best(vocabulary) -> None:
    logits = logits_of(vocabulary)
    before = logits.copy()
    assert draw(vocabulary, logits, 3) == [logits.argmax()] * 3
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(vocabulary, temperature: float) -> None:
    logits = np.full(len(vocabulary), -200.0, np.float32)
    logits[:3] = [0, 1, 2]
    drawn = np.bincount(draw(vocabulary, logits, 4000, temperature=temperature, seed=2), minlength=3) / 4000
    weights = np.exp(logits[:3] / temperature)
    assert np.allclose(drawn[:3], weights / weights.sum(), atol=0.03)
    assert drawn.sum() == drawn[:3].sum()


def test_the_seed_decides_the_draws(vocabulary) -> None:
    logits = logits_of(vocabulary, spread=0.1)
    first, again, other = (draw(vocabulary, logits, 8, temperature=1.0, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("temperature", [1e-30, sys.float_info.min, 5e-324])
def test_tiny_temperatures_take_the_best(vocabulary, temperature: float) -> None:
    logits = logits_of(vocabulary, spread=40.0)
    assert draw(vocabulary, logits, temperature=temperature) == [logits.argmax()]


@pytest.mark.parametrize(
    ("sampling", "left"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.6}, {0, 1}), ({"min_p": 0.2}, {0, 1, 2}), ({"top_p": 0.01}, {0})],
)
def test_unlikely_tokens_are_left_out(vocabulary, sampling: dict[str, float], left: set[int]) -> None:
    logits = np.full(len(vocabulary), -200.0, np.float32)
    logits[:4] = np.log([0.4, 0.3, 0.25, 0.05])
    assert set(draw(vocabulary, logits, 300, temperature=1.0, **sampling)) == left


def test_a_penalty_is_that_of_its_definition(vocabulary) -> None:
    logits = np.full(len(vocabulary), -9.0, np.float32)
    logits[:3] = [3.0, 2.0, -1.0]
    # 3 becomes 1.5 once it was said, 2 becomes 1, and a negative number is multiplied
    assert draw(vocabulary, logits, 4, repetition_penalty=2.0) == [0, 1, 0, 0]
    logits[:3] = [-1.0, -1.5, -1.8]
    assert draw(vocabulary, logits, 3, repetition_penalty=2.0) == [0, 1, 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_choices_are_the_only_answers(vocabulary, temperature: float, seed: int) -> None:
    choices = ("left", "right", 'turn "around"', "rechts ab\n", "ü")
    assert write(vocabulary, choices=choices, temperature=temperature, seed=seed) in choices


def test_a_grammar_takes_the_best_token_that_it_allows(vocabulary) -> None:
    (first,) = {vocabulary.tokenize(word)[0] for word in ("a",)}
    logits = logits_of(vocabulary)
    logits[first] = logits.min() - 1
    assert draw(vocabulary, logits, choices=("a",)) == [first]


SCHEMA = {
    "type": "object",
    "properties": {"direction": {"enum": ["left", "right"]}, "metres": {"type": "integer"}},
    "required": ["direction", "metres"],
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_keeps_to_a_schema(vocabulary, temperature: float) -> None:
    written = write(vocabulary, json_schema=json.dumps(SCHEMA), temperature=temperature)
    assert written is not None
    said = json.loads(written)
    assert said["direction"] in ("left", "right")
    assert type(said["metres"]) is int


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"temperature": -1.0}, "--temperature -1.0"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"top_k": -1}, "--top-k -1"),
        ({"top_p": 1.5}, "--top-p 1.5: expected a number from 0 to 1"),
        ({"min_p": -0.1}, "--min-p -0.1"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty 0.0: expected a number above 0"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296: expected at most"),
        ({"stop": ("",)}, "--stop: an empty text"),
        ({"choices": ("a",), "json_schema": "{}"}, "--choices and --json-schema are both given"),
        ({"choices": ("a", "")}, "--choices: one of them is empty"),
        ({"json_schema": "{"}, "--json-schema: is no JSON"),
        ({"json_schema": "[]"}, "--json-schema: expected an object"),
        ({"json_schema": '{"enum": []}'}, "allows nothing"),
        ({"json_schema": '{"type": "integer", "minimum": 3}'}, "minimum cannot be held to by a grammar"),
        ({"json_schema": '{"properties": {"a": {"multipleOf": 3}}}'}, "multipleOf cannot be held to"),
        ({"json_schema": '{"type": "colour"}'}, "cannot be turned into a grammar"),
        ({"json_schema": '{"$ref": "https://example.org/a.json"}'}, "cannot be turned into a grammar"),
    ],
)
def test_what_cannot_be_is_refused(sampling: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        Sampling(**sampling).check()


def test_properties_may_be_named_like_keywords() -> None:
    Sampling(json_schema='{"type": "object", "properties": {"minimum": {"type": "number"}}}').check()
