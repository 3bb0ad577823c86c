"""Qwen2 in PyTorch, one layer in memory at a time, for models that do not fit whole."""

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .geometry import Inventory
from .model.llm import Layer, RmsNorm, rotary_tables
from .progress import Progress

__all__ = ["last_logits", "token_embeddings"]

ROWS_AT_ONCE = 16_384


def token_embeddings(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    """Rows of the embedding matrix, [L, d] float32; only these rows are converted."""
    return checkpoint.tensor("model.embed_tokens.weight")[ids].float()


def last_logits(checkpoint: Checkpoint, inventory: Inventory, embeddings: Tensor, progress: Progress) -> Tensor:
    """Logits [vocabulary] float32 after the last position of a prompt.

    Args:
        checkpoint: where the weights are.
        inventory: sizes of the model.
        embeddings: [L, d] float32.
        progress: where to report.
    """
    geometry = inventory.geometry.llm
    rotary = rotary_tables(geometry, len(embeddings))
    hidden = embeddings
    with torch.device("meta"):
        layer, norm = Layer(geometry), RmsNorm(geometry.width, geometry.rms_eps)
    layer, norm = layer.to_empty(device="cpu"), norm.to_empty(device="cpu")
    with torch.inference_mode(), progress.bar("language model in PyTorch", geometry.layers) as advance:
        for index in range(geometry.layers):
            fill(layer, checkpoint, f"model.layers.{index}.")
            hidden = layer(hidden, rotary)
            advance(1)
        fill(norm, checkpoint, "model.norm.")
        hidden = norm(hidden[-1])
        output = checkpoint.tensor("model.embed_tokens.weight" if geometry.tied else "lm_head.weight")
        return torch.cat([rows.float() @ hidden for rows in output.split(ROWS_AT_ONCE)])


def fill(module: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    """Copy a module's tensors from the checkpoint."""
    for name, target in module.state_dict().items():
        target.copy_(checkpoint.tensor(prefix + name))
