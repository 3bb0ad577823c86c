"""Qwen2 in PyTorch, one layer in memory at a time, for models that do not fit whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from .peers import qwen2

__all__ = ["EMBEDDING", "KEPT_POSITIONS", "StreamedQwen2", "Weights", "token_embeddings"]

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
    def __contains__(self, name: object) -> bool: ...


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
        model = qwen2(self.config)
        layer, place = model.layers[0], iter(range(self.config.num_hidden_layers))
        prefix = ""
        with self.progress.bar("language model in PyTorch", self.config.num_hidden_layers) as advance:

            def load(*_: Any) -> None:
                nonlocal prefix
                prefix = f"model.layers.{next(place)}."
                for name, target in layer.state_dict().items():
                    target.copy_(self.weights.tensor(prefix + name))
                advance(1)

            def watch(name: str, linear: nn.Module) -> None:
                linear.register_forward_pre_hook(lambda _, inputs: (rounded(f"{prefix}{name}.weight", inputs[0]),))

            layer.register_forward_pre_hook(load)
            for name, linear in layer.named_modules():
                if isinstance(linear, nn.Linear):
                    watch(name, linear)
            with torch.inference_mode():
                model.norm.weight.copy_(self.weights.tensor("model.norm.weight"))
                # attention is causal: what pads the end changes nothing before it
                padded = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
                hidden = model(inputs_embeds=padded, use_cache=False).last_hidden_state
        last = [rows[: len(prompt)][-KEPT_POSITIONS:] for rows, prompt in zip(hidden, prompts, strict=True)]
        with torch.inference_mode():
            name = OUTPUT if OUTPUT in self.weights else EMBEDDING
            values = rounded(name, torch.cat(last))
            blocks = self.weights.tensor(name).split(ROWS_AT_ONCE)
            logits = torch.cat([values @ rows.float().T for rows in blocks], dim=1)
        return list(logits.split([len(rows) for rows in last]))
