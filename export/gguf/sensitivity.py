"""What types of tensors cost a language model, measured: the divergence of its next tokens on prompts, in PyTorch.

Many assignments of types go through the model side by side, a layer of float32 in memory at a time; each tensor is
rounded by GGML itself when its layer's turn comes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..model.peers import qwen2_config
from ..model.streaming import Stored, StreamedLayer, StreamedQwen2
from .prompts import Prompt
from .types import EMBEDDING, rounded

__all__ = ["Sensitivity"]

# of a matrix, spread over it, on which types are compared
SAMPLED_ROWS = 256
OUTPUT = "output.weight"
Types = Mapping[str, str]
Errors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Sensitivity:
    """One language model and the prompts on which types are judged.

    Attributes:
        checkpoint: where the weights are.
        names: the checkpoint's names by those in GGUF.
        prompts: what goes in.
        importance: [columns] float32 by name in GGUF, as the quantiser will get it.
        progress: where to report.
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    prompts: Sequence[Prompt]
    importance: Mapping[str, np.ndarray]
    progress: Progress

    def errors(self, choices: Mapping[str, Sequence[str]]) -> Errors:
        """What rounding changes at the output of each matrix, by matrix and type: squares in a mean over sampled rows.

        Args:
            choices: types that a matrix may have, by its name in GGUF.
        """
        model, found = self._model, Errors()
        squares: dict[str, Tensor] = {}

        def look(name: str, values: Tensor) -> None:
            rows = values.reshape(-1, values.shape[-1]).double().square()
            squares[name] = squares.get(name, 0) + rows.sum(dim=0)

        hidden = [prompt.embeddings for prompt in self.prompts]
        for layer in model.layers():
            with layer.watched(look):
                hidden = [layer(rows) for rows in hidden]
        if OUTPUT in self.names:
            look(self.names[OUTPUT], model.normed(torch.cat(hidden)))
        for name, types in choices.items():
            stored = self.checkpoint.tensor(self.names[name])
            places = np.unique(np.linspace(0, len(stored) - 1, SAMPLED_ROWS).astype(int))
            values = stored[torch.from_numpy(places)].float()
            # the embedding matrix is read, not multiplied
            power = squares.get(self.names[name], torch.ones(values.shape[1], dtype=torch.float64))
            found[name] = {
                kind: float(((self._rounded(name, values, kind) - values).double().square() @ power).mean())
                for kind in types
            }
        return found

    def divergences(self, assignments: Sequence[Types]) -> list[float]:
        """Mean Kullback-Leibler divergence of the next token from the exact model's, nats, under each assignment.

        Args:
            assignments: types of what is rounded, by name in GGUF; all else is exact.
        """
        model, exact = self._model, [prompt.embeddings for prompt in self.prompts]
        # None while all is as in the exact model
        changed = [self._embedded(types.get(EMBEDDING)) for types in assignments]
        for layer in model.layers():
            after = [layer(rows) for rows in exact]
            for place, types in enumerate(assignments):
                with self._replaced(layer, types) as replaced:
                    if (before := changed[place]) is not None or replaced:
                        changed[place] = [layer(rows) for rows in before or exact]
            exact = after
        last = model.normed(torch.cat(exact))
        ends = [last if rows is None else model.normed(torch.cat(rows)) for rows in changed]
        return self._compared(model, last, ends, assignments)

    @property
    def _model(self) -> StreamedQwen2:
        return StreamedQwen2(qwen2_config(self.checkpoint), Stored(self.checkpoint), self.progress)

    def _embedded(self, kind: str | None) -> list[Tensor] | None:
        """The prompts where the embedding matrix has a type."""
        if kind is None:
            return None
        found = []
        for prompt in self.prompts:
            rows = prompt.embeddings.clone()
            rows[prompt.text] = self._rounded(EMBEDDING, rows[prompt.text], kind)
            found.append(rows)
        return found

    @contextmanager
    def _replaced(self, layer: StreamedLayer, types: Types) -> Iterator[bool]:
        """Round what has a type in this layer, and take it back; tells whether something has."""
        prefix = f"model.layers.{layer.index}."
        held = layer.module.state_dict()
        here = {name: self.names[name].removeprefix(prefix) for name in types if self.names[name].startswith(prefix)}
        with torch.inference_mode():
            for name, place in here.items():
                held[place].copy_(self._rounded(name, held[place], types[name]))
        yield bool(here)
        with torch.inference_mode():
            for name, place in here.items():
                held[place].copy_(self.checkpoint.tensor(self.names[name]))

    def _rounded(self, name: str, values: Tensor, kind: str) -> Tensor:
        return torch.from_numpy(rounded(values.numpy(), kind, self.importance.get(name)))

    def _compared(
        self, model: StreamedQwen2, exact: Tensor, ends: Sequence[Tensor], assignments: Sequence[Types]
    ) -> list[float]:
        """Divergences of what enters the output matrix, [P, d] each; a block of the vocabulary at a time."""
        name = OUTPUT if OUTPUT in self.names else EMBEDDING
        sums = [Divergence(len(exact)) for _ in ends]
        with torch.inference_mode():
            for block in model.weights.blocks(self.names[name]):
                rows = block.float()
                theirs = (exact @ rows.T).double().numpy()
                for total, values, types in zip(sums, ends, assignments, strict=True):
                    changed = self._rounded(name, rows, types[name]) if name in types else rows
                    total.add((values @ changed.T).double().numpy(), theirs)
        return [total.mean() for total in sums]


class Divergence:
    """Kullback-Leibler divergence of positions whose logits come in blocks of the vocabulary."""

    def __init__(self, positions: int):
        """Nothing seen yet."""
        self._ours, self._theirs = np.full(positions, -np.inf), np.full(positions, -np.inf)
        self._difference = np.zeros(positions)

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Count a block of logits [P, words] float64."""
        before, block = self._theirs, np.logaddexp.reduce(theirs, axis=1)
        self._ours = np.logaddexp(self._ours, np.logaddexp.reduce(ours, axis=1))
        self._theirs = np.logaddexp(before, block)
        share = np.exp(theirs - self._theirs[:, None])
        self._difference *= np.exp(before - self._theirs)
        self._difference += np.einsum("nv,nv->n", share, theirs - ours)

    def mean(self) -> float:
        """Over all positions, nats."""
        return float((self._difference - self._theirs + self._ours).mean())
