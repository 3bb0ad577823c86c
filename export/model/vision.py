"""Frames to language-model tokens: SigLIP tower, projector, pooling, row ends (SPEC section 6)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.geometry import VisionGeometry

__all__ = ["VisionEncoder"]


class VisionEncoder(nn.Module):
    """Pixel values to the tokens of both branches."""

    def __init__(self, geometry: VisionGeometry, width: int):
        super().__init__()
        self.grid = geometry.grid
        self.vision_tower = nn.ModuleDict({"vision_tower": nn.ModuleDict({"vision_model": Tower(geometry)})})
        # the exact GELU; that of the tower is the approximation by tanh
        self.mm_projector = nn.Sequential(nn.Linear(geometry.width, width), nn.GELU(), nn.Linear(width, width))
        self.image_newline = nn.Parameter(torch.empty(width))

    @property
    def tower(self) -> "Tower":
        return self.vision_tower.get_submodule("vision_tower.vision_model")  # type: ignore[return-value]

    def forward(self, frames: Tensor) -> Tensor:
        """[T, 3, S, S] float32 pixel values to [T, n*n, d] pooled features, which the aligner takes."""
        return self.pool(self.mm_projector(self.tower(frames)))

    def pool(self, patches: Tensor) -> Tensor:
        """Bilinear pooling [T, g*g, d] -> [T, n*n, d]."""
        side = round(patches.shape[1] ** 0.5)
        # no antialiasing and no aligned corners, as the checkpoint was trained
        image = patches.transpose(1, 2).unflatten(2, (side, side))
        return F.interpolate(image, size=(self.grid, self.grid), mode="bilinear").flatten(2).transpose(1, 2)

    def video_tokens(self, pooled: Tensor) -> Tensor:
        """[T, n*n, d] pooled features to [T*n*(n+1), d]: each row of a frame ends with the newline embedding."""
        rows = pooled.unflatten(1, (self.grid, self.grid))
        newline = self.image_newline.expand(*rows.shape[:2], 1, -1)
        return torch.cat([rows, newline], dim=2).flatten(0, 2)


class Tower(nn.Module):
    """SigLIP vision transformer up to its last remaining layer, without post-layernorm."""

    def __init__(self, geometry: VisionGeometry):
        super().__init__()
        self.embeddings = Embeddings(geometry)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(geometry) for _ in range(geometry.layers))})

    def forward(self, frames: Tensor) -> Tensor:
        hidden = self.embeddings(frames)
        layers: Any = self.encoder["layers"]
        # all stored layers: the one that `mm_vision_select_layer` skips is not in the checkpoint
        for layer in layers:
            hidden = layer(hidden)
        return hidden


class Embeddings(nn.Module):
    def __init__(self, geometry: VisionGeometry):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, geometry.width, geometry.patch_size, geometry.patch_size)
        self.position_embedding = nn.Embedding(geometry.patches, geometry.width)

    def forward(self, frames: Tensor) -> Tensor:
        return self.patch_embedding(frames).flatten(2).transpose(1, 2) + self.position_embedding.weight


class Layer(nn.Module):
    def __init__(self, geometry: VisionGeometry):
        super().__init__()
        self.self_attn = Attention(geometry.width, geometry.heads)
        self.layer_norm1 = nn.LayerNorm(geometry.width, eps=1e-6)
        self.mlp = Mlp(geometry.width, geometry.mlp)
        self.layer_norm2 = nn.LayerNorm(geometry.width, eps=1e-6)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        return hidden + self.mlp(self.layer_norm2(hidden))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden), approximate="tanh"))
