"""The three encoders in the forms that are traced: exact rewrites of the plain modules that do less arithmetic.

Each form computes what its plain module computes; what it avoids stands in its docstring.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ...runtime.bundle.geometry import Geometry
from ...runtime.bundle.table import STAGES
from ...runtime.host.rays import FREQUENCIES, LIVE_COLUMNS, LIVE_FREQUENCIES
from ..model.aligner import Aligner
from ..model.vision import VisionEncoder
from .operators import attention, feed_forward
from .sparse import PointsGraph, point_inputs

__all__ = [
    "GRAPHS",
    "AlignerGraph",
    "Attention",
    "PointsGraph",
    "VisionGraph",
    "example_inputs",
    "transpose_linears",
]


# keys and values of tens of thousands of points are the largest arrays of the aligner
POINT_HEADS_AT_ONCE = 4


class VisionGraph(nn.Module):
    """Frames to the tokens of both branches, encoded once.

    Pooling and the projector's last Linear commute, so pooling comes first and the Linear sees n*n rows instead of g*g.
    """

    def __init__(self, plain: VisionEncoder):
        super().__init__()
        self.embeddings = plain.tower.embeddings
        self.layers = nn.ModuleList(TowerLayer(layer) for layer in plain.tower.encoder["layers"].children())
        self.project_in, _, self.project_out = plain.mm_projector.children()
        self.newline = plain.image_newline
        self.patches = len(plain.tower.embeddings.position_embedding.weight)
        self.pooling = nn.Parameter(pooling_matrix(round(self.patches**0.5), plain.grid), requires_grad=False)

    def forward(self, frames: Tensor) -> Tensor:
        """[T, 3, S, S] float32 pixel values to [T, n, n+1, d]; the last column is the newline embedding."""
        hidden = self.embeddings(frames).flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, self.patches)
        patches = F.gelu(self.project_in(hidden))
        grid, side = self.pooling.shape
        # two small products, as bilinear resizing of rows and of columns are independent
        rows = self.pooling @ patches.reshape(-1, side, side * patches.shape[1])
        cells = self.pooling @ rows.reshape(-1, grid, side, patches.shape[1])
        # each row of the pooling matrix sums to one, so the bias passes through it too
        tokens = self.project_out(cells)
        return torch.cat([tokens, self.newline.expand(tokens.shape[0], grid, 1, -1)], dim=2)


class TowerLayer(nn.Module):
    """A layer of the vision tower on the patches of all frames as rows of one matrix."""

    def __init__(self, plain: Any):
        super().__init__()
        self.norm1, self.norm2 = plain.layer_norm1, plain.layer_norm2
        attention = plain.self_attn
        self.attention = Attention(
            attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, attention.heads
        )
        self.feed_forward = FeedForward(plain.mlp.fc1, plain.mlp.fc2, "tanh")

    def forward(self, hidden: Tensor, patches: int) -> Tensor:
        normed = self.norm1(hidden)
        hidden = hidden + self.attention(normed, normed, patches)
        return hidden + self.feed_forward(self.norm2(hidden))


class AlignerGraph(nn.Module):
    """Point features, frames, rays and text to prefix tokens.

    Only the first rows of the last layer are computed, since only they are read; the constant ray columns are part of
    the projections' biases.
    """

    def __init__(self, plain: Aligner):
        super().__init__()
        *layers, last = (AlignerLayer(layer) for layer in plain.qformer.encoder["layer"].children())
        self.latents = plain.latent_query.weight
        self.point_rays = live_projection(plain.pcd_ray_encoder["pcd_ray_projection_to_qformer"])
        self.frame_rays = live_projection(plain.img_ray_encoder["img_ray_projection_to_qformer"])
        self.frames = plain.img_encoder_to_qformer_projection
        self.text = plain.text_embed_to_qformer_projection
        self.norm = plain.qformer.embeddings["layernorm"]
        self.layers, self.last = nn.ModuleList(layers), last
        self.to_language = plain.qformer_to_language_projection

    def forward(
        self, pcd_features: Tensor, pcd_rays: Tensor, pooled_features: Tensor, img_rays: Tensor, text_embeds: Tensor
    ) -> Tensor:
        """[N, w], [N, 387], [F, d], [F, 387], [L, d] float32 to [latents, d]."""
        points = pcd_features + self.point_rays(pcd_rays)
        frames = self.frames(pooled_features) + self.frame_rays(img_rays)
        hidden = self.norm(torch.cat([self.latents, frames, self.text(text_embeds)]))
        for layer in self.layers:
            hidden = layer(hidden, hidden, points)
        return self.to_language(self.last(hidden[: len(self.latents)], hidden, points))


class AlignerLayer(nn.Module):
    """A layer of the Q-Former for the first rows of `hidden`."""

    def __init__(self, plain: Any):
        super().__init__()
        self.self_attention, self.self_norm = attention_block(plain.attention)
        crossing = plain.crossattention
        self.crosses = crossing is not None
        if self.crosses:
            self.cross_attention, self.cross_norm = attention_block(crossing, POINT_HEADS_AT_ONCE)
        self.feed_forward = FeedForward(plain.intermediate_query["dense"], plain.output_query.dense, "none")
        self.norm = plain.output_query.LayerNorm

    def forward(self, rows: Tensor, hidden: Tensor, points: Tensor) -> Tensor:
        rows = self.self_norm(rows + self.self_attention(rows, hidden))
        if self.crosses:
            rows = self.cross_norm(rows + self.cross_attention(rows, points))
        return self.norm(rows + self.feed_forward(rows))


def attention_block(plain: Any, heads_at_once: int | None = None) -> tuple["Attention", nn.Module]:
    """Attention with its output projection, and the norm after the residual."""
    inner = plain.attention
    attention = Attention(inner.query, inner.key, inner.value, plain.output.dense, inner.heads, heads_at_once)
    return attention, plain.output.LayerNorm


class Attention(nn.Module):
    """Projections, attention, output projection.

    A bias of the keys adds the same to all scores of a row, which softmax ignores: it is left out. A bias of the values
    passes through the weighted mean unchanged: it is part of the output's bias.
    """

    def __init__(
        self,
        query: nn.Linear,
        key: nn.Linear,
        value: nn.Linear,
        output: nn.Linear,
        heads: int,
        heads_at_once: int | None = None,
    ):
        """`heads_at_once` bounds for how many heads keys and values are in memory together; None for all."""
        super().__init__()
        width = query.out_features // heads
        self.heads = [min(heads_at_once or heads, heads - first) for first in range(0, heads, heads_at_once or heads)]
        self.columns = [count * width for count in self.heads]
        self.mix = attention
        self.query = query
        self.keys, self.values = split_outputs(key, self.columns), split_outputs(value, self.columns)
        self.output = nn.Linear(output.in_features, output.out_features)
        self.output.weight = output.weight
        # a sum over a thousand columns, rounded once
        bias = output.bias.double() + output.weight.double() @ value.bias.double()
        self.output.bias = nn.Parameter(bias.float(), requires_grad=False)

    def projections(self) -> list[str]:
        """Names of the weights that give queries, keys and values."""
        return ["query.weight", *(f"{kind}.{i}.weight" for kind in ("keys", "values") for i in range(len(self.heads)))]

    def forward(self, rows: Tensor, context: Tensor, rows_each: int | None = None) -> Tensor:
        """[M, W] rows attending to [K, W'] context; or, in groups of `rows_each`, each group to itself."""
        mixed = []
        all_heads = self.query(rows)
        queries = all_heads.split(self.columns, dim=1) if len(self.columns) > 1 else [all_heads]
        for query, key, value, heads in zip(queries, self.keys, self.values, self.heads, strict=True):
            width = query.shape[1]
            query, projected_key, projected_value = (
                values.reshape(-1, rows_each, width) if rows_each else values[None]
                for values in (query, key(context), value(context))
            )
            mixed.append(self.mix(query, projected_key, projected_value, heads).flatten(0, 1))
        return self.output(torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0])


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, inner: nn.Linear, outer: nn.Linear, approximate: str):
        super().__init__()
        self.inner, self.outer, self.approximate = inner, outer, approximate

    def forward(self, rows: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return self.outer(F.gelu(self.inner(rows), approximate=self.approximate))
        inner, outer = self.inner, self.outer
        return feed_forward(rows, inner.weight, inner.bias, outer.weight, outer.bias, self.approximate)


def split_outputs(linear: nn.Linear, columns: list[int]) -> nn.ModuleList:
    """A Linear without its bias as several, which compute so many of its outputs each."""
    parts = nn.ModuleList(nn.Linear(linear.in_features, count, bias=False) for count in columns)
    for part, weight in zip(parts, linear.weight.split(columns), strict=True):
        part.weight = nn.Parameter(weight, requires_grad=False)
    return parts


class Projection(nn.Module):
    """A Linear with its weight stored as [in, out], which is how a matrix product reads it."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.out_features = linear.out_features
        self.weight = nn.Parameter(linear.weight.T.contiguous(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        product = rows @ self.weight
        return product if self.bias is None else product + self.bias


def transpose_linears(module: nn.Module) -> None:
    """Replace every Linear below a module by a `Projection`."""
    for name, linear in list(module.named_modules()):
        if isinstance(linear, nn.Linear):
            module.set_submodule(name, Projection(linear))


def pooling_matrix(side: int, grid: int) -> Tensor:
    """[grid, side] float32: bilinear resizing of one axis as a matrix."""
    return F.interpolate(torch.eye(side)[None], size=grid, mode="linear")[0].T.contiguous()


def live_projection(plain: nn.Module) -> nn.Linear:
    """The ray projection for the 387 columns that vary; cosines of frequency 0 are 1 and go into the bias."""
    assert isinstance(plain, nn.Linear)
    weight = plain.weight
    directions, sines, cosines = weight.split([3, 3 * FREQUENCIES, 3 * FREQUENCIES], dim=1)
    sines, cosines = (waves.unflatten(1, (3, FREQUENCIES)) for waves in (sines, cosines))
    live = [directions, *(waves[:, :, :LIVE_FREQUENCIES].flatten(1) for waves in (sines, cosines))]
    linear = nn.Linear(sum(part.shape[1] for part in live), len(weight))
    linear.weight = nn.Parameter(torch.cat(live, dim=1), requires_grad=False)
    # a sum over 189 columns, rounded once
    constant = cosines[:, :, LIVE_FREQUENCIES:].flatten(1).double().sum(dim=1)
    linear.bias = nn.Parameter((plain.bias.double() + constant).float(), requires_grad=False)
    return linear


GRAPHS: dict[str, Any] = {"vision": VisionGraph, "points": PointsGraph, "aligner": AlignerGraph}


def example_inputs(name: str, geometry: Geometry, maps: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Small inputs of an encoder's module, and the dynamic axes of each; `maps` is the format of the kernel maps."""
    if name == "vision":
        size = geometry.vision.image_size
        return {"frames": torch.zeros(2, 3, size, size)}, {"frames": {0: Dim.DYNAMIC}}
    if name == "points":
        assert maps is not None
        return point_inputs(geometry.points.channels[0], maps)
    # none is 0 or 1: tracing takes these for constants
    rows = {"voxels": 5, "patches": 7, "text": 3}
    shapes = (
        ("voxels", geometry.aligner.point_features),
        ("voxels", LIVE_COLUMNS),
        ("patches", geometry.llm.width),
        ("patches", LIVE_COLUMNS),
        ("text", geometry.llm.width),
    )
    columns = dict(zip(STAGES["aligner"].inputs[None], shapes, strict=True))
    dims = {axis: Dim(axis, min=1) for axis in rows}
    inputs = {key: torch.zeros(rows[axis], width) for key, (axis, width) in columns.items()}
    return inputs, {key: {0: dims[axis]} for key, (axis, _) in columns.items()}
