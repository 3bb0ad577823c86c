import numpy as np
import pytest
import torch
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.host.voxels import fnv_hash, voxelise
from stllm_edge.runtime.inputs.points import load_points

SIZE = 0.06


def fnv_by_integers(row: tuple[int, ...]) -> int:
    value = 14695981039346656037
    for word in row:
        value = (value * 1099511628211) % 2**64 ^ word
    return value


def voxels_by_dictionary(points: np.ndarray, size: float) -> dict[tuple[int, ...], int]:
    """The first point of each voxel, by its index."""
    cells = np.floor(points.astype(np.float64) * (1 / size)).astype(int)
    first: dict[tuple[int, ...], int] = {}
    for place, cell in enumerate(cells - cells.min(axis=0)):
        first.setdefault(tuple(cell.tolist()), place)
    return dict(sorted(first.items(), key=lambda item: fnv_by_integers(item[0])))


def cloud(seed: int, count: int = 2000, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (
        generator.normal(0, spread, (count, 3)).astype(np.float32),
        generator.uniform(0, 255, (count, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("row", [(0, 0, 0), (1, 2, 3), (255, 256, 257), (2**20 - 1, 0, 2**20 - 1)])
def test_hash_is_fnv_1_over_three_words(row: tuple[int, int, int]) -> None:
    (hashed,) = fnv_hash(np.array([row], np.int32))
    assert int(hashed) == fnv_by_integers(row)


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.05), (1, 0.5), (2, 5.0), (3, 500.0)])
def test_voxels_order_and_first_points_match_a_dictionary(seed: int, spread: float) -> None:
    points, colours = cloud(seed, spread=spread)
    voxels, expected = voxelise(points, colours, SIZE), voxels_by_dictionary(points, SIZE)
    assert list(map(tuple, voxels.coords.tolist())) == list(expected)
    colour = torch.from_numpy(colours[list(expected.values())] / np.float32(127.5)).bfloat16() - 1
    assert np.array_equal(voxels.feats, colour.float().numpy())


def test_the_first_point_in_input_order_gives_the_colour() -> None:
    points = np.array([[0.01, 0, 0], [0.02, 0, 0], [0.2, 0, 0]], np.float32)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.float32)
    first = {tuple(row): feat.tolist() for row, feat in zip(*voxel_rows(points, colours), strict=True)}
    swapped = {tuple(row): feat.tolist() for row, feat in zip(*voxel_rows(points, colours[[1, 0, 2]]), strict=True)}
    assert first == {(0, 0, 0): [1, -1, -1], (3, 0, 0): [-1, -1, 1]}
    assert swapped[0, 0, 0] == [-1, 1, -1]


def voxel_rows(points: np.ndarray, colours: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    voxels = voxelise(points, colours, SIZE)
    return voxels.coords.tolist(), voxels.feats


def test_one_point_is_one_voxel_at_the_origin() -> None:
    voxels = voxelise(np.array([[-7.3, 2.0, 100.0]], np.float32), np.zeros((1, 3), np.float32), SIZE)
    assert len(voxels) == 1
    assert voxels.coords.tolist() == [[0, 0, 0]]
    assert voxels.minimum.tolist() == [-122, 33, 1666]


def test_negative_coordinates_are_floored() -> None:
    voxels = voxelise(np.array([[-0.01, 0, 0], [0.01, 0, 0]], np.float32), np.zeros((2, 3), np.float32), SIZE)
    assert sorted(voxels.coords[:, 0].tolist()) == [0, 1]
    assert voxels.minimum.tolist() == [-1, 0, 0]


def test_points_on_a_boundary_are_divided_in_float64() -> None:
    """Multiples of the voxel size: float32 arithmetic moves some of them to the voxel before."""
    steps = np.arange(400)
    points = np.zeros((400, 3), np.float32)
    points[:, 0] = steps * SIZE
    expected = {int(np.floor(float(x) * (1 / SIZE))) for x in points[:, 0]}
    coords = voxelise(points, np.zeros_like(points), SIZE).coords
    assert set(coords[:, 0].tolist()) == expected
    assert expected != set(np.floor(points[:, 0] * np.float32(1 / SIZE)).astype(int).tolist())


@pytest.mark.parametrize("size", [0.02, 0.06, 0.1])
def test_the_voxel_size_is_a_parameter(size: float) -> None:
    points, colours = cloud(5)
    voxels = voxelise(points, colours, size)
    assert voxels.size == size
    assert list(map(tuple, voxels.coords.tolist())) == list(voxels_by_dictionary(points, size))


def test_types() -> None:
    voxels = voxelise(*cloud(6), SIZE)
    assert (voxels.coords.dtype, voxels.feats.dtype, voxels.minimum.dtype) == (np.int32, np.float32, np.float64)
    assert np.abs(voxels.feats).max() <= 1


@pytest.mark.parametrize("far", [1e5, 1e30, 3e38])
def test_stray_points_are_refused(far: float) -> None:
    points = np.array([[0, 0, 0], [0, far, 0]], np.float32)
    with pytest.raises(BadInput, match="metres, and stray points cut off"):
        voxelise(points, np.zeros_like(points), SIZE)


def test_reference_voxels_are_reproduced_bit_for_bit(golden) -> None:
    stored = load_points(golden.scene / "points.npy")
    voxels = voxelise(stored.points, stored.colours, golden.case["voxel_size"])
    assert np.array_equal(voxels.coords, golden.expected["voxel_coords"])
    assert np.array_equal(voxels.feats, golden.expected["voxel_feats"])
    assert np.array_equal(voxels.minimum, golden.expected["voxel_min_coords"])
