"""A language model of a bundle and PyTorch's side by side: words, description, weights, graph, and what it loses."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from ..runtime.bundle.table import GRAPH, LOSSES, MOST_ACTIVATION_COSTS, STAGES, Tolerance
from ..runtime.llm.prompt import Prompt, Tokenize, build_prompt
from ..runtime.llm.vocabulary import Vocabulary
from ..runtime.setup import Setup
from ..runtime.stages import Stages
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .checkpoint.tokenizer import Tokenizer, reference_ids
from .comparison import Row, relative
from .gguf.reader import GgufFile
from .gguf.types import PLAIN
from .gguf.writer import gguf_names, weight_errors
from .material import Material
from .model.reference import Reference
from .model.rounding import ACTIVATIONS
from .model.streaming import EMBEDDING, KEPT_POSITIONS

__all__ = ["QUESTIONS", "LanguageComparison", "reference_prompts"]

QUESTIONS = (
    "After finishing the action in the video, in which direction should the person turn to face the table?",
    "Where did I put the knife?",
    "How far away is the fridge, and what could the person do there next?",
)
# what rounding to a GGUF type may cost a tensor; about twice what it costs normally distributed values
WEIGHT_LIMITS = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.012,
    "Q6_K": 0.04,
    "Q5_K": 0.08,
    "Q5_0": 0.08,
    "Q5_1": 0.08,
    "Q4_K": 0.16,
    "Q4_0": 0.2,
    "Q4_1": 0.16,
    "IQ4_NL": 0.16,
    "IQ4_XS": 0.16,
    "Q3_K": 0.32,
    "MXFP4": 0.25,
    "IQ3_S": 0.32,
    "IQ3_XXS": 0.4,
    "Q2_K": 0.6,
    "IQ2_S": 0.7,
    "IQ2_XS": 0.7,
    "IQ2_XXS": 0.8,
    "IQ1_M": 1.0,
    "IQ1_S": 1.0,
    "TQ2_0": 1.0,
    "TQ1_0": 1.0,
    "Q1_0": 1.0,
}
# of files that mix several types, as IQ3_XS
MOST_WEIGHT_LIMIT = max(WEIGHT_LIMITS.values())
# rounding is the same on both sides at first, and as large in the end
ACTIVATION_FACTOR = 1.5
BF16_NOTE = "(libllama rounds activations to BF16 too; F16 is closer)"
# video tokens of a short prompt
SHORT_VIDEO = 16
TOKENIZER = "tokenizer.json"
Embed = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Question:
    """A prompt with its share of the clip.

    Attributes:
        prompt: its tokens.
        video: [V, d] float32, the video tokens that it gets.
    """

    prompt: Prompt
    video: np.ndarray

    def embeddings(self, embed: Embed, prefix: np.ndarray) -> np.ndarray:
        """The whole sequence, [L, d] float32."""
        head, between, tail = (embed(ids) for ids in (self.prompt.head, self.prompt.between, self.prompt.tail))
        return np.concatenate([head, prefix, between, self.video, tail])


@dataclass(frozen=True)
class LanguageComparison:
    """Language models against one checkpoint.

    Attributes:
        checkpoint: where the weights and the tokenizer are.
        inventory: names and sizes of the checkpoint.
        reference: PyTorch's side.
        material: scene and clip.
        prefix: [latents, d] float32, what PyTorch's aligner makes of them.
        video: [V, d] float32, what PyTorch's tower makes of the clip.
        prompts: the questions' tokens.
        positions: longest prompt; what is too long is cut from the clip.
    """

    checkpoint: Checkpoint
    inventory: Inventory
    reference: Reference
    material: Material
    prefix: np.ndarray
    video: np.ndarray
    prompts: list[Prompt]
    positions: int

    def rows(self, setup: Setup) -> Iterator[Row]:
        """All comparisons of one language model."""
        quant, path = setup.quant, setup.bundle.file(setup.llm.file)
        kind = setup.llm.type or quant
        file = GgufFile(path, gguf_names(self.inventory.used["llm"], self.inventory.geometry.llm))
        tokenizer = Tokenizer.read(self.checkpoint, self.inventory.geometry.llm.vocabulary)
        faults = list(file.faults(self.reference.config, tokenizer))
        stated = faults[0] if faults else "sizes, constants and tokens as the checkpoint has them"
        yield Row(quant, "header", not faults, stated)
        yield compare_weights(setup, self.checkpoint, self.inventory)
        if any(fault.startswith("tokenizer.") for fault in faults):
            return  # libllama ends the process where a vocabulary contradicts itself
        yield self._tokens(quant, path)
        yield self._words(setup)
        ours = self._run(setup)
        if kind in PLAIN:
            limit = STAGES["prefill"].tolerances[kind]
            row = Row.compare(quant, "prefill", ours, self._expected, limit)
            prompts = self._embedded(self._questions, self.reference.embed)
            row = self._following(row, limit, file, prompts, self._expected)
            yield replace(row, limit=f"{row.limit} {BF16_NOTE}") if kind == "BF16" else row
            return
        yield self._graph(quant, file, ours)
        yield Row.compare(quant, "loss", ours, self._expected, LOSSES[kind]).with_tokens(ours, self._expected)

    @cached_property
    def _questions(self) -> list[Question]:
        """The first question with the whole prompt and as much of the clip as there is room for, the others short."""
        first, *others = self.prompts
        room = max(self.positions - len(first) - len(self.prefix), 1)
        questions, begin = [Question(first, self.video[:room])], room
        for prompt in others:
            short = replace(prompt, head=prompt.head[prompt.user_start :], user_start=0)
            begin = begin if begin < len(self.video) else 0
            questions.append(Question(short, self.video[begin : begin + SHORT_VIDEO]))
            begin += SHORT_VIDEO
        return questions

    @cached_property
    def _expected(self) -> np.ndarray:
        """PyTorch's logits [P, vocabulary] with the checkpoint's weights."""
        return self.reference.logits(self._embedded(self._questions, self.reference.embed))

    def _embedded(self, questions: list[Question], embed: Embed) -> list[np.ndarray]:
        return [question.embeddings(embed, self.prefix) for question in questions]

    def _run(self, setup: Setup) -> np.ndarray:
        """Libllama's logits [P, vocabulary] of all prompts."""
        longest = max(len(question.prompt) + len(self.prefix) + len(question.video) for question in self._questions)
        found = []
        with Stages(replace(setup, outputs=KEPT_POSITIONS)) as stages, stages.speaker.load(longest) as model:
            for question in self._questions:
                model.restart(longest)
                stages.prefill(model, question.prompt.segments(self.prefix, question.video))
                found.append(model.last_logits())
        return np.concatenate(found)

    def _tokens(self, quant: str, path: Path) -> Row:
        """Token ids by libllama against those of the tokenizer's own implementation."""
        if self.checkpoint.find(TOKENIZER) is None:
            return Row(quant, "prompt", None, f"no {TOKENIZER} to compare with")
        with Vocabulary(path) as vocabulary:
            same = ask(vocabulary.tokenize, self.material) == self.prompts
        return Row(quant, "prompt", same, "token ids identical")

    def _words(self, setup: Setup) -> Row:
        """The rows that the runtime reads from the file for the aligner."""
        ids = self.prompts[0].aligner_token_ids
        with Stages(setup) as stages:
            ours = stages.embed(ids)
        limit = Tolerance.around(WEIGHT_LIMITS[setup.llm.embedding.type])
        return Row.compare(setup.quant, "words", ours, self.reference.embed(ids), limit)

    def _graph(self, quant: str, file: GgufFile, ours: np.ndarray) -> Row:
        """Libllama against PyTorch with the very weights that the file holds, on the short prompts."""

        def embed(ids: Sequence[int]) -> np.ndarray:
            return file.rows(EMBEDDING, list(ids))

        prompts = self._embedded(self._questions[1:], embed)
        exact = self.reference.logits(prompts, file)
        limit = STAGES["prefill"].tolerances[GRAPH]
        row = Row.compare(quant, "graph", ours[-len(exact) :], exact, limit)
        return self._following(row, limit, file, prompts, exact)

    def _following(
        self, row: Row, limit: Tolerance, file: GgufFile, prompts: list[np.ndarray], exact: np.ndarray
    ) -> Row:
        """Where it is further off than usual, the limit is what rounding activations costs PyTorch."""
        if row.passed or row.part not in MOST_ACTIVATION_COSTS or not np.isfinite(row.rel_rms):
            return row

        def rounding(name: str, values: Tensor) -> Tensor:
            return ACTIVATIONS.get(file.kind(name), Tensor.clone)(values)

        rounded = self.reference.logits(prompts, file, rounding)
        cost, most = relative(rounded, exact), MOST_ACTIVATION_COSTS[row.part]
        return row.following(cost, ACTIVATION_FACTOR, least=limit, most=most)


def reference_prompts(checkpoint: Checkpoint, setup: Setup, material: Material) -> list[Prompt]:
    """The questions as the checkpoint's own tokenizer has them, or else that of a language model."""
    if checkpoint.find(TOKENIZER) is not None:
        return ask(cache(lambda text, special=True: reference_ids(checkpoint, text, special) or []), material)
    with Vocabulary(setup.bundle.file(setup.llm.file)) as vocabulary:
        return ask(vocabulary.tokenize, material)


def ask(tokenize: Tokenize, material: Material) -> list[Prompt]:
    """All questions as a tokenizer has them."""
    return [build_prompt(question, tokenize, timing=material.timing) for question in QUESTIONS]


def compare_weights(setup: Setup, checkpoint: Checkpoint, inventory: Inventory) -> Row:
    """The tensor of the GGUF file that is furthest from the checkpoint, for its type."""
    errors = weight_errors(setup.bundle.file(setup.llm.file), checkpoint, inventory)
    types = [re.sub("_[SML]$", "", setup.llm.type or setup.quant), *setup.llm.overrides.values()]
    coarsest = max(WEIGHT_LIMITS.get(kind, MOST_WEIGHT_LIMIT) for kind in types)
    for name, (kind, error) in errors.items():
        most = coarsest if len(checkpoint.shape(name)) > 1 else WEIGHT_LIMITS["F32"]
        if WEIGHT_LIMITS.get(kind, MOST_WEIGHT_LIMIT) > most:
            return Row(setup.quant, "weights", False, f"{name} is {kind}, too coarse for this type", error)
    name, (kind, error) = max(errors.items(), key=lambda item: item[1][1] / WEIGHT_LIMITS[item[1][0]])
    bound = WEIGHT_LIMITS[kind]
    return Row(setup.quant, "weights", bool(error <= bound), f"rel-rms <= {bound:g} for {kind} ({name})", error)
