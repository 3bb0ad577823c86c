"""The point encoder in the form that is traced: sparse convolutions that read only rows that exist.

Features carry a row of zeros at their end throughout, which missing neighbours read, and which every layer keeps zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ...runtime.bundle.table import FORMATS
from ...runtime.host.maps import KernelMaps
from ..model.points import MinkUNet, PointEncoder
from .operators import slab_convolution, table_convolution

__all__ = [
    "ChildrenConv",
    "GatherConv",
    "PointsGraph",
    "Pointwise",
    "RunConv",
    "gathered_rows",
    "map_tensors",
    "point_inputs",
]

# level of the 3x3x3 convolutions of block1 .. block8
BLOCK_LEVELS = (1, 2, 3, 4, 3, 2, 1, 0)


@dataclass(frozen=True)
class GraphMaps:
    """`KernelMaps` by convolution, as `MinkUNet.trunk` looks them up."""

    stem: tuple[Tensor, Tensor]
    neighbours: tuple[Any, ...]
    down: list[Tensor]
    up: list[Tensor]

    @classmethod
    def of(cls, maps: Mapping[str, Tensor]) -> "GraphMaps":
        """Maps from the arrays of `KernelMaps` by name."""

        def levels(name: str) -> list[Tensor]:
            return [tensor for key, tensor in maps.items() if key.rpartition("_")[0] == name]

        slabs = zip(*(levels(f"slab_{part}") for part in ("rows", "bounds", "offsets", "place")), strict=True)
        return cls((maps["runs"], maps["stem"]), (*slabs, *levels("tables")), levels("down"), levels("up"))


class PointsGraph(nn.Module):
    """Voxel colours and kernel maps to point features, both in the caller's order.

    Batch normalisation is part of the kernels. A transposed convolution computes all eight children of each parent
    and picks the ones that exist.
    """

    def __init__(self, plain: PointEncoder):
        super().__init__()
        self.net = fold(plain.net3d)

    def forward(self, voxel_feats: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
        """[N, 3] float32 and the arrays of `KernelMaps` by name to [N, features]."""
        hidden = self.net.trunk(with_zero_row(voxel_feats), GraphMaps.of(maps))
        return self.net.final(F.embedding(maps["order"], hidden))


class Convolution(nn.Module):
    """A kernel and a bias."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        super().__init__()
        self.kernel = nn.Parameter(kernel.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)


class GatherConv(Convolution):
    """All rows of a kernel in one gather and one product; for coarse levels and strided convolutions."""

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        return with_zero_row(torch.addmm(self.bias, gathered_rows(hidden, table), self.kernel))


class RunConv(Convolution):
    """The first convolution: five voxels along x are gathered once for all kernels that read them."""

    def forward(self, hidden: Tensor, maps: tuple[Tensor, Tensor]) -> Tensor:
        runs, stem = maps
        lines = gathered_rows(hidden, runs)
        return with_zero_row(torch.addmm(self.bias, gathered_rows(lines, stem), self.kernel))


class ChildrenConv(Convolution):
    """A transposed convolution with stride 2: eight products a parent, of which each voxel takes its own."""

    def forward(self, hidden: Tensor, up: Tensor) -> Tensor:
        # without the row of zeros, whose children would be the bias
        children = torch.addmm(self.bias, hidden[:-1], self.kernel).reshape(-1, self.bias.shape[0] // 8)
        return F.embedding(up, with_zero_row(children))


class BlockConv(Convolution):
    """A 3x3x3 convolution of a fine level, over the four arrays of `Slabs` or over a table [N, 27]."""

    def forward(self, hidden: Tensor, maps: tuple[Tensor, Tensor, Tensor, Tensor] | Tensor) -> Tensor:
        if isinstance(maps, Tensor):
            return table_convolution(hidden, self.kernel, self.bias, maps)
        return slab_convolution(hidden, self.kernel, self.bias, *maps)


class Pointwise(nn.Module):
    """A pointwise convolution without bias, which would not keep the row of zeros."""

    def __init__(self, kernel: Tensor):
        super().__init__()
        self.kernel = nn.Parameter(kernel, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.kernel


def gathered_rows(hidden: Tensor, table: Tensor) -> Tensor:
    """[M, K] rows of [N, C] side by side, [M, K*C].

    An embedding is traced as one Gather with the table as it is; an indexed selection would be flattened and cast.
    """
    return F.embedding(table, hidden).reshape(-1, table.shape[1] * hidden.shape[1])


def with_zero_row(hidden: Tensor) -> Tensor:
    return F.pad(hidden, (0, 0, 0, 1))


def graph_form(kind: str, level: int, kernel: Tensor, bias: Tensor) -> nn.Module:
    """The convolution of a kind (stem, strided, transposed, block) at a level of the graph."""
    if kind == "stem":
        return RunConv(kernel.flatten(0, 1), bias)
    if kind == "transposed":
        # [8, Cin, Cout] as [Cin, 8 * Cout]: one product gives all children of a parent
        return ChildrenConv(kernel.transpose(0, 1).flatten(1), bias.repeat(8))
    if kind == "block" and level < FORMATS["slabs"]:
        return BlockConv(kernel, bias)
    return GatherConv(kernel.flatten(0, 1), bias)


def fold(net: MinkUNet, form: Callable[[str, int, Tensor, Tensor], nn.Module] = graph_form) -> MinkUNet:
    """Put batch normalisation into kernels and replace the convolutions by a form of each; changes `net`."""

    def convert(kind: str, level: int, convolution: str, norm: str, extra_bias: Tensor | float = 0.0) -> None:
        kernel, bias = folded(net, convolution, norm)
        replace(net, convolution, norm, form(kind, level, kernel, bias + extra_bias))

    convert("stem", 0, "conv0p1s1", "bn0")
    for level in range(4):
        convert("strided", level, f"conv{level + 1}p{2**level}s2", f"bn{level + 1}")
        convert("transposed", 3 - level, f"convtr{level + 4}p{16 >> level}s2", f"bntr{level + 4}")
    for number, level in enumerate(BLOCK_LEVELS, start=1):
        for index, block in enumerate(net.get_submodule(f"block{number}").children()):
            name = f"block{number}.{index}"
            convert("block", level, f"{name}.conv1", f"{name}.norm1")
            extra: Tensor | float = 0.0
            if block.downsample is not None:
                # the shortcut has no bias of its own, which would not keep the row of zeros
                shortcut, extra = folded(net, f"{name}.downsample.0", f"{name}.downsample.1")
                replace(net, f"{name}.downsample.0", f"{name}.downsample.1", Pointwise(shortcut))
            convert("block", level, f"{name}.conv2", f"{name}.norm2", extra)
    return net


def folded(net: MinkUNet, convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution together with its batch normalisation, in float64 until the end."""
    plain: Any = net.get_submodule(convolution)
    bn: Any = net.get_submodule(norm).bn
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return (plain.kernel.double() * scale).float(), bias.float()


def replace(net: MinkUNet, convolution: str, norm: str, form: nn.Module) -> None:
    net.set_submodule(convolution, form)
    net.set_submodule(norm, nn.Identity())


def map_tensors(maps: KernelMaps) -> dict[str, Tensor]:
    """Arrays of kernel maps by name, as `PointsGraph` takes them."""
    return {name: torch.from_numpy(array) for name, array in maps.inputs().items()}


def point_inputs(channels: int, map_format: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Example inputs of the graph and their dynamic axes; `map_format` is that of the kernel maps."""
    # 20 voxels long: two remain at the coarsest level, since tracing takes sizes of 0 and 1 for constants
    coords = np.argwhere(np.ones((20, 3, 3))).astype(np.int32)
    maps = map_tensors(KernelMaps.build(coords, map_format))
    # of the slabs there are always as many, and they read as many offsets
    axes = {"slab_bounds": None, "slab_offsets": None, "slab_place": {1: Dim.DYNAMIC}}
    free = {name: axes.get(name.rpartition("_")[0], {0: Dim.DYNAMIC}) for name in maps}
    feats = torch.zeros(len(coords), channels)
    return {"voxel_feats": feats, "maps": maps}, {"voxel_feats": {0: Dim.DYNAMIC}, "maps": free}
