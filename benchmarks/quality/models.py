"""Language models that go through the same prompt in the same steps, and give the logits of every position."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.model.peers import qwen2_config
from ...export.model.streaming import Stored, StreamedQwen2, token_embeddings
from ...runtime.console import Progress
from ...runtime.llm.model import LanguageModel
from ...runtime.setup import Setup

__all__ = ["STEP", "Libllama", "Model", "Piece", "PyTorch"]

# positions whose logits are in memory at once
STEP = 64


@dataclass(frozen=True)
class Piece:
    """Positions of a prompt: token ids [n], or embeddings [n, d] float32."""

    ids: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids if self.ids is not None else self.embeddings)  # type: ignore[arg-type]


class Model(Protocol):
    """Gives the logits [n, vocabulary] float32 of all positions of a prompt, at most `STEP` at a time."""

    def logits(self, pieces: Sequence[Piece]) -> Iterator[np.ndarray]: ...
    def close(self) -> None: ...


class Libllama(AbstractContextManager[None]):
    """A language model of a bundle."""

    def __init__(self, setup: Setup, positions: int):
        """Load it; `positions` is the longest prompt that is expected."""
        # weights are used as they are mapped: a packed copy rounds the same, and takes as much memory again
        self._model: LanguageModel = replace(setup, outputs=STEP, repack=False).load_llm(positions)

    def logits(self, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
        """As `Model.logits`."""
        self._model.restart(sum(map(len, pieces)))
        for piece in pieces:
            for start in range(0, len(piece), STEP):
                if piece.ids is not None:
                    part = piece.ids[start : start + STEP]
                    self._model.decode_tokens(part)
                else:
                    assert piece.embeddings is not None
                    part = piece.embeddings[start : start + STEP]
                    self._model.decode_embeddings(part)
                yield self._model.last_logits()[-len(part) :]

    def close(self) -> None:
        """Free it."""
        self._model.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class PyTorch:
    """The checkpoint's own language model, a layer in memory at a time."""

    checkpoint: Checkpoint

    def logits(self, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
        """As `Model.logits`."""
        model = StreamedQwen2(qwen2_config(self.checkpoint), Stored(self.checkpoint), Progress(quiet=True))
        rows = [
            torch.from_numpy(np.ascontiguousarray(piece.embeddings, np.float32))
            if piece.ids is None
            else token_embeddings(self.checkpoint, torch.from_numpy(np.asarray(piece.ids, np.int64)))
            for piece in pieces
        ]
        (hidden,) = model.hidden([torch.cat(rows)])
        values = model.normed(hidden)
        for part in values.split([len(piece) for piece in pieces]):
            for step in part.split(STEP):
                if len(step):
                    yield model.output(step).numpy()

    def close(self) -> None:
        """Nothing is kept."""
