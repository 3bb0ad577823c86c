"""Kernel maps against a search in a dictionary of voxels."""

import itertools

import numpy as np
import pytest
from stllm_edge.runtime.maps import LEVELS, KernelMaps, Level, offsets
from stllm_edge.runtime.scene import load_points
from stllm_edge.runtime.voxels import voxelise

Cell = tuple[int, int, int]


def kernel(size: int) -> list[Cell]:
    """Offsets, x fastest; odd kernels are centred."""
    shift = size // 2 if size % 2 else 0
    return [(x - shift, y - shift, z - shift) for z, y, x in itertools.product(range(size), repeat=3)]


def search(outputs: np.ndarray, inputs: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Row of `inputs` at each output plus each offset times a stride; their number where there is none."""
    rows = {tuple(cell): row for row, cell in enumerate(inputs.tolist())}
    table = [
        [rows.get((x + stride * i, y + stride * j, z + stride * k), len(inputs)) for i, j, k in kernel(size)]
        for x, y, z in outputs.tolist()
    ]
    return np.array(table)


def scattered(seed: int, count: int, extent: tuple[int, int, int]) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, extent, (count, 3))
    unique = np.unique(cells - cells.min(axis=0), axis=0)
    return np.random.default_rng(seed).permutation(unique).astype(np.int32)


def far_apart() -> np.ndarray:
    """Three dense blocks so far from each other that their bounding box cannot be tabulated."""
    block = scattered(3, 150, (6, 6, 6))
    corners = np.array([[0, 0, 0], [2**19, 0, 7], [3, 2**20 - 8, 2**18]])
    return np.concatenate([block + corner for corner in corners]).astype(np.int32)


SETS = {
    "dense block": scattered(0, 400, (8, 8, 8)),
    "surface": scattered(1, 500, (60, 40, 1)),
    "sparse": scattered(2, 300, (90, 70, 50)),
    "beyond 256": scattered(4, 300, (900, 3, 3)),
    "far apart": far_apart(),
    "one voxel": np.zeros((1, 3), np.int32),
    "two neighbours": np.array([[0, 0, 0], [1, 0, 0]], np.int32),
    "two strangers": np.array([[0, 5, 0], [2**20 - 1, 0, 0]], np.int32),
}


@pytest.fixture(scope="module", params=SETS, ids=list(SETS))
def coords(request: pytest.FixtureRequest) -> np.ndarray:
    return SETS[request.param]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_offsets_run_x_fastest_and_odd_kernels_are_centred(size: int) -> None:
    assert list(map(tuple, offsets(size).tolist())) == kernel(size)


def test_level_0_keeps_voxels_and_order(coords: np.ndarray) -> None:
    assert np.array_equal(KernelMaps.build(coords).coords[0], coords)


def test_each_level_holds_the_voxels_of_the_level_before_at_twice_the_stride(coords: np.ndarray) -> None:
    levels = KernelMaps.build(coords).coords
    assert len(levels) == LEVELS
    for number, (fine, coarse) in enumerate(itertools.pairwise(levels)):
        stride = 2 ** (number + 1)
        expected = {tuple(cell // stride * stride for cell in row) for row in fine.tolist()}
        assert set(map(tuple, coarse.tolist())) == expected
        assert len(coarse) == len(expected)


def test_the_stem_reads_the_5x5x5_surroundings(coords: np.ndarray) -> None:
    assert np.array_equal(KernelMaps.build(coords).stem, search(coords, coords, 5, 1))


@pytest.mark.parametrize("level", range(LEVELS))
def test_neighbours_are_those_of_a_search(coords: np.ndarray, level: int) -> None:
    maps = KernelMaps.build(coords)
    cells = maps.coords[level]
    assert np.array_equal(maps.neighbours[level], search(cells, cells, 3, 2**level))


@pytest.mark.parametrize("level", range(LEVELS - 1))
def test_strided_convolutions_read_the_eight_voxels_inside(coords: np.ndarray, level: int) -> None:
    maps = KernelMaps.build(coords)
    assert np.array_equal(maps.down[level], search(maps.coords[level + 1], maps.coords[level], 2, 2**level))


@pytest.mark.parametrize("level", range(LEVELS - 1))
def test_transposed_convolutions_read_the_one_parent_at_their_corner(coords: np.ndarray, level: int) -> None:
    """Fine voxel `U + stride * offset` receives coarse voxel `U`."""
    maps = KernelMaps.build(coords)
    fine, coarse = maps.coords[level], maps.coords[level + 1]
    rows = {tuple(cell): row for row, cell in enumerate(coarse.tolist())}
    expected = np.full((len(fine), 8), len(coarse))
    for row, cell in enumerate(fine.tolist()):
        parent = [value // 2 ** (level + 1) * 2 ** (level + 1) for value in cell]
        step = tuple((value - corner) // 2**level for value, corner in zip(cell, parent, strict=True))
        expected[row, kernel(2).index(step)] = rows[tuple(parent)]
    assert np.array_equal(maps.up[level], expected)
    assert ((maps.up[level] < len(coarse)).sum(axis=1) == 1).all()


def test_far_apart_voxels_do_not_fit_a_table() -> None:
    """What makes the sets above take both ways of looking a voxel up."""
    level = Level(far_apart())
    assert np.prod(level.coords.max(axis=0).astype(float) + 1) > 2**24


def test_a_search_finds_every_voxel_and_only_those(coords: np.ndarray) -> None:
    level = Level(coords)
    assert np.array_equal(level.rows(level.key(level.coords)), np.arange(len(coords)))
    outside = level.coords.max(axis=0) + np.array([1, 0, 0])
    assert level.rows(level.key(outside[None])).tolist() == [len(coords)]


def test_a_shift_of_the_scene_by_16_changes_nothing() -> None:
    """Sixteen voxels are one at the coarsest stride; a far voxel keeps the minimum at zero in both."""
    cells = SETS["sparse"]
    shifted = KernelMaps.build(cells + np.int32(16))
    plain = KernelMaps.build(cells)
    assert np.array_equal(shifted.stem, plain.stem)
    for ours, theirs in zip(
        (*shifted.neighbours, *shifted.down, *shifted.up), (*plain.neighbours, *plain.down, *plain.up), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_reference_scene_matches_a_search(closet) -> None:
    coords = voxelise(*load_points(closet.scene / "points.npy"), closet.case["voxel_size"]).coords
    maps = KernelMaps.build(coords)
    assert len(maps.coords[-1]) == 4
    assert np.array_equal(maps.stem, search(coords, coords, 5, 1))
    for level, cells in enumerate(maps.coords):
        assert np.array_equal(maps.neighbours[level], search(cells, cells, 3, 2**level))
