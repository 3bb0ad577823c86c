"""What real inputs do to each product of an encoder: ranges, channels, and rows to try number formats on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx.graphs import Projection

__all__ = ["Observation", "observe"]

# of one run, and of all: enough to tell formats apart, and little beside the weights
ROWS_A_RUN, ROWS = 16, 192


@dataclass
class Observation:
    """One product's inputs and results over a calibration set.

    Attributes:
        lows: [in] least value of each input channel, or 0.
        highs: [in] greatest value of each, or 0.
        kept: some input rows of each run, [R, in] each.
    """

    lows: Tensor
    highs: Tensor
    kept: list[Tensor] = field(default_factory=list)

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
        return Observation(self.lows / factors, self.highs / factors, [self.rows / factors])

    @property
    def rows(self) -> Tensor:
        """[R, in] input rows, evenly from all runs."""
        rows = torch.cat(self.kept)
        return rows[torch.linspace(0, len(rows) - 1, min(ROWS, len(rows))).long()]

    def add(self, inputs: Tensor) -> None:
        """Count one run."""
        rows = inputs.flatten(0, -2)
        if not len(rows):
            return
        self.lows, self.highs = torch.minimum(self.lows, rows.amin(dim=0)), torch.maximum(self.highs, rows.amax(dim=0))
        self.kept.append(rows[torch.linspace(0, len(rows) - 1, min(ROWS_A_RUN, len(rows))).long()].clone())
        if sum(map(len, self.kept)) > 2 * ROWS:
            self.kept = [self.rows]


@contextmanager
def observe(module: nn.Module) -> Iterator[dict[str, Observation]]:
    """Observe each product with a weight [in, out] below a module, while inside; by the weight's name."""
    seen: dict[str, Observation] = {}
    hooks = []

    def watch(name: str, projection: Projection) -> Any:
        seen[name] = Observation(*torch.zeros(2, projection.weight.shape[0]))

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name].add(inputs[0])

        return projection.register_forward_hook(hook)

    for path, submodule in module.named_modules():
        if isinstance(submodule, Projection):
            hooks.append(watch(f"{path}.weight", submodule))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
