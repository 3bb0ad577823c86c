"""Qwen2 in PyTorch, one layer in memory at a time, for models that do not fit whole."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from .peers import qwen2

__all__ = ["EMBEDDING", "KEPT_POSITIONS", "Stored", "StreamedLayer", "StreamedQwen2", "Weights", "token_embeddings"]

ROWS_AT_ONCE = 16_384
# in the feed-forward part of a layer
POSITIONS_AT_ONCE = 1024
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

    def layers(self, first: int = 0) -> Iterator["StreamedLayer"]:
        """Decoder layers one after the other, each loaded into the same memory when its turn comes."""
        model, count = qwen2(self.config), self.config.num_hidden_layers
        layer: Any = model.layers[0]
        with self.progress.bar("language model in PyTorch", count) as advance:
            advance(first)
            for index in range(first, count):
                prefix = f"model.layers.{index}."
                for name, target in layer.state_dict().items():
                    with torch.inference_mode():
                        target.copy_(self.weights.tensor(prefix + name))
                yield StreamedLayer(index, layer, model.rotary_emb)
                advance(1)

    def normed(self, hidden: Tensor) -> Tensor:
        """What enters the output matrix, [L, d], of the last layer's output [L, d]."""
        with torch.inference_mode():
            norm = qwen2(self.config).norm
            norm.weight.copy_(self.weights.tensor("model.norm.weight"))
            values: Tensor = norm(hidden)
        return values

    def hidden(
        self, prompts: Sequence[Tensor], rounding: Callable[[str, Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """What the last layer makes of prompts, [L, d] float32 each; arguments as in `logits`."""
        hidden = list(prompts)
        for layer in self.layers():
            with layer.watched(rounding or (lambda name, values: None)):
                hidden = [layer(rows) for rows in hidden]
        return hidden

    def output(self, values: Tensor) -> Tensor:
        """Logits [P, vocabulary] float32 of what enters the output matrix, [P, d]."""
        with torch.inference_mode():
            return torch.cat([values @ rows.float().T for rows in self.weights.blocks(self._output)], dim=1)

    @property
    def _output(self) -> str:
        return OUTPUT if OUTPUT in self.weights else EMBEDDING

    def logits(
        self, prompts: Sequence[Tensor], rounding: Callable[[str, Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Logits [P, vocabulary] float32 of the last positions of each prompt, at most `KEPT_POSITIONS` of them.

        Args:
            prompts: embeddings [L, d] float32 each.
            rounding: applied to what goes into the product with the weight of a name, to see what a format costs.
        """
        last = [rows[-KEPT_POSITIONS:] for rows in self.hidden(prompts, rounding)]
        values = self.normed(torch.cat(last))
        if rounding is not None:
            with torch.inference_mode():
                values = rounding(self._output, values)
        return list(self.output(values).split([len(rows) for rows in last]))


@dataclass(frozen=True)
class StreamedLayer:
    """A decoder layer with its weights, until the next one takes its place.

    Attributes:
        index: its place.
        module: transformers' layer.
        rotary: gives the turns of positions.
    """

    index: int
    module: Any
    rotary: Any

    def __call__(self, hidden: Tensor) -> Tensor:
        """[L, d] float32 to [L, d]."""
        with torch.inference_mode():
            rows = hidden[None]
            turn = self.rotary(rows, torch.arange(rows.shape[1])[None])
            normed = self.module.input_layernorm(rows)
            # without a mask attention is causal
            rows = rows + self.module.self_attn(normed, attention_mask=None, position_embeddings=turn)[0]
            # of a whole clip, what is between up and down would take gigabytes
            parts = rows[0].split(POSITIONS_AT_ONCE)
            made = [part + self.module.mlp(self.module.post_attention_layernorm(part)) for part in parts]
        return torch.cat(made)

    @contextmanager
    def watched(self, look: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
        """Show what goes into the product with the weight of a name; what comes back, if something, takes its place.

        Of a long prompt it comes in parts, in the order of positions.
        """

        def watch(name: str, linear: nn.Module) -> Any:
            def change(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
                changed = look(f"model.layers.{self.index}.{name}.weight", inputs[0])
                return None if changed is None else (changed,)

            return linear.register_forward_pre_hook(change)

        linears = {name: part for name, part in self.module.named_modules() if isinstance(part, nn.Linear)}
        hooks = [watch(name, linear) for name, linear in linears.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()  # they lead back to the layer, which would outlive its use
