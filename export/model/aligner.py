"""The aligner: a Q-Former that reads latents, frames and text against the point features (SPEC section 7)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.geometry import AlignerGeometry

__all__ = ["RAY_COLUMNS", "Aligner"]

RAY_COLUMNS = 765
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

    def forward(self, points: Tensor, point_rays: Tensor, frames: Tensor, frame_rays: Tensor, text: Tensor) -> Tensor:
        """Prefix tokens [latents, d].

        Args:
            points: [N, width] point features.
            point_rays: [N, 765] encoded directions of the points.
            frames: [F, d] pooled features of all frames.
            frame_rays: [F, 765] encoded directions of the pooled pixels.
            text: [L, d] embeddings of the user turn.
        """
        points = points + self.pcd_ray_encoder["pcd_ray_projection_to_qformer"](point_rays)
        frames = self.img_encoder_to_qformer_projection(frames)
        frames = frames + self.img_ray_encoder["img_ray_projection_to_qformer"](frame_rays)
        queries = torch.cat([self.latent_query.weight, frames, self.text_embed_to_qformer_projection(text)])
        hidden = self.qformer(queries, points)
        return self.qformer_to_language_projection(hidden[: len(self.latent_query.weight)])


class QFormer(nn.Module):
    """InstructBLIP's Q-Former fed with query embeddings only: every token attends to every token."""

    def __init__(self, geometry: AlignerGeometry):
        super().__init__()
        self.embeddings = nn.ModuleDict({"layernorm": nn.LayerNorm(geometry.width, eps=EPS)})
        layers = (Layer(geometry, index in geometry.cross_layers) for index in range(geometry.layers))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, queries: Tensor, points: Tensor) -> Tensor:
        hidden = self.embeddings["layernorm"](queries)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = layer(hidden, hidden, points)
        return hidden


class Layer(nn.Module):
    """Self-attention, cross-attention where the checkpoint has it, feed-forward; each normalised after its residual."""

    def __init__(self, geometry: AlignerGeometry, cross: bool):
        super().__init__()
        self.attention = AttentionBlock(geometry.width, geometry.width, geometry.heads)
        self.crossattention = AttentionBlock(geometry.width, geometry.point_features, geometry.heads) if cross else None
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(geometry.width, geometry.ffn)})
        self.output_query = ResidualOutput(geometry.ffn, geometry.width)

    def forward(self, rows: Tensor, hidden: Tensor, points: Tensor) -> Tensor:
        """New values of `rows`, which are all of `hidden` or the first of them."""
        rows = self.attention(rows, hidden)
        if self.crossattention is not None:
            rows = self.crossattention(rows, points)
        return self.output_query(F.gelu(self.intermediate_query["dense"](rows)), rows)


class AttentionBlock(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, context_width, heads)
        self.output = ResidualOutput(width, width)

    def forward(self, rows: Tensor, context: Tensor) -> Tensor:
        return self.output(self.attention(rows, context), rows)


class Attention(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)

    def forward(self, rows: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(0, 1).unsqueeze(0)
            for projected in (self.query(rows), self.key(context), self.value(context))
        )
        return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)


class ResidualOutput(nn.Module):
    def __init__(self, inner: int, width: int):
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(inner) + residual)
