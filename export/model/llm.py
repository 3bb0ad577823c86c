"""Qwen2, the language model (SPEC section 1)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.geometry import LlmGeometry

__all__ = ["Layer", "Qwen2", "RmsNorm", "rotary_tables"]


class Qwen2(nn.Module):
    """Embeddings [B, L, d] of prompts to the logits [B, vocabulary] of their last position."""

    def __init__(self, geometry: LlmGeometry):
        super().__init__()
        self.geometry = geometry
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(geometry.vocabulary, geometry.width),
                "layers": nn.ModuleList(Layer(geometry) for _ in range(geometry.layers)),
                "norm": RmsNorm(geometry.width, geometry.rms_eps),
            }
        )
        self.lm_head = nn.Linear(geometry.width, geometry.vocabulary, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.lm_head(self.hidden(embeddings)[:, -1])

    def hidden(self, embeddings: Tensor) -> Tensor:
        """[B, L, d] to the normalised output [B, L, d] of the last layer."""
        rotary = rotary_tables(self.geometry, embeddings.shape[1])
        layers: Any = self.model["layers"]
        hidden = embeddings
        for layer in layers:
            hidden = layer(hidden, rotary)
        return self.model["norm"](hidden)


class Layer(nn.Module):
    def __init__(self, geometry: LlmGeometry):
        super().__init__()
        self.self_attn = Attention(geometry)
        self.mlp = Mlp(geometry)
        self.input_layernorm = RmsNorm(geometry.width, geometry.rms_eps)
        self.post_attention_layernorm = RmsNorm(geometry.width, geometry.rms_eps)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Attention(nn.Module):
    """Causal attention with grouped keys and values; the projections to query, key and value have biases."""

    def __init__(self, geometry: LlmGeometry):
        super().__init__()
        self.heads, self.kv_heads = geometry.heads, geometry.kv_heads
        kv_width = geometry.head_width * geometry.kv_heads
        self.q_proj = nn.Linear(geometry.width, geometry.head_width * geometry.heads)
        self.k_proj = nn.Linear(geometry.width, kv_width)
        self.v_proj = nn.Linear(geometry.width, kv_width)
        self.o_proj = nn.Linear(geometry.head_width * geometry.heads, geometry.width, bias=False)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = self.project(hidden, rotary)
        return self.mix(F.scaled_dot_product_attention(query, key, value, is_causal=True))

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, L, head width] of [B, L, d], turned by the positions of `rotary`."""
        query = rotate(self.q_proj(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2), rotary)
        key = rotate(self.k_proj(hidden).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2), rotary)
        value = self.v_proj(hidden).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        # not repeat: heads that share keys are neighbours
        key, value = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in (key, value))
        return query, key, value

    def mix(self, heads: Tensor) -> Tensor:
        """What attention gave, [B, heads, L, head width], as [B, L, d]."""
        return self.o_proj(heads.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, geometry: LlmGeometry):
        super().__init__()
        self.gate_proj = nn.Linear(geometry.width, geometry.ffn, bias=False)
        self.up_proj = nn.Linear(geometry.width, geometry.ffn, bias=False)
        self.down_proj = nn.Linear(geometry.ffn, geometry.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


def rotary_tables(geometry: LlmGeometry, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions 0..length-1, each [length, head width / 2] float32."""
    exponents = torch.arange(0, geometry.head_width, 2, dtype=torch.float32) / geometry.head_width
    angles = torch.outer(torch.arange(length, dtype=torch.float32), geometry.rope_base**-exponents)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of [B, heads, L, head width]; a pair is (i, i + half)."""
    cos, sin = rotary
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
