"""Kernel maps: which rows each sparse convolution reads (SPEC section 4).

Rows of a level are kept in the order of their position in the bounding box, so that neighbours lie close in memory;
the graph reads its input and writes its output in the caller's order. Every table's missing row is the row of zeros
that stands behind the last one.

Surfaces have about a third of the 27 neighbours of a 3x3x3 kernel. Each of its three planes of nine offsets is
therefore a sum of its own: rows are grouped into slabs by which of the nine they have, and a slab reads only the
offsets that its rows share.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..bundle.table import FORMATS, LEVELS, STAGES

__all__ = ["SLAB_OFFSETS", "KernelMaps", "Level", "Slabs", "build_levels", "offsets"]

# offsets that each slab of a plane reads; fixed, so that graphs know the widths of all products. The first reads all
# nine, and so takes whatever the others do not
SLAB_OFFSETS = (9, 8, 8, 7, 7, 6, 6, 6, 5, 5, 5, 4, 4, 4, 3, 3)
PLANES = 3
PLANE = 9
RUN = 5
# 128 MB of int32 at most: a dense array is faster, but grows with the empty space of a scene
DENSE_CELLS = 2**25
# a 5x5x5 kernel reaches two voxels beyond the box: with so much room on each side the key of a neighbour is that of
# the voxel plus a constant, and never that of a voxel at the other end of the next line
MARGIN = 2


def offsets(size: int) -> np.ndarray:
    """Offsets of a cubic kernel, x fastest, [size**3, 3] int64: centred for odd sizes, from 0 for even ones."""
    z, y, x = np.indices((size, size, size)).reshape(3, -1)
    return np.stack([x, y, z], axis=1) - (size // 2 if size % 2 else 0)


@dataclass(frozen=True)
class Index:
    """Rows by integer key: a dense array where the keys' range allows, else sorted keys.

    Attributes:
        keys: [N] int64, unique.
        cells: keys are below this.
    """

    keys: np.ndarray
    cells: int

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the given keys, int32; N where there is none."""
        if self._dense is not None:
            return self._dense[keys]
        order, ascending = self._sorted
        # a key above all others has its place behind the last
        place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
        return np.where(ascending[place] == keys, order[place], len(self.keys)).astype(np.int32)

    @cached_property
    def _dense(self) -> np.ndarray | None:
        if self.cells > DENSE_CELLS:
            return None
        dense = np.full(self.cells, len(self.keys), np.int32)
        dense[self.keys] = np.arange(len(self.keys), dtype=np.int32)
        return dense

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.keys)
        return order, self.keys[order]


@dataclass(frozen=True)
class Level:
    """The voxels at one stride.

    Attributes:
        coords: [N, 3] int64 voxel indices in units of the stride, unique, not negative.
        shape: [3] int64 size of the bounding box with a margin for neighbours.
    """

    coords: np.ndarray
    shape: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, coords: np.ndarray) -> "Level":
        """A level of voxels in the given order."""
        coords = coords.astype(np.int64)
        return cls(coords, coords.max(axis=0) + 1 + 2 * MARGIN)

    def __len__(self) -> int:
        return len(self.coords)

    def key(self, coords: np.ndarray) -> np.ndarray:
        """Position in the bounding box; a neighbour's is a constant away."""
        shifted = coords + MARGIN
        return (shifted[..., 2] * self.shape[1] + shifted[..., 1]) * self.shape[0] + shifted[..., 0]

    def step(self, offset: np.ndarray) -> np.ndarray:
        """How far away the keys of neighbours at the offsets [..., 3] are."""
        return self.key(offset) - self.key(np.zeros(3, np.int64))

    @cached_property
    def keys(self) -> np.ndarray:
        return self.key(self.coords)

    @cached_property
    def index(self) -> Index:
        """Rows by key."""
        return Index(self.keys, int(np.prod(self.shape)))

    def neighbours(self, size: int) -> np.ndarray:
        """Rows that a centred kernel reads, [size**3, N] int32; N where there is none."""
        return np.stack([self.index.rows(self.keys + step) for step in self.step(offsets(size))])

    def halved(self) -> tuple["Level", np.ndarray]:
        """The next coarser level, and each voxel's parent in it as [N] int32 rows."""
        coarse = Level.of(self.coords >> 1)
        # sorted by key: coarse rows are in the order of their position whatever that of the fine ones
        keys, parent = np.unique(coarse.keys, return_inverse=True)
        coords = np.stack(
            [
                keys % coarse.shape[0],
                keys // coarse.shape[0] % coarse.shape[1],
                keys // (coarse.shape[0] * coarse.shape[1]),
            ],
            axis=1,
        )
        return Level(coords - MARGIN, coarse.shape), parent.reshape(-1).astype(np.int32)

    @cached_property
    def corner(self) -> np.ndarray:
        """Kernel offset at which each voxel lies in its parent, [N] int64 in 0..7."""
        bits = self.coords & 1
        return bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]


def build_levels(coords: np.ndarray) -> tuple[list[Level], list[np.ndarray]]:
    """Five levels of voxels [N, 3], the first in the given order, and the parents of the first four."""
    levels, parents = [Level.of(coords)], []
    for _ in range(LEVELS - 1):
        coarse, parent = levels[-1].halved()
        levels.append(coarse)
        parents.append(parent)
    return levels, parents


@dataclass(frozen=True)
class Slabs:
    """A 3x3x3 kernel's map as three sums over slabs.

    Attributes:
        rows: [M] int32, the slabs' tables of rows to read, one after the other; a slab's has a row for each of its
            voxels and a column for each of its offsets.
        bounds: [49] int64, where the tables of the 3 x 16 slabs begin, and where the last ends.
        offsets: [3 x 90] int32, the offsets that each slab reads, `SLAB_OFFSETS` of them.
        place: [3, N+1] int32, where each voxel stands among the rows that a plane's slabs write, the row of zeros last.
    """

    rows: np.ndarray
    bounds: np.ndarray
    offsets: np.ndarray
    place: np.ndarray

    @classmethod
    def build(cls, table: np.ndarray) -> "Slabs":
        """Slabs of a table [27, N] whose missing row is N."""
        padded = np.concatenate([table, np.full((len(table), 1), table.shape[1], np.int32)], axis=1)
        planes = [PlaneSlabs.build(padded[plane * PLANE :][:PLANE]) for plane in range(PLANES)]
        tables = [rows for plane in planes for rows in plane.tables]
        return cls(
            rows=np.concatenate([rows.ravel() for rows in tables]),
            bounds=np.concatenate([[0], np.cumsum([rows.size for rows in tables])]),
            offsets=np.concatenate([plane * PLANE + part.offsets for plane, part in enumerate(planes)]).astype(
                np.int32
            ),
            place=np.stack([plane.place for plane in planes]),
        )


@dataclass(frozen=True)
class PlaneSlabs:
    """One plane of a kernel."""

    tables: list[np.ndarray]
    offsets: np.ndarray
    place: np.ndarray

    @classmethod
    def build(cls, table: np.ndarray) -> "PlaneSlabs":
        """Slabs of a plane's table [9, N+1] whose last column is missing rows."""
        missing = table.shape[1] - 1
        # which of the nine neighbours each voxel has, as a bit mask
        code = np.zeros(missing + 1, np.int32)
        for bit, row in enumerate(table):
            code |= (row != missing).astype(np.int32) << bit
        patterns, slab_of_code = cover(np.bincount(code[:-1], minlength=2**PLANE))
        slab = slab_of_code[code[:-1]]
        # stable: within a slab voxels keep the order of their position, so what they read lies close together
        order = np.argsort(slab, kind="stable")
        starts = np.searchsorted(slab[order], np.arange(len(patterns) + 1))

        tables, used, place, written = [], [], np.empty(missing + 1, np.int32), 0
        for number, pattern in enumerate(patterns):
            members = order[starts[number] : starts[number + 1]]
            used.append(np.flatnonzero(pattern >> np.arange(PLANE) & 1))
            place[members] = written + np.arange(len(members), dtype=np.int32)
            # a slab is never empty: one row of zeros keeps every size positive
            reading = members if len(members) else np.array([missing])
            tables.append(np.ascontiguousarray(table[used[-1]][:, reading].T))
            written += len(reading)
        # voxels without a neighbour in this plane are in no slab; like the missing row they take the row of zeros
        place[order[starts[-1] :]] = written
        place[-1] = written
        return cls(tables, np.concatenate(used), place)


def cover(count: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Choose the offsets of the slabs of a plane so that few missing rows are read.

    Args:
        count: [512] voxels by which of the nine offsets they have, as a bit mask.

    Returns:
        One mask a slab, of `SLAB_OFFSETS` bits each, chosen greedily; and the slab of each mask, the number of slabs
        for the empty one.
    """
    masks = np.arange(2**PLANE)
    bits = (
        np.bitwise_count(masks) if hasattr(np, "bitwise_count") else np.array([bin(mask).count("1") for mask in masks])
    )
    # within[a, b]: a slab that reads the offsets b serves the voxels that have the neighbours a
    within = (masks[:, None] & ~masks[None]) == 0
    # rows that a voxel of each mask reads in the best slab so far
    cost = np.full(len(masks), PLANE, np.float64)
    cost[0] = 0
    patterns = [len(masks) - 1]
    for size in SLAB_OFFSETS[1:]:
        candidates = np.flatnonzero(bits == size)
        # rows that all voxels together would no longer read, for each pattern of this size
        gain = (count * np.maximum(cost - size, 0)) @ within[:, candidates]
        best = int(candidates[gain.argmax()])
        patterns.append(best)
        cost[within[:, best]] = np.minimum(cost[within[:, best]], size)
    # a slab that lacks one of a voxel's neighbours must never be the cheapest
    reads = np.where(within[:, patterns], bits[patterns], PLANE + 1)
    slab = reads.argmin(axis=1)
    slab[0] = len(patterns)
    return patterns, slab


@dataclass(frozen=True)
class KernelMaps:
    """Inputs of the point encoder's graph.

    Attributes:
        map_format: one of `FORMATS`.
        runs: [R+1, 5] int32, the caller's rows of five voxels along x; the last run is all missing.
        stem: [N, 25] int32, the runs that the 5x5x5 kernel reads.
        order: [N] int32, where each voxel of the caller stands.
        slabs: maps of the 3x3x3 kernels at the two finest levels; none in the format `tables`.
        tables: maps [N_l, 27] int32 of those at the other levels.
        down: four tables [N_(l+1), 8] int32 into level l, for the strided convolutions.
        up: four arrays [N_l + 1] int32, `8 * parent + offset` for the transposed ones.
    """

    map_format: str
    runs: np.ndarray
    stem: np.ndarray
    order: np.ndarray
    slabs: tuple[Slabs, ...]
    tables: tuple[np.ndarray, ...]
    down: tuple[np.ndarray, ...]
    up: tuple[np.ndarray, ...]

    @classmethod
    def build(cls, coords: np.ndarray, map_format: str = "slabs") -> "KernelMaps":
        """Maps of voxels [N, 3] int32, unique, minimum 0, in one of `FORMATS`."""
        slabbed = FORMATS[map_format]
        sorting = np.argsort(Level.of(coords).keys)
        levels, parents = build_levels(coords[sorting])
        order = np.empty(len(coords), np.int32)
        order[sorting] = np.arange(len(coords), dtype=np.int32)
        runs, stem = build_runs(levels[0], sorting)
        neighbours = [level.neighbours(3) for level in levels]
        return cls(
            map_format=map_format,
            runs=runs,
            stem=stem,
            order=order,
            slabs=tuple(Slabs.build(table) for table in neighbours[:slabbed]),
            tables=tuple(np.ascontiguousarray(table.T) for table in neighbours[slabbed:]),
            down=tuple(
                children(fine, len(coarse), parent)
                for fine, coarse, parent in zip(levels, levels[1:], parents, strict=False)
            ),
            # the missing row stands behind the eight children of the last parent
            up=tuple(
                np.append(8 * parent + fine.corner, 8 * len(coarse)).astype(np.int32)
                for fine, coarse, parent in zip(levels, levels[1:], parents, strict=False)
            ),
        )

    def inputs(self) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs."""
        _, *names = STAGES["points"].inputs[self.map_format]
        parts = zip(*((slabs.rows, slabs.bounds, slabs.offsets, slabs.place) for slabs in self.slabs), strict=True)
        slabbed = [array for part in parts for array in part]
        arrays = (self.runs, self.stem, self.order, *slabbed, *self.tables, *self.down, *self.up)
        return dict(zip(names, arrays, strict=True))


def children(fine: Level, coarse: int, parent: np.ndarray) -> np.ndarray:
    """Rows of the finer level that each of `coarse` parents reads, [coarse, 8] int32."""
    table = np.full((coarse, 8), len(fine), np.int32)
    table[parent, fine.corner] = np.arange(len(fine), dtype=np.int32)
    return table


def build_runs(level: Level, caller: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of five voxels along x, [R+1, 5], and the 25 runs that each voxel reads, [N, 25], both int32.

    `caller` gives the caller's row of each of the level's rows.
    """
    along = np.arange(RUN) - RUN // 2
    occupied = np.zeros(int(np.prod(level.shape)), bool) if level.index.cells <= DENSE_CELLS else None
    if occupied is None:
        positions = np.unique(level.keys[:, None] + along)
    else:
        for shift in along:
            occupied[level.keys + shift] = True
        positions = np.flatnonzero(occupied)
    # beyond the margin a run would wrap into the next line of the box; nothing reads those
    callers = np.append(caller, len(level)).astype(np.int32)
    runs = callers[level.index.rows(positions[:, None] + along)]
    # x is fastest, so every fifth offset from the third on is the middle of a line
    lines = offsets(RUN)[RUN // 2 :: RUN]
    index = Index(positions, level.index.cells)
    stem = np.stack([index.rows(level.keys + step) for step in level.step(lines)], axis=1)
    missing = np.full((1, RUN), len(level), np.int32)
    return np.concatenate([runs, missing]), stem
