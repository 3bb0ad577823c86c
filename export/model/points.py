"""MinkUNet, the sparse U-Net over voxels, as gathers and matrix products (SPEC section 4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.geometry import PointGeometry
from ...runtime.host.maps import build_levels, children

__all__ = ["MapTensors", "PointEncoder"]


@dataclass(frozen=True)
class MapTensors:
    """Plain kernel maps: for every row and kernel offset the row to read; a missing one is the number of rows.

    Attributes:
        stem: [N, 125] for the first convolution.
        neighbours: five tables [N_l, 27].
        down: four tables [N_(l+1), 8] into level l.
        up: four tables [N_l, 8] into level l+1, with one entry a row.
        coords: five arrays [N_l, 3], voxel indices at full resolution.
    """

    stem: Tensor
    neighbours: tuple[Tensor, ...]
    down: tuple[Tensor, ...]
    up: tuple[Tensor, ...]
    coords: tuple[Tensor, ...]

    @classmethod
    def build(cls, coords: np.ndarray) -> "MapTensors":
        """Maps of voxels [N, 3] int32, unique, minimum 0; rows stay in their order."""
        levels, parents = build_levels(coords)
        down, up = [], []
        for fine, coarse, parent in zip(levels, levels[1:], parents, strict=False):
            rows = np.arange(len(fine))
            table = np.full((len(fine), 8), len(coarse), np.int32)
            table[rows, fine.corner] = parent
            up.append(torch.from_numpy(table))
            down.append(torch.from_numpy(children(fine, len(coarse), parent)))
        return cls(
            stem=torch.from_numpy(levels[0].neighbours(5).T),
            neighbours=tuple(torch.from_numpy(level.neighbours(3).T) for level in levels),
            down=tuple(down),
            up=tuple(up),
            coords=tuple(torch.from_numpy(level.coords << stride) for stride, level in enumerate(levels)),
        )


class PointEncoder(nn.Module):
    """Voxel colours [N, 3] and kernel maps to point features [N, features]."""

    def __init__(self, geometry: PointGeometry):
        super().__init__()
        self.net3d = MinkUNet(geometry)

    def forward(self, feats: Tensor, maps: MapTensors) -> Tensor:
        return self.net3d(feats, maps)


class MinkUNet(nn.Module):
    """Four levels down, four up, with a skip connection at each."""

    def __init__(self, geometry: PointGeometry):
        super().__init__()
        inner, stem, *planes = geometry.channels
        self.conv0p1s1, self.bn0 = SparseConv(125, inner, stem), BatchNorm(stem)
        width, skips = stem, [stem, *planes[:3]]
        for level in range(4):
            down = geometry.downsampled[level]
            self.add_module(f"conv{level + 1}p{2**level}s2", SparseConv(8, width, down))
            self.add_module(f"bn{level + 1}", BatchNorm(down))
            self.add_module(f"block{level + 1}", blocks(geometry.blocks[level], down, planes[level]))
            width = planes[level]
        for step in range(4):
            up, plane = geometry.upsampled[step], planes[4 + step]
            self.add_module(f"convtr{step + 4}p{16 >> step}s2", SparseConv(8, width, up))
            self.add_module(f"bntr{step + 4}", BatchNorm(up))
            self.add_module(f"block{step + 5}", blocks(geometry.blocks[4 + step], up + skips.pop(), plane))
            width = plane
        self.final = PointwiseConv(width, geometry.features)

    def forward(self, feats: Tensor, maps: Any) -> Tensor:
        return self.final(self.trunk(feats, maps))

    def trunk(self, feats: Tensor, maps: Any) -> Tensor:
        """All but the last, pointwise convolution.

        `maps` has one entry a convolution under the names of `MapTensors`, in the form that the convolutions take.
        """
        hidden = F.relu(self.bn0(self.conv0p1s1(feats, maps.stem)))
        skips = []
        for level in range(4):
            skips.append(hidden)
            convolution = self.get_submodule(f"conv{level + 1}p{2**level}s2")
            hidden = F.relu(self.get_submodule(f"bn{level + 1}")(convolution(hidden, maps.down[level])))
            hidden = self._blocks(level + 1, hidden, maps.neighbours[level + 1])
        for step in range(4):
            level = 3 - step
            convolution = self.get_submodule(f"convtr{step + 4}p{16 >> step}s2")
            hidden = F.relu(self.get_submodule(f"bntr{step + 4}")(convolution(hidden, maps.up[level])))
            hidden = self._blocks(step + 5, torch.cat([hidden, skips.pop()], dim=1), maps.neighbours[level])
        return hidden

    def _blocks(self, number: int, hidden: Tensor, neighbours: Any) -> Tensor:
        group = self.get_submodule(f"block{number}")
        return group(hidden, neighbours)


def blocks(count: int, inner: int, outer: int) -> "Blocks":
    return Blocks(ResidualBlock(inner if index == 0 else outer, outer) for index in range(count))


class Blocks(nn.ModuleList):
    def forward(self, hidden: Tensor, neighbours: Any) -> Tensor:
        for block in self:
            hidden = block(hidden, neighbours)
        return hidden


class ResidualBlock(nn.Module):
    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.conv1, self.norm1 = SparseConv(27, inner, outer), BatchNorm(outer)
        self.conv2, self.norm2 = SparseConv(27, outer, outer), BatchNorm(outer)
        self.downsample = nn.Sequential(PointwiseConv(inner, outer), BatchNorm(outer)) if inner != outer else None

    def forward(self, hidden: Tensor, neighbours: Any) -> Tensor:
        shortcut = hidden if self.downsample is None else self.downsample(hidden)
        hidden = F.relu(self.norm1(self.conv1(hidden, neighbours)))
        return F.relu(self.norm2(self.conv2(hidden, neighbours)) + shortcut)


class SparseConv(nn.Module):
    """`out[i] = sum over k of in[table[i, k]] @ kernel[k]`, where a missing row reads zeros.

    Strided and transposed convolutions are the same sum over other tables.
    """

    def __init__(self, offsets: int, inner: int, outer: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(offsets, inner, outer))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        out = hidden.new_zeros(len(table), self.kernel.shape[2])
        # one offset at a time: all gathered together would take 27 times the features
        for offset, kernel in enumerate(self.kernel):
            present = (table[:, offset] < len(hidden)).nonzero()[:, 0]
            out.index_add_(0, present, hidden[table[present, offset]] @ kernel)
        return out


class PointwiseConv(nn.Module):
    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(inner, outer))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.kernel


class BatchNorm(nn.Module):
    """Batch normalisation over rows, under the name `bn` that checkpoints use."""

    def __init__(self, width: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(width, eps=1e-5)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.bn(hidden)
