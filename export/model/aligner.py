"""The aligner: a Q-Former that reads latents, frames and text against the point features (SPEC section 7)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.geometry import AlignerGeometry
from ...runtime.host.rays import FREQUENCIES

__all__ = ["RAY_COLUMNS", "Aligner", "encode_all"]

RAY_COLUMNS = 765
# InstructBLIP's; PyTorch's default, 1e-5, changes the result
EPS = 1e-12


class Aligner(nn.Module):
    """Point features, frames, rays and text to the prefix tokens of the language model."""

    def __init__(self, geometry: AlignerGeometry, llm_width: int):
        super().__init__()
        width = geometry.width
        self.qformer = QFormer(geometry)
        self.latent_query = nn.Embedding(geometry.latents, width)
        self.img_encoder_to_qformer_projection = nn.Linear(llm_width, width)
        self.text_embed_to_qformer_projection = nn.Linear(llm_width, width)
        self.qformer_to_language_projection = nn.Linear(width, llm_width)
        self.pcd_ray_encoder = nn.ModuleDict({"pcd_ray_projection_to_qformer": nn.Linear(RAY_COLUMNS, width)})
        self.img_ray_encoder = nn.ModuleDict({"img_ray_projection_to_qformer": nn.Linear(RAY_COLUMNS, width)})

    def forward(
        self,
        points: Tensor,
        point_rays: Tensor,
        frames: Tensor,
        frame_rays: Tensor,
        text: Tensor,
        text_mask: Tensor | None = None,
    ) -> Tensor:
        """Prefix tokens [latents, d], or [Q, latents, d] for Q questions about the same scene and clip.

        Args:
            points: [N, width] point features.
            point_rays: [N, 765] encoded directions of the points.
            frames: [F, d] pooled features of all frames.
            frame_rays: [F, 765] encoded directions of the pooled pixels.
            text: [L, d] embeddings of the user turn, or [Q, L, d] of several, padded.
            text_mask: [Q, L] bool, false at the padding; None where there is none.
        """
        points = points + self.pcd_ray_encoder["pcd_ray_projection_to_qformer"](point_rays)
        frames = self.img_encoder_to_qformer_projection(frames)
        frames = frames + self.img_ray_encoder["img_ray_projection_to_qformer"](frame_rays)
        shared = torch.cat([self.latent_query.weight, frames]).expand(*text.shape[:-2], -1, -1)
        queries = torch.cat([shared, self.text_embed_to_qformer_projection(text)], dim=-2)
        mask = None if text_mask is None else F.pad(text_mask, (shared.shape[-2], 0), value=True)
        hidden = self.qformer(queries, points, mask)
        return self.qformer_to_language_projection(hidden[..., : len(self.latent_query.weight), :])


class QFormer(nn.Module):
    """InstructBLIP's Q-Former fed with query embeddings only: every token attends to every token."""

    def __init__(self, geometry: AlignerGeometry):
        super().__init__()
        self.embeddings = nn.ModuleDict({"layernorm": nn.LayerNorm(geometry.width, eps=EPS)})
        layers = (Layer(geometry, index in geometry.cross_layers) for index in range(geometry.layers))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, queries: Tensor, points: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.embeddings["layernorm"](queries)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = layer(hidden, hidden, points, mask)
        return hidden


class Layer(nn.Module):
    """Self-attention, cross-attention where the checkpoint has it, feed-forward; each normalised after its residual."""

    def __init__(self, geometry: AlignerGeometry, cross: bool):
        super().__init__()
        self.attention = AttentionBlock(geometry.width, geometry.width, geometry.heads)
        self.crossattention = AttentionBlock(geometry.width, geometry.point_features, geometry.heads) if cross else None
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(geometry.width, geometry.ffn)})
        self.output_query = ResidualOutput(geometry.ffn, geometry.width)

    def forward(self, rows: Tensor, hidden: Tensor, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """New values of `rows`, which are all of `hidden` or the first of them; `mask` is false at padding in it."""
        rows = self.attention(rows, hidden, mask)
        if self.crossattention is not None:
            rows = self.crossattention(rows, points)
        return self.output_query(F.gelu(self.intermediate_query["dense"](rows)), rows)


class AttentionBlock(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, context_width, heads)
        self.output = ResidualOutput(width, width)

    def forward(self, rows: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.output(self.attention(rows, context, mask), rows)


class Attention(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)

    def forward(self, rows: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., M, W] rows attending to the context [..., K, W'] of their own, or all to one context [K, W']."""
        groups = math.prod(context.shape[:-2])
        query, key, value = (
            projected.reshape(groups, -1, self.heads, projected.shape[-1] // self.heads).transpose(1, 2)
            for projected in (self.query(rows), self.key(context), self.value(context))
        )
        keys = None if mask is None else mask.reshape(groups, 1, 1, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return mixed.transpose(1, 2).reshape(rows.shape)


class ResidualOutput(nn.Module):
    def __init__(self, inner: int, width: int):
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(inner) + residual)


def encode_all(directions: Tensor) -> Tensor:
    """The encoding as the reference writes it, [M, 3] to [M, 765], overflow of the frequencies included."""
    # int64 on purpose: its overflow is part of the trained model
    frequencies = 2 ** torch.arange(FREQUENCIES)
    angles = (directions[:, :, None] * frequencies.float()).flatten(1)
    return torch.cat([directions, angles.sin(), angles.cos()], dim=1)
