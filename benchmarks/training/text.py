"""The small model's own tokenizer, in Qwen2's form, and the token ids of questions and answers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import models, trainers

from ...runtime.llm.prompt import Prompt, build_prompt
from ..checkpoints import DATA

__all__ = ["END", "SPECIAL", "Tokens", "encode", "train_tokenizer"]

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END = "<|im_end|>"


@dataclass(frozen=True)
class Tokens:
    """Ids of one question and its answer.

    Attributes:
        prompt: the prompt as the runtime builds it, with the assistant's header.
        answer: ids of the answer and of the token that ends it.
    """

    prompt: Prompt
    answer: tuple[int, ...]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer with Qwen2's splitting of words, learned from texts.

    Args:
        texts: what the model reads and writes.
        vocabulary: most tokens, the three special ones included, which come last.
    """
    described: dict[str, Any] = json.loads((DATA / "tokenizer.json").read_text(encoding="utf-8"))
    described["added_tokens"] = []
    described["model"] |= {"vocab": {}, "merges": []}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(described))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert isinstance(tokenizer.model, models.BPE)
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def encode(tokenizer: tokenizers.Tokenizer, question: str, answer: str) -> Tokens:
    """Ids of a question in the runtime's template, and of its answer."""

    def ids(text: str, special: bool = True) -> list[int]:
        tokenizer.encode_special_tokens = not special
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return Tokens(build_prompt(question, ids), tuple(ids(answer + END)))
