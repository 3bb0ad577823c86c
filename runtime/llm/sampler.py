"""The next token, chosen from logits: the best, or a draw by libllama, within a grammar if there is one."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import BadInput
from .libllama import libllama
from .sampling import Sampling
from .vocabulary import Vocabulary

__all__ = ["Sampler"]

# tokens that a penalty looks back on: libllama's default
PENALTY_LAST = 64
CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


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
