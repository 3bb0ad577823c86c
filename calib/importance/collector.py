"""Sums of squares of what enters each product of the language model, layer by layer, so that one layer is in memory.

The definition is that of llama.cpp's collector: per column of a weight, over all positions of all prompts, in the
language model without loss; its names, without the output matrix unless that is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.geometry import Inventory
from ...export.gguf.matrix import Matrix
from ...export.gguf.writer import gguf_names
from ...export.model.peers import qwen2_config
from ...export.model.streaming import Stored, StreamedQwen2
from ...runtime.bundle.files import atomic_path
from ...runtime.console import Progress
from ...runtime.errors import BadInput
from .prompts import CLASSES, PromptStore

__all__ = ["Collector", "Sums", "combined"]

STATE = "sums.npz"
ROWS_AT_ONCE = 1024
OUTPUT = "output.weight"


@dataclass(frozen=True)
class Sums:
    """What was collected.

    Attributes:
        squares: by the tensor's name in GGUF, [classes, columns] float64.
        counts: [classes], positions of each class.
    """

    squares: dict[str, np.ndarray]
    counts: np.ndarray

    def of(self, weights: Mapping[str, float], described: Mapping[str, Any]) -> Matrix:
        """A matrix in which each class counts so many times; `described` are the matrix's other fields."""
        factors = np.array([weights.get(name, 0.0) for name in CLASSES])
        sums = {name: (factors @ squares)[None].astype(np.float32) for name, squares in self.squares.items()}
        counts = np.array([float(factors @ self.counts)], np.float32)
        return Matrix(sums, dict.fromkeys(sums, counts), **described)


@dataclass(frozen=True)
class Collector:
    """Prompts through one checkpoint's language model.

    Attributes:
        checkpoint: whose.
        inventory: its names and sizes.
        store: the prompts; what a layer makes of them is kept beside them.
        output: whether the output matrix counts too.
        progress: where to report.
    """

    checkpoint: Checkpoint
    inventory: Inventory
    store: PromptStore
    output: bool
    progress: Progress

    def run(self) -> Sums:
        """Collect, from the first layer that is not done.

        Raises:
            BadInput: weights or activations are not finite; the message names the tensor.
        """
        names = {old: new for new, old in gguf_names(self.inventory.used["llm"], self.inventory.geometry.llm).items()}
        done, squares = self._state()
        kinds = [torch.from_numpy(classes.astype(np.int64)) for classes in self.store.classes()]
        model = StreamedQwen2(qwen2_config(self.checkpoint), Checked(self.checkpoint), self.progress)
        for layer in model.layers(done):
            before, after = self.store.hidden(layer.index), self.store.hidden(layer.index + 1, "w+")
            for rows, made, classes in zip(before, after, kinds, strict=True):
                with layer.watched(self._adder(names, squares, classes)):
                    made[:] = layer(torch.from_numpy(np.array(rows))).numpy()
            self._keep(layer.index + 1, squares)
        if self.output and OUTPUT not in squares:
            add = self._adder({"output.weight": OUTPUT}, squares)
            for rows, classes in zip(self.store.hidden(model.config.num_hidden_layers), kinds, strict=True):
                add("output.weight", model.normed(torch.from_numpy(np.array(rows))), classes)
        counts = np.bincount(np.concatenate(self.store.classes()), minlength=len(CLASSES)).astype(np.float64)
        return Sums(squares, counts)

    def _adder(
        self, names: Mapping[str, str], squares: dict[str, np.ndarray], classes: Tensor | None = None
    ) -> Callable[..., None]:
        """A function that adds what enters the product with the weight of a name, a prompt's parts in their order."""
        seen: dict[str, int] = {}

        def add(name: str, values: Tensor, kinds: Tensor | None = classes) -> None:
            assert kinds is not None
            rows = values.reshape(-1, values.shape[-1])
            begin = 0 if classes is None else seen.get(name, 0)
            seen[name] = begin + len(rows)
            here = kinds[begin : begin + len(rows)]
            sums = torch.zeros(len(CLASSES), rows.shape[1], dtype=torch.float64)
            for part, kind in zip(rows.split(ROWS_AT_ONCE), here.split(ROWS_AT_ONCE), strict=True):
                sums.index_add_(0, kind, part.double().square())
            if not torch.isfinite(sums).all():
                raise BadInput(f"what enters {names[name]} ({name}) is NaN or infinite; is the checkpoint damaged?")
            squares[names[name]] = squares.get(names[name], 0) + sums.numpy()

        return add

    def _state(self) -> tuple[int, dict[str, np.ndarray]]:
        """Layers that are done, and their sums."""
        file = self.store.folder / STATE
        if not file.exists():
            return 0, {}
        with np.load(file, allow_pickle=False) as kept:
            return int(kept["done"]), {name: kept[name] for name in kept.files if name != "done"}

    def _keep(self, done: int, squares: Mapping[str, np.ndarray]) -> None:
        with atomic_path(self.store.folder / STATE) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {"done": np.array(done), **squares}
            np.savez(file, **arrays)


class Checked(Stored):
    """A checkpoint's weights, each of which is looked at."""

    def tensor(self, name: str) -> Tensor:
        """A weight; raises BadInput when values are NaN or infinite."""
        found = super().tensor(name)
        if not all(torch.isfinite(part).all() for part in found.split(ROWS_AT_ONCE)):
            raise BadInput(f"values of {name} are NaN or infinite")
        return found


def combined(sums: Sums, weights: Mapping[str, float], described: Mapping[str, Any], out: Path) -> None:
    """Write the matrix, and one of each class that has positions beside it, so that others can be added up."""
    sums.of(weights, described).write(out)
    for name, count in zip(CLASSES, sums.counts, strict=True):
        if count and sum(sums.counts > 0) > 1:
            sums.of({name: 1.0}, described).write(out.with_suffix(f".{name}.gguf"))
