"""The next token, chosen from logits: the best, or a draw by libllama, within a grammar if there is one."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadInput, require_at_least
from .grammar import choices_grammar, schema_grammar
from .libllama import libllama
from .vocabulary import Vocabulary

__all__ = ["Sampler", "Sampling"]

# libllama's own number for a seed that is drawn
MOST_SEED = 2**32 - 2
# tokens that a penalty looks back on: libllama's default
PENALTY_LAST = 64
CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults take the best token each time.

    Attributes:
        temperature: 0 for the best token, else logits are divided by it before the draw.
        top_k: draw among so many of the best tokens; 0 for all.
        top_p: draw among the fewest best tokens that have this probability together; 1 for all.
        min_p: leave out tokens with less than this share of the best one's probability; 0 for none.
        repetition_penalty: logits of the last 64 tokens of the answer are divided by it, or multiplied where they are
            negative; 1 for none.
        seed: of the draws.
        stop: texts that end an answer; they are not part of it.
        choices: the only answers that are possible, if any.
        json_schema: JSON text of a schema that the answer keeps to, if any.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: str | None = None

    def check(self) -> None:
        """Raise BadInput for a value that is out of range, or for two grammars."""
        require_at_least({"--seed": (self.seed, 0), "--top-k": (self.top_k, 0)})
        if self.seed > MOST_SEED:
            raise BadInput(f"--seed {self.seed}: expected at most {MOST_SEED}")
        if not 0 <= self.temperature < float("inf"):
            raise BadInput(f"--temperature {self.temperature}: expected a number that is at least 0")
        for option, share in (("--top-p", self.top_p), ("--min-p", self.min_p)):
            if not 0 <= share <= 1:
                raise BadInput(f"{option} {share}: expected a number from 0 to 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise BadInput(f"--repetition-penalty {self.repetition_penalty}: expected a number above 0; 1 for none")
        if any(not text for text in self.stop):
            raise BadInput("--stop: an empty text would end every answer at once")
        if self.choices and self.json_schema is not None:
            raise BadInput("--choices and --json-schema are both given; give one")
        # what cannot be a grammar is said before anything is computed
        _ = self.grammar

    @property
    def grammar(self) -> str | None:
        """What the answer keeps to, in llama.cpp's notation; None where it is free."""
        if self.choices:
            return choices_grammar(self.choices)
        return None if self.json_schema is None else schema_grammar(self.json_schema)


class Sampler:
    """Chooses the tokens of one answer; as a context manager, it frees what libllama holds for it."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, stop_ids: Sequence[int] = ()):
        """Make the chain of samplers that is needed.

        Args:
            sampling: how to choose.
            vocabulary: the tokens.
            stop_ids: tokens that end an answer, which a grammar allows where it is complete.

        Raises:
            BadInput: libllama refuses the grammar, or no token begins what it allows.
        """
        self._sampling, self._vocabulary, self._llama = sampling, vocabulary, libllama()
        self._grammar = vocabulary.grammar(sampling.grammar) if sampling.grammar is not None else None
        self._stop_ids = stop_ids
        self._penalties, self._draw = self._samplers(len(vocabulary))
        self._held = np.zeros(0, CANDIDATE)
        if self._grammar is not None and not np.isfinite(self._allowed(np.zeros(len(vocabulary), np.float32))).any():
            self.close()
            raise BadInput("--choices or --json-schema: no answer is possible, since no token begins what it allows")

    def __call__(self, logits: np.ndarray) -> int:
        """The next token of logits [vocabulary] float32, whose successors are then chosen by it."""
        values = self._penalised(logits)
        token = int(values.argmax())
        if self._grammar is not None and not (self._sampling.temperature == 0 and self._takes(token)):
            values = self._allowed(values)
            token = int(values.argmax())
        if self._sampling.temperature > 0:
            # only differences count, and so a tiny temperature makes no quotient infinite but those of others
            token = self._apply(self._draw, values - values.max())
        if self._grammar is not None and self._vocabulary.ends(token):
            # the grammar is complete, by whichever of the tokens that end an answer
            return token if token in self._stop_ids else self._stop_ids[0]
        for sampler in (self._grammar, self._penalties):
            if sampler is not None:
                self._llama.llama_sampler_accept(sampler, token)
        return token

    def _penalised(self, logits: np.ndarray) -> np.ndarray:
        if self._penalties is None:
            return logits
        candidates = self._candidates(logits)
        self._run(self._penalties, candidates)
        penalised = logits.copy()
        penalised[candidates["id"]] = candidates["logit"]
        return penalised

    def _takes(self, token: int) -> bool:
        """Whether the grammar allows a token, without looking at all others."""
        one = np.zeros(1, CANDIDATE)
        one["id"] = token
        self._run(self._grammar, one)
        return bool(np.isfinite(one["logit"][0]))

    def _allowed(self, logits: np.ndarray) -> np.ndarray:
        """Logits with minus infinity for what the grammar does not allow."""
        candidates = self._candidates(logits)
        self._run(self._grammar, candidates)
        allowed = np.full_like(logits, -np.inf)
        allowed[candidates["id"]] = candidates["logit"]
        return allowed

    def _apply(self, samplers: Any, logits: np.ndarray) -> int:
        candidates = self._candidates(logits)
        chosen = self._run(samplers, candidates)
        return int(candidates["id"][chosen])

    def _candidates(self, logits: np.ndarray) -> np.ndarray:
        if len(self._held) != len(logits):
            self._held = np.zeros(len(logits), CANDIDATE)
        self._held["id"] = np.arange(len(logits))
        self._held["logit"] = logits
        return self._held

    def _run(self, sampler: Any, candidates: np.ndarray) -> int:
        """Let libllama work on candidates in their place; returns which it selected."""
        pointer = candidates.ctypes.data_as(self._llama.llama_token_data_p)
        array = self._llama.llama_token_data_array(data=pointer, size=len(candidates), selected=-1, sorted=False)
        self._llama.llama_sampler_apply(sampler, ctypes.byref(array))
        return int(array.selected)

    def _samplers(self, vocabulary: int) -> tuple[Any, Any]:
        """A sampler for repetitions, and a chain for draws; None where nothing is asked of them."""
        llama, asked = self._llama, self._sampling
        penalties = None
        if asked.repetition_penalty != 1:
            penalties = llama.llama_sampler_init_penalties(vocabulary, PENALTY_LAST, asked.repetition_penalty, 0.0, 0.0)
        if asked.temperature == 0:
            return penalties, None
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        # in llama.cpp's order
        for made in (
            llama.llama_sampler_init_top_k(asked.top_k) if asked.top_k else None,
            llama.llama_sampler_init_top_p(asked.top_p, 1) if asked.top_p < 1 else None,
            llama.llama_sampler_init_min_p(asked.min_p, 1) if asked.min_p else None,
            llama.llama_sampler_init_temp(asked.temperature),
            llama.llama_sampler_init_dist(asked.seed),
        ):
            if made is not None:
                llama.llama_sampler_chain_add(chain, made)
        return penalties, chain

    def close(self) -> None:
        """Free what libllama holds."""
        for sampler in (self._grammar, self._penalties, self._draw):
            if sampler is not None:
                self._llama.llama_sampler_free(sampler)
        self._grammar = self._penalties = self._draw = None

    def __enter__(self) -> "Sampler":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
