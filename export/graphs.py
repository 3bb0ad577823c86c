"""The three encoders in the forms that are traced: exact rewrites of the plain modules that do less arithmetic.

Each form computes what its plain module computes; what it avoids stands in its docstring.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ..runtime.geometry import Geometry
from ..runtime.maps import KernelMaps
from ..runtime.rays import FREQUENCIES, LIVE_COLUMNS, LIVE_FREQUENCIES
from .model.aligner import Aligner
from .model.points import MapTensors, MinkUNet, PointEncoder, ResidualBlock, SparseConv
from .model.vision import VisionEncoder

__all__ = ["AlignerGraph", "PointsGraph", "VisionGraph", "example_inputs", "transpose_linears"]


class VisionGraph(nn.Module):
    """Frames to the tokens of both branches, encoded once.

    Pooling and the projector's last Linear commute, so pooling comes first and the Linear sees n*n rows instead of g*g.
    """

    def __init__(self, plain: VisionEncoder):
        super().__init__()
        self.tower = plain.tower
        self.project_in, _, self.project_out = plain.mm_projector.children()
        self.newline = plain.image_newline
        side = round(len(plain.tower.embeddings.position_embedding.weight) ** 0.5)
        self.pooling = nn.Parameter(pooling_matrix(side, plain.grid), requires_grad=False)

    def forward(self, frames: Tensor) -> Tensor:
        """[T, 3, S, S] float32 pixel values to [T, n, n+1, d]; the last column is the newline embedding."""
        patches = F.gelu(self.project_in(self.tower(frames)))
        grid, side = self.pooling.shape
        rows = self.pooling @ patches.reshape(-1, side, side * patches.shape[2])
        cells = self.pooling @ rows.reshape(-1, grid, side, patches.shape[2])
        tokens = self.project_out(cells)
        return torch.cat([tokens, self.newline.expand(tokens.shape[0], grid, 1, -1)], dim=2)


class PointsGraph(nn.Module):
    """Voxel colours and kernel maps to point features, with batch normalisation folded into the kernels."""

    def __init__(self, plain: PointEncoder):
        super().__init__()
        self.net = fold_normalisation(plain.net3d)

    def forward(
        self, voxel_feats: Tensor, stem: Tensor, neighbours: list[Tensor], down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """[N, 3] float32 and the tables of `KernelMaps` to [N, features]."""
        return self.net(voxel_feats, MapTensors(stem, tuple(neighbours), tuple(down), tuple(up)))


class AlignerGraph(nn.Module):
    """Point features, frames, rays and text to prefix tokens.

    Only the first rows of the last layer are computed, since only they are read; the constant ray columns are part of
    the projections' biases.
    """

    def __init__(self, plain: Aligner):
        super().__init__()
        *layers, last = plain.qformer.encoder["layer"].children()
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


class GatheredConv(nn.Module):
    """A sparse convolution with bias as one gather of all neighbours and one matrix product."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        super().__init__()
        self.kernel = nn.Parameter(kernel.flatten(0, 1).contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        padded = F.pad(hidden, (0, 0, 0, 1))
        gathered = padded.index_select(0, table.flatten()).reshape(-1, len(self.kernel))
        return gathered @ self.kernel + self.bias


class Projection(nn.Module):
    """A Linear with its weight stored as [in, out], which is how a matrix product reads it."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.T.contiguous(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.weight + self.bias


def transpose_linears(module: nn.Module) -> None:
    """Replace every Linear below a module by a `Projection`."""
    for name, linear in list(module.named_modules()):
        if isinstance(linear, nn.Linear):
            module.set_submodule(name, Projection(linear))


class BiasedPointwise(nn.Module):
    """A pointwise convolution with bias."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        super().__init__()
        self.kernel = nn.Parameter(kernel, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.kernel + self.bias


def fold_normalisation(net: MinkUNet) -> MinkUNet:
    """Put the scale and shift of each batch normalisation into the convolution before it; changes `net`."""
    pairs = [("conv0p1s1", "bn0")]
    pairs += [(f"conv{level + 1}p{2**level}s2", f"bn{level + 1}") for level in range(4)]
    pairs += [(f"convtr{step + 4}p{16 >> step}s2", f"bntr{step + 4}") for step in range(4)]
    for name, block in net.named_modules():
        if isinstance(block, ResidualBlock):
            pairs += [(f"{name}.conv1", f"{name}.norm1"), (f"{name}.conv2", f"{name}.norm2")]
            pairs += [(f"{name}.downsample.0", f"{name}.downsample.1")] if block.downsample is not None else []
    for convolution, norm in pairs:
        plain: Any = net.get_submodule(convolution)
        bn: Any = net.get_submodule(norm).bn
        scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        bias = (bn.bias.double() - bn.running_mean.double() * scale).float()
        folded = GatheredConv if isinstance(plain, SparseConv) else BiasedPointwise
        net.set_submodule(convolution, folded((plain.kernel.double() * scale).float(), bias))
        net.set_submodule(norm, nn.Identity())
    return net


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
    constant = cosines[:, :, LIVE_FREQUENCIES:].flatten(1).double().sum(dim=1)
    linear.bias = nn.Parameter((plain.bias.double() + constant).float(), requires_grad=False)
    return linear


def example_inputs(name: str, geometry: Geometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Small inputs of an encoder's graph, and the dynamic axes of each."""
    if name == "vision":
        size = geometry.vision.image_size
        return {"frames": torch.zeros(2, 3, size, size)}, {"frames": {0: Dim.DYNAMIC}}
    if name == "points":
        coords = np.argwhere(np.ones((20, 3, 3))).astype(np.int32)
        maps, level = MapTensors.of(KernelMaps.build(coords)), [Dim(f"voxels_{index}", min=1) for index in range(5)]
        inputs = {
            "voxel_feats": torch.zeros(len(coords), geometry.points.channels[0]),
            "stem": maps.stem,
            "neighbours": list(maps.neighbours),
            "down": list(maps.down),
            "up": list(maps.up),
        }
        axes = {
            "voxel_feats": {0: level[0]},
            "stem": {0: level[0]},
            "neighbours": [{0: dim} for dim in level],
            "down": [{0: dim} for dim in level[1:]],
            "up": [{0: dim} for dim in level[:4]],
        }
        return inputs, axes
    rows = {"voxels": 5, "patches": 7, "text": 3}
    columns = {
        "pcd_features": ("voxels", geometry.aligner.point_features),
        "pcd_rays": ("voxels", LIVE_COLUMNS),
        "pooled_features": ("patches", geometry.llm.width),
        "img_rays": ("patches", LIVE_COLUMNS),
        "text_embeds": ("text", geometry.llm.width),
    }
    dims = {axis: Dim(axis, min=1) for axis in rows}
    inputs = {key: torch.zeros(rows[axis], width) for key, (axis, width) in columns.items()}
    return inputs, {key: {0: dims[axis]} for key, (axis, _) in columns.items()}
