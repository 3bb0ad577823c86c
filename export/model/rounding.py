"""What number formats cost: values rounded as libllama and FP16 graphs round them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "half", "half_attention", "halve_products", "round_blocks"]

# as many rows of scores as are in memory at once
ROWS_AT_ONCE = 512


def half(values: Tensor) -> Tensor:
    """Values as float16 keeps them, infinities where they are too large."""
    return values.half().float()


def bfloat16(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def round_blocks(values: Tensor, block: int) -> Tensor:
    """8-bit integers with one scale for so many neighbours in a row; rows that a block does not divide stay.

    Blocks of 32 are Q8_0, with a float16 scale; blocks of 256 are Q8_K, with a float32 one.
    """
    if values.shape[-1] % block:
        return values
    blocks = values.unflatten(-1, (-1, block))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    integers = torch.where(scale > 0, blocks / scale, 0).round()
    return (integers * (half(scale) if block == 32 else scale)).flatten(-2)


def q8_0(values: Tensor) -> Tensor:
    return round_blocks(values, 32)


def q8_k(values: Tensor) -> Tensor:
    return round_blocks(values, 256)


# what libllama makes of activations before a product with weights of a GGUF type
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F16": half,
    "BF16": bfloat16,
    **dict.fromkeys(("Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "MXFP4", "Q1_0"), q8_0),
    **dict.fromkeys(("Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS"), q8_k),
    **dict.fromkeys(("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0"), q8_k),
}


def half_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of [B, L, W] queries to [B, K, W] keys and values with FP16 factors, every rounding in it kept."""
    width = query.shape[-1] // heads
    query, key, value = (values.unflatten(-1, (heads, width)).transpose(1, 2) for values in (query, key, value))
    scaled, turned, value = half(query * width**-0.5), half(key).mT, half(value)
    mixed = [
        half(half(torch.softmax(half(rows @ turned), dim=-1)) @ value) for rows in scaled.split(ROWS_AT_ONCE, dim=2)
    ]
    return torch.cat(mixed, dim=2).transpose(1, 2).flatten(2)


def halve_products(module: nn.Module, names: set[str]) -> None:
    """Give products with the weights of these names FP16 factors and results; changes the module."""
    for path, submodule in module.named_modules():
        for name, weight in submodule.named_parameters(recurse=False):
            if f"{path}.{name}" in names:
                weight.copy_(half(weight))
                submodule.register_forward_pre_hook(lambda _, inputs: (half(inputs[0]), *inputs[1:]))
                submodule.register_forward_hook(lambda _, inputs, output: half(output))
