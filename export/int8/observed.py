"""What real inputs do to each product of an encoder: ranges, channels, and rows to try number formats on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx.graphs import Projection
from ..onnx.sparse import ChildrenConv, GatherConv, Pointwise, RunConv, gathered_rows

__all__ = ["Observation", "observe"]

# of one run, and of all: enough to tell formats apart, and little beside the weights
ROWS_A_RUN, ROWS = 16, 192
# those with the largest values are few, and attention looks for them: a range that cuts them off shows here alone
LOUD_A_RUN, LOUD = 16, 64
# modules of one product; the sparse convolutions that gather their kernels too are not among them
PRODUCTS = (Projection, GatherConv, RunConv, ChildrenConv, Pointwise)


@dataclass
class Observation:
    """One product's inputs and results over a calibration set.

    Attributes:
        lows: [in] least value of each input channel, or 0.
        highs: [in] greatest value of each, or 0.
        kept: some input rows of each run, [R, in] each.
        loud: the input rows with the largest values, [R, in] each.
    """

    lows: Tensor
    highs: Tensor
    kept: list[Tensor] = field(default_factory=list)
    loud: list[Tensor] = field(default_factory=list)

    @property
    def channels(self) -> Tensor:
        """[in] largest magnitude of each input channel."""
        return torch.maximum(-self.lows, self.highs)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest input."""
        return float(self.lows.min()), float(self.highs.max())

    def divided(self, factors: Tensor) -> "Observation":
        """The same inputs with each channel divided by its factor, [in]."""
        loud = [rows / factors for rows in self.loud]
        return Observation(self.lows / factors, self.highs / factors, [self.rows / factors], loud)

    @property
    def rows(self) -> Tensor:
        """[R, in] input rows, evenly from all runs."""
        rows = torch.cat(self.kept)
        return rows[torch.linspace(0, len(rows) - 1, min(ROWS, len(rows))).long()]

    @property
    def loudest(self) -> Tensor:
        """[R, in] the rows with the largest values of all runs."""
        rows = torch.cat(self.loud)
        return rows[loudest(rows.abs().amax(dim=1), LOUD)]

    def add(self, rows: Tensor, loud: Tensor, lows: Tensor, highs: Tensor) -> None:
        """Count one run: some of its rows, those with the largest values, and the bounds of all."""
        self.lows, self.highs = torch.minimum(self.lows, lows), torch.maximum(self.highs, highs)
        self.kept.append(rows.clone())
        self.loud.append(loud.clone())
        if sum(map(len, self.kept)) > 2 * ROWS:
            self.kept = [self.rows]
        if sum(map(len, self.loud)) > 2 * LOUD:
            self.loud = [self.loudest]


@contextmanager
def observe(module: nn.Module) -> Iterator[dict[str, Observation]]:
    """Observe each product with one weight [in, out] below a module, while inside; by the weight's name."""
    seen: dict[str, Observation] = {}
    hooks = []

    def watch(name: str, weight: Tensor) -> Callable[..., None]:
        seen[name] = Observation(*torch.zeros(2, weight.shape[0]))

        def hook(submodule: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
            if len(inputs[0]):
                seen[name].add(*factors(submodule, inputs))

        return hook

    for path, submodule in module.named_modules():
        for name, weight in submodule.named_parameters(recurse=False):
            if isinstance(submodule, PRODUCTS) and name in ("weight", "kernel"):
                hooks.append(submodule.register_forward_hook(watch(f"{path}.{name}", weight)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def factors(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some rows [R, in] of what a module multiplies by its weight, the loudest, and the bounds [in] of all and 0."""
    hidden = inputs[0].flatten(0, -2)
    lows, highs = hidden.amin(dim=0).clamp_max(0), hidden.amax(dim=0).clamp_min(0)
    largest = hidden.abs().amax(dim=1, keepdim=True)
    if isinstance(module, GatherConv):
        table = inputs[1]
        magnitudes = gathered_rows(largest, table).amax(dim=1)
    elif isinstance(module, RunConv):
        runs, table = inputs[1]
        hidden = gathered_rows(hidden, runs)
        magnitudes = gathered_rows(gathered_rows(largest, runs).amax(dim=1, keepdim=True), table).amax(dim=1)
    else:
        table, magnitudes = None, largest[:, 0]
    places = evenly(len(magnitudes)), loudest(magnitudes, LOUD_A_RUN)
    rows, loud = (hidden[place] if table is None else gathered_rows(hidden, table[place]) for place in places)
    # what is gathered has the channels once for each neighbour
    times = rows.shape[1] // len(lows)
    return rows, loud, lows.repeat(times), highs.repeat(times)


def evenly(count: int) -> Tensor:
    """Places of some rows, evenly from all."""
    return torch.linspace(0, count - 1, min(ROWS_A_RUN, count)).long()


def loudest(magnitudes: Tensor, count: int) -> Tensor:
    """Places of the largest, in their order."""
    return magnitudes.topk(min(count, len(magnitudes))).indices.sort().values
