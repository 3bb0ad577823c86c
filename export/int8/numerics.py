"""INT8 arithmetic as the graphs compute it, in PyTorch: weights by output channel, activations by tensor."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MOST", "asymmetric", "quantise_products", "quantise_weight", "quantised", "rounding", "symmetric"]

# symmetric: -128 has no counterpart
MOST = 127
LEVELS = 255


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [in, out] as int8 and the scale [out] of each output channel."""
    scale = weight.abs().amax(dim=0) / MOST
    # a channel of zeros has any scale
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale).round().clamp(-MOST, MOST).to(torch.int8), scale


def asymmetric(values: Tensor, bounds: tuple[float, float] | None = None) -> Tensor:
    """Values as uint8 keeps them whose range is taken when they are there, as `DynamicQuantizeLinear` has it.

    `bounds` are the least and the greatest value where `values` are a part of what is quantised together.
    """
    low, high = bounds or (float(values.min()), float(values.max()))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / LEVELS
    if scale == 0:
        return torch.zeros_like(values)
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, LEVELS).sub(zero).mul(scale)


def symmetric(values: Tensor, threshold: float) -> Tensor:
    """Values as int8 keeps them whose range was set before; what is beyond is cut off."""
    scale = threshold / MOST
    return (values / scale).round().clamp(-MOST - 1, MOST).mul(scale)


def quantise_products(module: nn.Module, weights: Mapping[str, float | None]) -> None:
    """Give products INT8 factors, by their weights' names, with the ranges that were set before; changes the module."""
    for path, submodule in module.named_modules():
        for name, weight in submodule.named_parameters(recurse=False):
            if f"{path}.{name}" in weights:
                integers, scale = quantise_weight(weight)
                weight.copy_(integers.float() * scale)
                submodule.register_forward_pre_hook(rounding(weights[f"{path}.{name}"]))


@contextmanager
def quantised(
    module: nn.Module, weights: Mapping[str, float | None], factors: Mapping[str, Tensor] | None = None
) -> Iterator[None]:
    """Give products INT8 factors while inside.

    A weight is rounded each time that it is read, so that one copy of one weight is all that this takes.

    Args:
        module: the encoder as it is traced.
        weights: ranges that were set before, by the weight's name; None takes the range of what is there.
        factors: of channels, [in], that divide a product's input and multiply its weight; by the weight's name.
    """
    hooks = []
    for path, submodule in module.named_modules():
        for name, weight in submodule.named_parameters(recurse=False):
            full = f"{path}.{name}"
            if full in weights:
                hooks += lower(submodule, weight, weights[full], (factors or {}).get(full))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def lower(module: nn.Module, weight: nn.Parameter, threshold: float | None, factors: Tensor | None) -> list[Any]:
    """The hooks that give one product INT8 factors."""
    exact, round_rows = weight.data, rounding(threshold)

    def before(submodule: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        rows, *others = inputs
        integers, scale = quantise_weight(exact if factors is None else exact * factors[:, None])
        weight.data = integers.float() * scale
        return round_rows(submodule, (rows if factors is None else rows / factors, *others))

    def after(*_: Any) -> None:
        weight.data = exact

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]


def rounding(threshold: float | None) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that rounds what goes into a module; without a threshold, by the range of what is there."""

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = inputs[0]
        return (asymmetric(rows) if threshold is None else symmetric(rows, threshold), *inputs[1:])

    return hook
