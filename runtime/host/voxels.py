"""Point clouds to voxels (SPEC section 3)."""

from dataclasses import dataclass

import numpy as np

from ..errors import BadInput
from .bf16 import round_bf16

__all__ = ["Voxels", "voxelise"]

FNV_OFFSET = np.uint64(14695981039346656037)
FNV_PRIME = np.uint64(1099511628211)
# three indices of so many bits, with the margins of kernel maps, fit into one int64 key
LARGEST_INDEX = 2**20


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels in the reference's order, ascending by hash.

    Attributes:
        coords: [N, 3] int32 voxel indices, minimum 0 over all points.
        feats: [N, 3] float32 colours in -1..1; exact bfloat16 values.
        minimum: [3] float64 index that was subtracted.
        size: edge of a voxel, metres.
    """

    coords: np.ndarray
    feats: np.ndarray
    minimum: np.ndarray
    size: float

    def __len__(self) -> int:
        return len(self.coords)


def voxelise(points: np.ndarray, colours: np.ndarray, voxel_size: float) -> Voxels:
    """Sort points into voxels; the first point of a voxel gives its colour.

    Args:
        points: [P, 3] float32, metres.
        colours: [P, 3] float32, 0..255.
        voxel_size: metres.

    Raises:
        BadInput: the cloud spans more voxels along an axis than indices can hold.
    """
    # by the reciprocal, as the reference does: division puts some points on a voxel's face into the voxel beside it,
    # and float32 moves others that lie close to a face
    cells = np.floor(points.astype(np.float64) * (1 / voxel_size))
    minimum = cells.min(axis=0)
    cells -= minimum
    if cells.max() >= LARGEST_INDEX:
        raise BadInput(
            f"the point cloud spans {cells.max() * voxel_size:.0f} m, over {LARGEST_INDEX} voxels of {voxel_size} m; "
            "points must be in metres, and stray points cut off (--crop)"
        )
    coords = cells.astype(np.int32)
    # unique() sorts and returns the first of equal values, both as the reference has it; equal hashes are one voxel
    _, first = np.unique(fnv_hash(coords), return_index=True)
    # rounded twice, as in the reference: once, at the end, gives half of the 256 levels another value
    colour = round_bf16(colours[first].astype(np.float32) / np.float32(127.5))
    return Voxels(coords[first], round_bf16(colour - np.float32(1)), minimum, voxel_size)


def fnv_hash(coords: np.ndarray) -> np.ndarray:
    """FNV-1 over the three indices of each row as 64-bit words, [N] uint64."""
    hashes = np.full(len(coords), FNV_OFFSET)
    # FNV-1 multiplies before it mixes, FNV-1a after; arrays wrap at 64 bits without a warning, scalars would give one
    for column in coords.astype(np.uint64).T:
        hashes = (hashes * FNV_PRIME) ^ column
    return hashes
