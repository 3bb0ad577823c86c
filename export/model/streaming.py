"""Qwen2 in PyTorch, one layer in memory at a time, for models that do not fit in memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from .llm import Layer, RmsNorm, rotary_tables

__all__ = ["last_logits", "round_q8_0", "token_embeddings"]

# of the output matrix, which as float32 would take 2.2 GB in a 7B
ROWS_AT_ONCE = 16_384


def token_embeddings(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    """Rows of the embedding matrix, [L, d] float32; only these rows are converted."""
    return checkpoint.tensor("model.embed_tokens.weight")[ids].float()


def last_logits(
    checkpoint: Checkpoint,
    inventory: Inventory,
    embeddings: Tensor,
    progress: Progress,
    rounding: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits [vocabulary] float32 after the last position of a prompt.

    Args:
        checkpoint: where the weights are.
        inventory: sizes of the model.
        embeddings: [L, d] float32.
        progress: where to report.
        rounding: applied to both factors of every product with a weight, to see what a number format costs.
    """
    rounded = rounding or (lambda values: values)
    geometry = inventory.geometry.llm
    rotary = rotary_tables(geometry, len(embeddings))
    hidden = embeddings[None]
    with torch.device("meta"):
        layer, norm = Layer(geometry), RmsNorm(geometry.width, geometry.rms_eps)
    layer, norm = layer.to_empty(device="cpu"), norm.to_empty(device="cpu")
    linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    for linear in linears:
        linear.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    with torch.inference_mode(), progress.bar("language model in PyTorch", geometry.layers) as advance:
        for index in range(geometry.layers):
            fill(layer, checkpoint, f"model.layers.{index}.")
            for linear in linears:
                linear.weight.copy_(rounded(linear.weight))
            hidden = layer(hidden, rotary)
            advance(1)
        fill(norm, checkpoint, "model.norm.")
        hidden = rounded(norm(hidden[0, -1]))
        output = checkpoint.tensor("model.embed_tokens.weight" if geometry.tied else "lm_head.weight")
        return torch.cat([rounded(rows.float()) @ hidden for rows in output.split(ROWS_AT_ONCE)])


def fill(module: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    """Copy a module's tensors from the checkpoint."""
    for name, target in module.state_dict().items():
        target.copy_(checkpoint.tensor(prefix + name))


def round_q8_0(values: Tensor) -> Tensor:
    """Values as Q8_0 keeps them: 8-bit integers with one float16 scale for 32 neighbours in a row.

    Rows that 32 does not divide stay as they are.
    """
    if values.shape[-1] % 32:
        return values
    blocks = values.unflatten(-1, (-1, 32))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    # as in ggml: integers by the exact scale, values by the rounded one
    integers = torch.where(scale > 0, blocks / scale, 0).round()
    return (integers * scale.half().float()).flatten(-2)
