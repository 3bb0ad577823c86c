"""Kernel maps: which rows each sparse convolution reads (SPEC section 4)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["LEVELS", "KernelMaps", "Level", "offsets"]

LEVELS = 5
DENSE_CELLS = 2**24
MARGIN = 2


def offsets(size: int) -> np.ndarray:
    """Offsets of a cubic kernel, x fastest, [size**3, 3] int64: centred for odd sizes, from 0 for even ones."""
    z, y, x = np.indices((size, size, size)).reshape(3, -1)
    return np.stack([x, y, z], axis=1) - (size // 2 if size % 2 else 0)


class Level:
    """The voxel set at one stride, and look-ups in it.

    Attributes:
        coords: [N, 3] int64 voxel indices in units of the stride, unique, not negative.
    """

    def __init__(self, coords: np.ndarray):
        self.coords = coords.astype(np.int64)
        self._shape = self.coords.max(axis=0) + 1 + 2 * MARGIN

    def __len__(self) -> int:
        return len(self.coords)

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the voxels with these keys, int32; `len(self)` where there is none."""
        if self._grid is not None:
            return self._grid[keys]
        order, sorted_keys = self._sorted
        place = np.minimum(np.searchsorted(sorted_keys, keys), len(self) - 1)
        return np.where(sorted_keys[place] == keys, order[place], len(self)).astype(np.int32)

    def key(self, coords: np.ndarray) -> np.ndarray:
        """Position in the padded bounding box, so that a neighbour's key is a constant away; [..., ] int64."""
        shifted = coords + MARGIN
        return (shifted[..., 0] * self._shape[1] + shifted[..., 1]) * self._shape[2] + shifted[..., 2]

    def neighbours(self, size: int) -> np.ndarray:
        """Rows that a centred kernel reads for each voxel, [N, size**3] int32; `N` where there is none."""
        steps = self.key(offsets(size)) - self.key(np.zeros(3, np.int64))
        return np.stack([self.rows(self._keys + step) for step in steps], axis=1)

    @cached_property
    def _keys(self) -> np.ndarray:
        return self.key(self.coords)

    @cached_property
    def _grid(self) -> np.ndarray | None:
        if np.prod(self._shape.astype(float)) > DENSE_CELLS:
            return None
        grid = np.full(int(np.prod(self._shape)), len(self), np.int32)
        grid[self._keys] = np.arange(len(self), dtype=np.int32)
        return grid

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._keys)
        return order, self._keys[order]


@dataclass(frozen=True)
class KernelMaps:
    """Tables of all convolutions of the U-Net; a missing row is the number of rows read from, where zeros are appended.

    Attributes:
        coords: five arrays [N_l, 3] int32, voxel indices of each level times its stride.
        stem: [N_0, 125] int32, rows that the first convolution reads.
        neighbours: five tables [N_l, 27] int32 for the 3x3x3 convolutions of each level.
        down: four tables [N_(l+1), 8] int32 into level l, for the strided convolutions.
        up: four tables [N_l, 8] int32 into level l+1, for the transposed convolutions; one entry a row is present.
    """

    coords: tuple[np.ndarray, ...]
    stem: np.ndarray
    neighbours: tuple[np.ndarray, ...]
    down: tuple[np.ndarray, ...]
    up: tuple[np.ndarray, ...]

    def inputs(self) -> dict[str, np.ndarray]:
        """Tables by the names that the point encoder's graph gives them."""
        named = {f"neighbours_{level}": table for level, table in enumerate(self.neighbours)}
        named |= {f"down_{level}": table for level, table in enumerate(self.down)}
        named |= {f"up_{level}": table for level, table in enumerate(self.up)}
        return {"stem": self.stem, **named}

    @classmethod
    def build(cls, coords: np.ndarray) -> "KernelMaps":
        """Maps of voxels [N, 3] int32, minimum 0, unique; level 0 keeps their order."""
        levels, parents = [Level(coords)], []
        for _ in range(LEVELS - 1):
            halved = levels[-1].coords >> 1
            unique, parent = np.unique(halved, axis=0, return_inverse=True)
            levels.append(Level(unique))
            parents.append(parent.reshape(-1).astype(np.int32))

        down, up = [], []
        for fine, coarse, parent in zip(levels, levels[1:], parents, strict=False):
            corner = fine.coords & 1
            kernel = corner[:, 0] + 2 * corner[:, 1] + 4 * corner[:, 2]
            rows = np.arange(len(fine), dtype=np.int32)
            down.append(np.full((len(coarse), 8), len(fine), np.int32))
            down[-1][parent, kernel] = rows
            up.append(np.full((len(fine), 8), len(coarse), np.int32))
            up[-1][rows, kernel] = parent

        return cls(
            coords=tuple((level.coords << stride).astype(np.int32) for stride, level in enumerate(levels)),
            stem=levels[0].neighbours(5),
            neighbours=tuple(level.neighbours(3) for level in levels),
            down=tuple(down),
            up=tuple(up),
        )
