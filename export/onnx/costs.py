"""What a number format costs an encoder in PyTorch: limits follow it, and where it costs too much it is not used."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...runtime.bundle.manifest import ENCODERS
from ...runtime.bundle.table import MOST_ATTENTION_COST
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..comparison import relative
from ..model.parts import load_part
from ..model.rounding import half_attention, halve_products
from .graphs import GRAPHS, Attention, transpose_linears
from .inputs import EncoderInputs

__all__ = ["Costs", "exact_attentions", "fuse", "halve"]

LOG = logging.getLogger(__name__)
Change = Callable[[str, nn.Module], None]


class Costs:
    """Runs the encoders as they are traced, once as they are and once changed, one in memory at a time."""

    def __init__(self, checkpoint: Checkpoint, inventory: Inventory, inputs: EncoderInputs):
        self.checkpoint, self.inventory, self.inputs = checkpoint, inventory, inputs
        self._plain: dict[str, Tensor] = {}

    def of(self, stage: str, change: Change) -> float:
        """What a change of the modules makes of an encoder's output, rel-rms; those before it are changed too."""
        changed: dict[str, Tensor] = {}
        for name in ENCODERS if stage == "aligner" else (stage,):
            if name not in self._plain:
                self._plain[name] = self._output(name, self._plain, lambda name, module: None)
            changed[name] = self._output(name, changed, change)
        return relative(changed[stage].numpy(), self._plain[stage].numpy())

    def _output(self, name: str, outputs: Mapping[str, Tensor], change: Change) -> Tensor:
        module = GRAPHS[name](load_part(self.checkpoint, self.inventory, name))
        transpose_linears(module)
        change(name, module)
        with torch.inference_mode():
            return run(module, self.inputs.of(name, outputs))


def run(module: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """A module's output in its own type, frame by frame where it takes frames."""
    dtype = next(module.parameters()).dtype
    cast = {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    if "frames" in cast:
        return torch.cat([module(frames=frame) for frame in cast["frames"].split(1)])
    output: Tensor = module(**cast)
    return output


def attentions(module: nn.Module) -> dict[str, Attention]:
    """The attentions of a traced encoder by their path in it."""
    return {path: found for path, found in module.named_modules() if isinstance(found, Attention)}


def halve(module: nn.Module, weights: set[str], exact: Iterable[str]) -> None:
    """Give products with these weights, and attention between them, FP16 factors; attention at `exact` has none."""
    halve_products(module, weights)
    for path, attention in attentions(module).items():
        if path not in exact and all(f"{path}.{name}" in weights for name in attention.projections()):
            attention.mix = half_attention


def fuse(module: nn.Module, exact: Iterable[str]) -> None:
    """Give attention FP16 factors in a float32 module, as TensorRT fuses it; attention at `exact` keeps float32."""
    for path, attention in attentions(module).items():
        if path not in exact:
            attention.mix = half_attention


def exact_attentions(module: nn.Module, inputs: Mapping[str, Any]) -> list[str]:
    """Attentions that keep float32 factors: the fewest, costliest first, that keep the others' cost below the limit."""
    found = attentions(module)
    if not found:
        return []
    exact_mix = {path: attention.mix for path, attention in found.items()}
    with torch.inference_mode():
        reference = run(module, inputs)

        def cost(halved: Iterable[str]) -> float:
            for path, attention in found.items():
                attention.mix = half_attention if path in halved else exact_mix[path]
            # an overflow is dearer than anything
            value = relative(run(module, inputs).numpy(), reference.numpy())
            return value if value == value else float("inf")

        try:
            halved = dict.fromkeys(found)
            if cost(halved) > MOST_ATTENTION_COST:
                alone = {path: cost([path]) for path in found}
                for path in sorted(alone, key=alone.__getitem__, reverse=True):
                    del halved[path]
                    if cost(halved) <= MOST_ATTENTION_COST:
                        break
        finally:
            cost(())
    return [path for path in found if path not in halved]
