"""Qwen2 in PyTorch, one layer in memory at a time, for models that do not fit whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from .peers import qwen2

__all__ = ["EMBEDDING", "KEPT_POSITIONS", "Stored", "StreamedQwen2", "Weights", "token_embeddings"]

ROWS_AT_ONCE = 16_384
# of a prompt; logits of all positions of a whole clip would take gigabytes
KEPT_POSITIONS = 256
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def token_embeddings(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    """Rows of the embedding matrix, [L, d] float32; only these rows are converted."""
    return checkpoint.tensor(EMBEDDING)[ids].float()


class Weights(Protocol):
    """Tensors by the checkpoint's names."""

    def tensor(self, name: str) -> Tensor: ...
    def blocks(self, name: str) -> Iterable[Tensor]: ...
    def __contains__(self, name: object) -> bool: ...


@dataclass(frozen=True)
class Stored:
    """A checkpoint's weights."""

    checkpoint: Checkpoint

    def tensor(self, name: str) -> Tensor:
        """A weight of any type."""
        return self.checkpoint.tensor(name)

    def blocks(self, name: str) -> Iterable[Tensor]:
        """The rows of a matrix that is too large to be converted whole."""
        return self.checkpoint.tensor(name).split(ROWS_AT_ONCE)

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoint


@dataclass(frozen=True)
class StreamedQwen2:
    """Transformers' Qwen2 with weights that are read when their layer's turn comes.

    Attributes:
        config: transformers' configuration.
        weights: a checkpoint, or a GGUF file.
        progress: where to report.
    """

    config: Any
    weights: Weights
    progress: Progress

    def logits(
        self, prompts: Sequence[Tensor], rounding: Callable[[str, Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Logits [P, vocabulary] float32 of the last positions of each prompt, at most `KEPT_POSITIONS` of them.

        Args:
            prompts: embeddings [L, d] float32 each.
            rounding: applied to what goes into the product with the weight of a name, to see what a format costs.
        """
        rounded = rounding or (lambda name, values: values)
        model, count = qwen2(self.config), self.config.num_hidden_layers
        layer, prefix = model.layers[0], ""

        def watch(name: str, linear: nn.Module) -> Any:
            def change(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
                return (rounded(f"{prefix}{name}.weight", inputs[0]),)

            return linear.register_forward_pre_hook(change)

        linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        hooks = [watch(name, linear) for name, linear in linears.items()]
        hidden = [prompt[None] for prompt in prompts]
        with torch.inference_mode(), self.progress.bar("language model in PyTorch", count) as advance:
            turns = [model.rotary_emb(rows, torch.arange(rows.shape[1])[None]) for rows in hidden]
            for index in range(count):
                prefix = f"model.layers.{index}."
                for name, target in layer.state_dict().items():
                    target.copy_(self.weights.tensor(prefix + name))
                # without a mask attention is causal
                hidden = [
                    layer(rows, attention_mask=None, position_embeddings=turn)
                    for rows, turn in zip(hidden, turns, strict=True)
                ]
                advance(1)
            model.norm.weight.copy_(self.weights.tensor("model.norm.weight"))
            last = [model.norm(rows[0, -KEPT_POSITIONS:]) for rows in hidden]
            name = OUTPUT if OUTPUT in self.weights else EMBEDDING
            values = rounded(name, torch.cat(last))
            logits = torch.cat([values @ rows.float().T for rows in self.weights.blocks(name)], dim=1)
        for hook in hooks:
            hook.remove()  # they lead back to the layer, which would outlive its use
        return list(logits.split([len(rows) for rows in last]))
