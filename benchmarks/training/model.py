"""The small ST-LLM: the modules that exports read, with storage, and their state in the trainer's layout."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...export.checkpoint.geometry import PREFIXES, build
from ...export.model.aligner import Layer
from ...export.model.points import PointwiseConv, SparseConv
from ...runtime.bundle.geometry import AlignerGeometry, Geometry, LlmGeometry, PointGeometry, VisionGeometry
from ...runtime.host.rays import FREQUENCIES

__all__ = ["SMALL", "SmallModel", "low_rays"]

# frequencies above see less than one bfloat16 step of a direction, or nothing that training could use
RAY_FREQUENCIES = 5
LOW_COLUMNS = [
    *range(3),
    *(3 + FREQUENCIES * axis + frequency for axis in range(6) for frequency in range(RAY_FREQUENCIES)),
]
SMALL = Geometry(
    vision=VisionGeometry(image_size=84, patch_size=14, width=128, layers=4, heads=2, mlp=512, grid=3),
    points=PointGeometry(
        channels=(3, 16, 24, 32, 48, 64, 48, 32, 32, 32),
        downsampled=(16, 24, 32, 48),
        upsampled=(48, 32, 32, 32),
        blocks=(1, 1, 1, 1, 1, 1, 1, 1),
        features=128,
    ),
    aligner=AlignerGeometry(width=128, heads=2, layers=3, cross_layers=(0, 2), ffn=512, latents=8, point_features=128),
    llm=LlmGeometry(
        width=256,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn=512,
        vocabulary=1024,
        context=4096,
        rope_base=1e6,
        rms_eps=1e-6,
        tied=True,
    ),
)


class SmallModel(nn.Module):
    """The four parts: vision, points, aligner, llm."""

    def __init__(self, geometry: Geometry = SMALL, seed: int = 0):
        super().__init__()
        self.geometry = geometry
        parts = build(geometry)
        self.parts = nn.ModuleDict({name: part.to_empty(device="cpu") for name, part in parts.items()})
        if geometry.llm.tied:
            self.llm.lm_head.weight = self.llm.model["embed_tokens"].weight
        generator = torch.Generator().manual_seed(seed)
        for part in self.parts.values():
            for name, module in part.named_modules():
                initialise(name, module, generator)
        for parent, name in self.ray_projections():
            with torch.no_grad():
                weight = parent[name].get_parameter("weight")
                kept = torch.zeros_like(weight)
                # fewer columns, larger weights: the sum keeps its size
                kept[:, LOW_COLUMNS] = weight[:, LOW_COLUMNS] * math.sqrt(weight.shape[1] / len(LOW_COLUMNS))
                weight.copy_(kept)
        self.vision.image_newline.data.normal_(0, 0.02, generator=generator)

    @property
    def vision(self) -> Any:
        return self.parts["vision"]

    @property
    def points(self) -> Any:
        return self.parts["points"]

    @property
    def aligner(self) -> Any:
        return self.parts["aligner"]

    @property
    def llm(self) -> Any:
        return self.parts["llm"]

    def ray_projections(self) -> Iterator[tuple[nn.ModuleDict, str]]:
        """The modules that hold the two ray projections, and their names in them."""
        for name in ("pcd", "img"):
            yield self.aligner.get_submodule(f"{name}_ray_encoder"), f"{name}_ray_projection_to_qformer"

    def specialise(self) -> None:
        """Replace modules by others with the same parameters that compute the same at less cost in training.

        Loops over kernel offsets become one gather each, the ray projections take what `low_rays` gives, and the
        aligner's last layer computes the latents alone, the only rows that are read.
        """
        net = self.points.net3d
        for name, module in list(net.named_modules()):
            if isinstance(module, SparseConv):
                net.set_submodule(name, WideConv(module.kernel))
        for parent, name in self.ray_projections():
            parent[name] = LowProjection(parent[name])
        layers = self.aligner.qformer.encoder["layer"]
        layers[-1] = LatentLayer(layers[-1], self.geometry.aligner.latents)

    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values as the trainer saves them."""
        for part, module in self.parts.items():
            for name, tensor in module.state_dict().items():
                if not (name == "lm_head.weight" and self.geometry.llm.tied):
                    yield PREFIXES[part] + name, tensor.detach()


class WideConv(nn.Module):
    """A sparse convolution as one gather and one product."""

    def __init__(self, kernel: nn.Parameter):
        super().__init__()
        self.kernel = kernel

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        padded = torch.cat([hidden, hidden.new_zeros(1, hidden.shape[1])])
        gathered = padded.index_select(0, table.flatten()).reshape(len(table), -1)
        return gathered @ self.kernel.flatten(0, 1)


class LowProjection(nn.Module):
    """A ray projection for the columns of `low_rays`; all others are left at weight zero."""

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.weight, self.bias = linear.get_parameter("weight"), linear.get_parameter("bias")

    def forward(self, encoded: Tensor) -> Tensor:
        return F.linear(encoded, self.weight[:, LOW_COLUMNS], self.bias)


class LatentLayer(Layer):
    """A layer of the aligner for its first rows alone."""

    def __init__(self, layer: Layer, latents: int):
        nn.Module.__init__(self)
        self.latents = latents
        self.crossattention = layer.crossattention
        for name, part in layer.named_children():
            self.add_module(name, part)

    def forward(self, rows: Tensor, hidden: Tensor, points: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(rows[..., : self.latents, :], hidden, points, mask)


def initialise(name: str, module: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the size of activations; what is added to a residual stream starts smaller."""
    with torch.no_grad():
        if isinstance(module, nn.Linear | nn.Conv2d):
            residual = name.endswith(("o_proj", "down_proj", "out_proj", "fc2"))
            deviation = (0.5 if residual else 1.0) / math.sqrt(module.weight[0].numel())
            module.weight.normal_(0, deviation, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.02 if "embed_tokens" in name else 0.5, generator=generator)
        elif isinstance(module, SparseConv | PointwiseConv):
            fan_in = module.kernel.shape[-2] * max(1.0, math.prod(module.kernel.shape[:-2]) / 3)
            # 2, since ReLU halves the mean square
            module.kernel.normal_(0, math.sqrt(2 / fan_in), generator=generator)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            module.reset_parameters()
        elif type(module).__name__ == "RmsNorm":
            module.get_parameter("weight").fill_(1)


def low_rays(directions: Tensor) -> Tensor:
    """The lowest frequencies of the encoding of directions [M, 3]: columns `LOW_COLUMNS` of the 765, [M, 33]."""
    waves = (directions[:, :, None] * 2.0 ** torch.arange(RAY_FREQUENCIES)).flatten(1)
    return torch.cat([directions, waves.sin(), waves.cos()], dim=1)
