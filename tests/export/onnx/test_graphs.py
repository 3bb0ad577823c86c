"""The forms that are traced compute what the plain modules compute."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.export.model.points import BatchNorm, MapTensors
from stllm_edge.export.onnx.graphs import AlignerGraph, PointsGraph, VisionGraph, transpose_linears
from stllm_edge.export.onnx.sparse import map_tensors
from stllm_edge.runtime.bundle.geometry import AlignerGeometry, PointGeometry, VisionGeometry
from stllm_edge.runtime.host.maps import KernelMaps
from stllm_edge.runtime.host.rays import encode_directions

EXACT = 3e-6


def full_encoding(directions: np.ndarray) -> torch.Tensor:
    """[M, 3] to [M, 765] with all columns: 63 powers of two, the overflow -2**63, then frequency 0."""
    frequencies = torch.tensor([*(2.0**k for k in range(63)), -(2.0**63), *[0.0] * 63], dtype=torch.float64)
    angles = (torch.from_numpy(directions).double()[:, :, None] * frequencies).flatten(1)
    return torch.cat([torch.from_numpy(directions), angles.sin().float(), angles.cos().float()], dim=1)


def directions(count: int) -> np.ndarray:
    rows = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    return (rows / rows.norm(dim=1, keepdim=True)).bfloat16().float().numpy()


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize(
    "geometry",
    [
        TINY.vision,
        replace(TINY.vision, image_size=70, grid=3),
        replace(TINY.vision, image_size=98, grid=4, layers=1, heads=4),
        replace(TINY.vision, image_size=14, grid=1),
    ],
    ids=["4 to 2", "5 to 3", "7 to 4", "1 to 1"],
)
def test_pooling_before_the_last_linear_changes_nothing(
    geometry: VisionGeometry, frames: int, random_part: Any, rel_rms: Any
) -> None:
    plain = random_part(replace(TINY, vision=geometry), "vision")
    pixels = torch.rand(frames, 3, geometry.image_size, geometry.image_size) * 2 - 1
    with torch.inference_mode():
        pooled = plain(pixels)
        tokens = plain.video_tokens(pooled)
        graph = VisionGraph(plain)
        ours = graph(pixels)
        transpose_linears(graph)
        assert rel_rms(graph(pixels), ours) < EXACT
    grid = geometry.grid
    assert ours.shape == (frames, grid, grid + 1, TINY.llm.width)
    assert rel_rms(ours[:, :, :-1].reshape(pooled.shape), pooled) < EXACT
    assert rel_rms(ours.flatten(0, 2), tokens) < EXACT


@pytest.mark.parametrize(("voxels", "patches", "text"), [(30, 8, 5), (1, 1, 1)])
@pytest.mark.parametrize(
    "geometry",
    [
        TINY.aligner,
        replace(TINY.aligner, layers=1, cross_layers=(0,)),
        replace(TINY.aligner, layers=2, cross_layers=(0,), latents=32),
        replace(TINY.aligner, layers=4, cross_layers=(1, 3), latents=1),
    ],
    ids=["last crosses", "one layer", "last does not cross", "one latent"],
)
def test_aligner_without_dead_rows_and_constant_columns_changes_nothing(
    geometry: AlignerGeometry, voxels: int, patches: int, text: int, random_part: Any, rel_rms: Any
) -> None:
    plain = random_part(replace(TINY, aligner=geometry), "aligner")
    points, frames = torch.randn(voxels, geometry.width), torch.randn(patches, TINY.llm.width)
    words = torch.randn(text, TINY.llm.width)
    seen, looked = directions(voxels), directions(patches)
    with torch.inference_mode():
        expected = plain(points, full_encoding(seen), frames, full_encoding(looked), words)
        graph = AlignerGraph(plain)
        transpose_linears(graph)
        rays = [torch.from_numpy(encode_directions(rows)) for rows in (seen, looked)]
        ours = graph(points, rays[0], frames, rays[1], words)
    assert ours.shape == (geometry.latents, TINY.llm.width)
    assert rel_rms(ours, expected) < EXACT


SMALL = PointGeometry(
    channels=(3, 24, 20, 22, 26, 36, 28, 25, 21, 19),
    downsampled=(23, 18, 21, 27),
    upsampled=(33, 26, 22, 17),
    blocks=(1, 2, 1, 1, 1, 2, 1, 1),
    features=11,
)


def scattered(count: int, extent: int) -> np.ndarray:
    """Voxels [N, 3] in random order, the minimum at zero."""
    generator = np.random.default_rng(count)
    coords = np.unique(generator.integers(0, extent, (count, 3)), axis=0)
    return generator.permutation(coords - coords.min(axis=0)).astype(np.int32)


CLOUDS = {
    "one voxel": np.zeros((1, 3), np.int32),
    "two voxels": np.array([[3, 0, 0], [0, 0, 1]], np.int32),
    "scattered": scattered(300, 12),
    "far apart": scattered(60, 2**19),
    "full cube": np.argwhere(np.ones((7, 8, 9))).astype(np.int32),
}


@pytest.mark.parametrize("coords", CLOUDS.values(), ids=CLOUDS)
@pytest.mark.parametrize("geometry", [TINY.points, SMALL], ids=["tiny", "widths that never match"])
def test_slabs_runs_and_folded_batch_normalisation_change_nothing(
    geometry: PointGeometry, coords: np.ndarray, random_part: Any, rel_rms: Any
) -> None:
    plain = random_part(replace(TINY, points=geometry), "points")
    feats = torch.rand(len(coords), 3) * 2 - 1
    with torch.inference_mode():
        expected = plain(feats, MapTensors.build(coords))
        graph = PointsGraph(plain)
        ours = graph(feats, map_tensors(KernelMaps.build(coords)))
    assert not any(isinstance(module, BatchNorm | torch.nn.BatchNorm1d) for module in graph.modules())
    assert rel_rms(ours, expected) < EXACT
