"""Kernel maps against a search in a dictionary of voxels."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.bundle.table import FORMATS, LEVELS
from stllm_edge.runtime.host import maps
from stllm_edge.runtime.host.maps import SLAB_OFFSETS, KernelMaps, Level, Slabs, build_levels, cover, offsets
from stllm_edge.runtime.host.voxels import voxelise
from stllm_edge.runtime.inputs.points import load_points

Cell = tuple[int, int, int]
SLABBED_LEVELS = FORMATS["slabs"]
PLANES, PLANE = 3, 9


def kernel(size: int) -> list[Cell]:
    """Offsets, x fastest; odd kernels are centred."""
    shift = size // 2 if size % 2 else 0
    return [(x - shift, y - shift, z - shift) for z, y, x in itertools.product(range(size), repeat=3)]


def search(outputs: np.ndarray, inputs: np.ndarray, size: int) -> np.ndarray:
    """Row of `inputs` at each output plus each offset, [outputs, size**3]; their number where there is none."""
    rows = {tuple(cell): row for row, cell in enumerate(inputs.tolist())}
    table = [[rows.get((x + i, y + j, z + k), len(inputs)) for i, j, k in kernel(size)] for x, y, z in outputs.tolist()]
    return np.array(table)


def scattered(seed: int, count: int, extent: Cell) -> np.ndarray:
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
    "full cube": np.argwhere(np.ones((7, 7, 7))).astype(np.int32),
    "surface": scattered(1, 500, (60, 40, 1)),
    "sparse": scattered(2, 300, (90, 70, 50)),
    "beyond 256": scattered(4, 300, (900, 3, 3)),
    "far apart": far_apart(),
    "one voxel": np.zeros((1, 3), np.int32),
    "two neighbours": np.array([[1, 0, 0], [0, 0, 0]], np.int32),
    "two strangers": np.array([[0, 5, 0], [2**20 - 1, 0, 0]], np.int32),
    "fewer voxels than slabs": scattered(5, 9, (3, 3, 3)),
}


@pytest.fixture(scope="module", params=SETS, ids=list(SETS))
def coords(request: pytest.FixtureRequest) -> np.ndarray:
    return SETS[request.param]


def levels_of(built: KernelMaps, coords: np.ndarray) -> list[np.ndarray]:
    """Voxels of each level in the order of the maps."""
    ordered = np.empty_like(coords)
    ordered[built.order] = coords
    return [level.coords for level in build_levels(ordered)[0]]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_offsets_run_x_fastest_and_odd_kernels_are_centred(size: int) -> None:
    assert list(map(tuple, offsets(size).tolist())) == kernel(size)


# levels


@pytest.mark.parametrize("dense_cells", [maps.DENSE_CELLS, 0], ids=["dense", "sorted"])
@pytest.mark.parametrize("size", [3, 5])
def test_neighbours_are_those_of_a_search(
    coords: np.ndarray, size: int, dense_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "DENSE_CELLS", dense_cells)
    for level in build_levels(coords)[0][: 2 if size == 5 else LEVELS]:
        assert np.array_equal(level.neighbours(size).T, search(level.coords, level.coords, size))


def test_far_apart_voxels_do_not_fit_a_table() -> None:
    """What makes the sets above take both ways of looking a voxel up."""
    assert Level.of(SETS["far apart"]).index.cells > maps.DENSE_CELLS > Level.of(SETS["surface"]).index.cells


def test_each_level_halves_the_one_before(coords: np.ndarray) -> None:
    levels, parents = build_levels(coords)
    assert (len(levels), len(parents)) == (LEVELS, LEVELS - 1)
    assert np.array_equal(levels[0].coords, coords)
    for fine, coarse, parent in zip(levels, levels[1:], parents, strict=False):
        assert len({tuple(cell) for cell in coarse.coords.tolist()}) == len(coarse)
        assert np.array_equal(coarse.coords[parent], fine.coords >> 1)
        assert set(parent.tolist()) == set(range(len(coarse)))
        assert np.array_equal(2 * coarse.coords[parent] + offsets(2)[fine.corner], fine.coords)
        assert (np.diff(coarse.keys) > 0).all()


# slabs


def read_slabs(slabs: Slabs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The table [27, N] that slabs stand for, and how often each of its entries is read."""
    table, reads = np.full((PLANES * PLANE, count), count), np.zeros((PLANES * PLANE, count), int)
    bounds, used = iter(itertools.pairwise(slabs.bounds.tolist())), iter(slabs.offsets)
    for plane in range(PLANES):
        written: list[dict[int, int]] = []
        for size in SLAB_OFFSETS:
            begin, end = next(bounds)
            columns = list(itertools.islice(used, size))
            assert len(set(columns)) == size
            assert {column // PLANE for column in columns} == {plane}
            tables = slabs.rows[begin:end].reshape(-1, size).tolist()
            written += [dict(zip(columns, row, strict=True)) for row in tables]
        for voxel in range(count):
            place = slabs.place[plane, voxel]
            for column, row in written[place].items() if place < len(written) else ():
                table[column, voxel] = row
                reads[column, voxel] += 1
        assert slabs.place[plane].max() == slabs.place[plane, -1] == len(written)
    return table, reads


def test_slabs_read_every_neighbour_once(coords: np.ndarray) -> None:
    for level in build_levels(coords)[0][:SLABBED_LEVELS]:
        table = level.neighbours(3)
        slabs = Slabs.build(table)
        found, reads = read_slabs(slabs, len(level))
        assert np.array_equal(found, table)
        assert reads.max() <= 1
        assert (reads[table < len(level)] == 1).all()
        assert (np.diff(slabs.bounds) > 0).all()
        assert slabs.bounds[-1] == len(slabs.rows)


def test_no_two_voxels_share_a_row_of_a_slab(coords: np.ndarray) -> None:
    slabs = Slabs.build(Level.of(coords).neighbours(3))
    for plane in slabs.place:
        reading = plane[plane < plane[-1]]
        assert len(set(reading.tolist())) == len(reading)


def test_slabs_of_a_surface_read_far_fewer_rows_than_a_whole_table() -> None:
    table = Level.of(np.argwhere(np.ones((50, 50, 1)))).neighbours(3)
    assert len(Slabs.build(table).rows) < 0.4 * table.size


@pytest.mark.parametrize("seed", range(3))
def test_each_mask_gets_a_smallest_slab_that_covers_it(seed: int) -> None:
    patterns, slab = cover(np.random.default_rng(seed).integers(0, 100, 2**PLANE))
    assert [pattern.bit_count() for pattern in patterns] == list(SLAB_OFFSETS)
    assert slab[0] == len(patterns)
    for mask in range(1, 2**PLANE):
        sizes = [pattern.bit_count() for pattern in patterns if not mask & ~pattern]
        assert not mask & ~patterns[slab[mask]]
        assert patterns[slab[mask]].bit_count() == min(sizes)


# all maps of a scene


def test_rows_are_ordered_by_position(coords: np.ndarray) -> None:
    built = KernelMaps.build(coords)
    assert sorted(built.order.tolist()) == list(range(len(coords)))
    ordered = levels_of(built, coords)[0]
    assert [tuple(cell[::-1]) for cell in ordered.tolist()] == sorted(tuple(cell[::-1]) for cell in coords.tolist())


def test_the_stem_reads_the_5x5x5_surroundings_in_the_caller_s_rows(coords: np.ndarray) -> None:
    built = KernelMaps.build(coords)
    assert np.array_equal(built.runs[built.stem].reshape(len(coords), 125)[built.order], search(coords, coords, 5))
    assert (built.runs[-1] == len(coords)).all()
    assert len(np.unique(built.runs[:-1], axis=0)) == len(built.runs) - 1


def test_slabs_and_tables_are_the_neighbours_of_each_level(coords: np.ndarray) -> None:
    built = KernelMaps.build(coords)
    levels = levels_of(built, coords)
    for slabs, cells in zip(built.slabs, levels[:SLABBED_LEVELS], strict=True):
        assert np.array_equal(read_slabs(slabs, len(cells))[0].T, search(cells, cells, 3))
    for table, cells in zip(built.tables, levels[SLABBED_LEVELS:], strict=True):
        assert np.array_equal(table, search(cells, cells, 3))


def test_strided_convolutions_read_the_eight_voxels_inside(coords: np.ndarray) -> None:
    built = KernelMaps.build(coords)
    levels = levels_of(built, coords)
    for down, fine, coarse in zip(built.down, levels, levels[1:], strict=False):
        assert np.array_equal(down, search(2 * coarse, fine, 2))


def test_transposed_convolutions_take_the_parent_s_product_of_their_corner(coords: np.ndarray) -> None:
    built = KernelMaps.build(coords)
    levels = levels_of(built, coords)
    for up, fine, coarse in zip(built.up, levels, levels[1:], strict=False):
        parent, corner = np.divmod(up[:-1], 8)
        assert np.array_equal(2 * coarse[parent] + np.array(kernel(2))[corner], fine)
        assert up[-1] == 8 * len(coarse)


def test_both_ways_of_looking_up_give_the_same_maps(coords: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = KernelMaps.build(coords).inputs()
    monkeypatch.setattr(maps, "DENSE_CELLS", 0)
    for name, array in KernelMaps.build(coords).inputs().items():
        assert np.array_equal(array, expected[name]), name


def test_inputs_are_contiguous_integers_under_the_graph_s_names() -> None:
    inputs = KernelMaps.build(SETS["sparse"]).inputs()
    slabs = [f"slab_{part}_{level}" for part in ("rows", "bounds", "offsets", "place") for level in range(2)]
    tables = [*(f"tables_{n}" for n in range(3)), *(f"{name}_{n}" for name in ("down", "up") for n in range(4))]
    assert set(inputs) == {"runs", "stem", "order", *slabs, *tables}
    for name, array in inputs.items():
        assert array.dtype == (np.int64 if "bounds" in name else np.int32), name
        assert array.flags.c_contiguous, name


def test_a_shift_of_the_scene_by_16_changes_nothing() -> None:
    """Sixteen voxels are one at the coarsest stride."""
    plain, shifted = (KernelMaps.build(SETS["sparse"] + np.int32(shift)).inputs() for shift in (0, 16))
    for name, array in shifted.items():
        assert np.array_equal(array, plain[name]), name


def test_reference_scene_matches_a_search(closet: Any) -> None:
    cloud: Path = closet.scene / "points.npy"
    stored = load_points(cloud)
    coords = voxelise(stored.points, stored.colours, closet.case["voxel_size"]).coords
    levels, _ = build_levels(coords)
    assert len(levels[-1]) == 4
    for level in levels:
        assert np.array_equal(level.neighbours(3).T, search(level.coords, level.coords, 3))
