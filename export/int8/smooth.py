"""Outlier channels moved from activations into weights, where that costs nothing (SmoothQuant, arXiv 2211.10438).

A factor for each channel divides what comes before a product and multiplies the product's weight: into the weight and
bias of a LayerNorm that only these products read, or into the columns of the values that attention mixes. The function
stays the same; what changes is which numbers share a scale.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..onnx.graphs import Attention, TowerLayer
from .convert import INTEGERS, SCALE
from .numerics import MOST, asymmetric, quantise_weight
from .observed import Observation

__all__ = ["Fold", "apply", "find_folds", "fold", "folds_of", "product_error"]

# how much of the difficulty goes into the weights
STRENGTHS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
# a fold that does not lower the error by as much is left out
WORTHWHILE = 0.8
SMALLEST = 1e-5


@dataclass(frozen=True)
class Fold:
    """Factors of one group of products.

    Attributes:
        weights: names of the weights [in, out] whose rows are multiplied.
        before: names of what is divided, with the axis of each; several share the channels one after the other.
        factors: [in].
        gain: error of the group with the factors over that without.
    """

    weights: tuple[str, ...]
    before: tuple[tuple[str, int], ...]
    factors: Tensor
    gain: float

    def scalings(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """Initialisers, the axis along which each is multiplied, and by what."""
        factors = self.factors.numpy()
        for name in self.weights:
            yield name, 0, factors
        widths = len({axis for _, axis in self.before}) == 1 and self.before[0][1] == 1
        # LayerNorm's weight and bias have all channels each; the values of several groups of heads have a part each
        parts = np.array_split(1 / factors, len(self.before)) if widths else [1 / factors] * len(self.before)
        for (name, axis), part in zip(self.before, parts, strict=True):
            yield name, axis, part


def product_error(seen: Observation, weight: Tensor) -> float:
    """Relative error of a product in INT8 whose inputs' range is taken when they are there."""
    rows = seen.rows
    integers, scale = quantise_weight(weight)
    exact, ours = rows @ weight, asymmetric(rows, seen.bounds) @ (integers.float() * scale)
    return float(torch.linalg.vector_norm(ours - exact) / torch.linalg.vector_norm(exact).clamp_min(1e-30))


def find_folds(module: nn.Module, observed: Mapping[str, Observation]) -> list[Fold]:
    """The folds of an encoder that lower the error of their products on what was observed."""
    parameters = dict(module.named_parameters())
    folds = []
    for weights, before in groups(module):
        if any(name not in observed or not observed[name].kept for name in weights):
            continue
        fold = best(weights, before, [parameters[name] for name in weights], observed[weights[0]])
        if fold.gain < WORTHWHILE:
            folds.append(fold)
    return folds


def groups(module: nn.Module) -> Iterator[tuple[tuple[str, ...], tuple[tuple[str, int], ...]]]:
    """Products that read one thing, with the parameters that can be divided in their place."""
    for path, layer in module.named_modules():
        if isinstance(layer, TowerLayer):
            projections = tuple(f"{path}.attention.{name}" for name in layer.attention.projections())
            yield projections, tuple((f"{path}.norm1.{name}", 0) for name in ("weight", "bias"))
            yield (
                (f"{path}.feed_forward.inner.weight",),
                tuple((f"{path}.norm2.{name}", 0) for name in ("weight", "bias")),
            )
        if isinstance(layer, Attention) and len(set(layer.columns)) == 1:
            values = tuple((f"{path}.values.{part}.weight", 1) for part in range(len(layer.heads)))
            yield (f"{path}.output.weight",), values


def best(
    names: tuple[str, ...], before: tuple[tuple[str, int], ...], weights: Sequence[Tensor], seen: Observation
) -> Fold:
    """The strength with the least error."""
    plain = sum(product_error(seen, weight) for weight in weights)
    largest = torch.stack([weight.abs().amax(dim=1) for weight in weights]).amax(dim=0).clamp_min(SMALLEST)
    found = Fold(names, before, torch.ones_like(largest), 1.0)
    for strength in STRENGTHS:
        factors = seen.channels.clamp_min(SMALLEST) ** strength / largest ** (1 - strength)
        # a common factor changes nothing, but keeps the parameters near their size
        factors = factors / factors.log().mean().exp()
        divided = seen.divided(factors)
        error = sum(product_error(divided, weight * factors[:, None]) for weight in weights)
        if plain > 0 and error / plain < found.gain:
            found = Fold(names, before, factors, error / plain)
    return found


def folds_of(module: nn.Module, graph: ir.Graph) -> list[Fold]:
    """The folds that an INT8 graph was made with, found by comparing it with the module that it was traced from."""
    parameters = dict(module.named_parameters())
    found = []
    for weights, before in groups(module):
        axis = before[0][1]
        names = [before[0][0]] if axis == 0 else [name for name, _ in before]
        ours = torch.cat([magnitudes(parameters[name], axis) for name in names])
        theirs = torch.cat([stored_magnitudes(graph, name, axis) for name in names])
        factors = torch.where((ours != 0) & (theirs != 0), ours / theirs, torch.ones_like(ours))
        if not torch.allclose(factors, torch.ones_like(factors), rtol=1e-4):
            found.append(Fold(weights, before, factors, 1.0))
    return found


def magnitudes(values: Tensor, axis: int) -> Tensor:
    """What a factor of each channel scales: a norm's weight, or the largest magnitude of each column."""
    return values if axis == 0 else values.abs().amax(dim=0)


def stored_magnitudes(graph: ir.Graph, name: str, axis: int) -> Tensor:
    """The same of an initialiser; a weight in INT8 has them as its scales."""
    integers = f"{name}{INTEGERS}" in graph.initializers
    held = graph.initializers[f"{name}{SCALE}" if integers else name].const_value
    assert held is not None
    values = torch.from_numpy(np.array(held.numpy()))
    return values * MOST if integers else magnitudes(values, axis)


def fold(module: nn.Module, folds: Sequence[Fold]) -> None:
    """Multiply and divide the parameters of a module; changes `module`."""
    parameters = dict(module.named_parameters())
    for name, axis, factors in (scaling for one in folds for scaling in one.scalings()):
        shape = [-1 if place == axis else 1 for place in range(parameters[name].ndim)]
        parameters[name].mul_(torch.from_numpy(np.array(factors, np.float32)).reshape(shape))


def apply(model: ir.Model, folds: Sequence[Fold]) -> None:
    """Multiply and divide the initialisers of a graph; changes `model`."""
    initializers = model.graph.initializers
    for name, axis, factors in (scaling for fold in folds for scaling in fold.scalings()):
        held = initializers[name].const_value
        assert held is not None
        values = np.array(held.numpy())
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        initializers[name].const_value = ir.tensor(values * factors.reshape(shape).astype(values.dtype), name=name)
