"""View directions against the reference's operations in torch, and against float64."""

import math

import numpy as np
import pytest
import torch
from stllm_edge.runtime.bundle.geometry import VisionGeometry
from stllm_edge.runtime.host.rays import (
    LIVE_COLUMNS,
    Rays,
    camera_rays,
    encode_directions,
    frame_directions,
    scale_intrinsics,
    voxel_directions,
    voxel_poses,
    world_to_first_camera,
)
from stllm_edge.runtime.host.voxels import Voxels, voxelise
from stllm_edge.runtime.inputs.clip import load_clip
from stllm_edge.runtime.inputs.scene import load_scene

INTRINSICS = np.array([[290.0, 0, 221.3], [0, 275.5, 120.7], [0, 0, 1]])


def vision(image_size: int, grid: int) -> VisionGeometry:
    return VisionGeometry(image_size=image_size, patch_size=14, width=8, layers=1, heads=1, mlp=8, grid=grid)


def random_poses(seed: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose in poses:
        q, r = np.linalg.qr(generator.normal(size=(3, 3)))
        q *= np.sign(np.diag(r))
        q[:, 0] *= np.linalg.det(q)
        pose[:3, :3], pose[:3, 3] = q, generator.normal(0, 3, 3)
    return poses


def bf16(values: torch.Tensor) -> torch.Tensor:
    return values.float().bfloat16().float()


def added(terms: torch.Tensor) -> torch.Tensor:
    """Sum of the last axis in float32, from the first term on."""
    total = terms[..., 0]
    for column in range(1, terms.shape[-1]):
        total = total + terms[..., column]
    return total


def frames_in_torch(cameras: np.ndarray, w2c_0: np.ndarray, k: np.ndarray, size: int, grid: int) -> np.ndarray:
    c2ws, w2c = torch.from_numpy(cameras), torch.from_numpy(w2c_0)
    fx, fy, cx, cy = (torch.tensor(k[place], dtype=torch.float32) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    row, column = torch.meshgrid(torch.arange(size).float() + 0.5, torch.arange(size).float() + 0.5, indexing="ij")
    pixels = torch.stack([(column - cx) / fx, (row - cy) / fy, torch.ones(size, size)], dim=-1).bfloat16()
    pooled = []
    for c2w in c2ws:
        rotation = added(w2c[:, None, :] * c2w.T[None]).bfloat16()[:3, :3]
        turned = bf16(added((pixels[..., None, :] * rotation).float()))
        unit = bf16(turned / bf16(added(turned * turned).sqrt())[..., None])
        aligned = bf16(added(unit[..., None, :] * c2ws[0, :3, :3].T))
        image = aligned.permute(2, 0, 1).contiguous().bfloat16()
        pooled.append(torch.nn.functional.adaptive_avg_pool2d(image[None], grid)[0].permute(1, 2, 0).float())
    return torch.stack(pooled).numpy()


@pytest.mark.parametrize(("size", "grid"), [(70, 3), (56, 2), (55, 3), (97, 14), (384, 14), (45, 45), (7, 9), (33, 1)])
def test_frames_match_torch_with_its_adaptive_pooling(size: int, grid: int) -> None:
    cameras = voxel_poses(random_poses(size, 3), np.array([-10.0, 4, 70]), 0.06)
    w2c_0, k = world_to_first_camera(cameras), scale_intrinsics(INTRINSICS, (456, 256), size)
    ours = frame_directions(cameras, w2c_0, k, size, grid)
    assert ours.shape == (3, grid, grid, 3)
    assert np.array_equal(ours, frames_in_torch(cameras, w2c_0, k, size, grid))


@pytest.mark.parametrize("seed", range(4))
def test_frames_are_near_the_directions_of_geometry(seed: int) -> None:
    """Directions in the world, pooled, without any rounding; bfloat16 keeps about three digits."""
    poses = random_poses(seed, 2)
    poses[:, :3, 3] = 0
    cameras = voxel_poses(poses, np.zeros(3), 0.06)
    k = scale_intrinsics(INTRINSICS, (456, 256), 60)
    ours = frame_directions(cameras, world_to_first_camera(cameras), k, 60, 5)
    centres = np.arange(60) + 0.5
    x, y = np.meshgrid((centres - k[0, 2]) / k[0, 0], (centres - k[1, 2]) / k[1, 1])
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    first = poses[0, :3, :3]
    for frame, pose in zip(ours, poses, strict=True):
        turned = rays @ (first.T @ pose[:3, :3]).T @ first
        assert np.abs(frame - turned.reshape(5, 12, 5, 12, 3).mean(axis=(1, 3))).max() < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_voxels_are_within_a_last_place_of_float64(seed: int) -> None:
    w2c_0 = world_to_first_camera(voxel_poses(random_poses(seed, 1), np.array([-50.0, -20, 0]), 0.06))
    coords = np.random.default_rng(seed).integers(0, 600, (4000, 3)).astype(np.int32)
    ours = voxel_directions(coords, w2c_0)
    places = torch.from_numpy(coords).bfloat16().double()
    matrix = torch.from_numpy(w2c_0).double()
    camera = (places @ matrix[:3, :3].T + matrix[:3, 3]).bfloat16().double()
    exact = (camera / camera.norm(dim=1, keepdim=True)).bfloat16().float().numpy()
    assert np.abs(ours - exact).max() <= 2**-8
    assert (ours != exact).any(axis=1).mean() < 2e-3


def test_a_voxel_at_the_camera_has_direction_zero() -> None:
    assert voxel_directions(np.zeros((1, 3), np.int32), np.eye(4, dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_translations_are_in_voxels_from_the_minimum() -> None:
    pose = np.eye(4)
    pose[:3, 3] = [0.6, -1.2, 0.06]
    assert voxel_poses(pose[None], np.array([-5.0, -30, 1]), 0.06)[0, :3, 3].tolist() == [15, 10, 0]


def test_poses_are_not_changed() -> None:
    poses = random_poses(1, 2)
    before = poses.copy()
    voxel_poses(poses, np.ones(3), 0.06)
    assert np.array_equal(poses, before)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_camera_is_inverted(seed: int) -> None:
    cameras = voxel_poses(random_poses(seed, 3), np.zeros(3), 0.06)
    w2c_0 = world_to_first_camera(cameras)
    assert np.abs(w2c_0.astype(np.float64) @ cameras[0] - np.eye(4)).max() < 0.5
    assert np.array_equal(w2c_0[:3, :3], cameras[0, :3, :3].T)
    exact = torch.from_numpy(-cameras[0, :3, :3].T.astype(np.float64) @ cameras[0, :3, 3]).float().bfloat16().float()
    assert np.allclose(w2c_0[:3, 3], exact, rtol=2**-7)


def test_intrinsics_are_scaled_by_axis() -> None:
    scaled = scale_intrinsics(np.array([[100.0, 0, 60], [0, 80, 40], [0, 0, 1]]), (120, 80), 60)
    assert np.allclose(scaled, [[50, 0, 30], [0, 60, 30], [0, 0, 1]])


def test_only_the_first_camera_places_the_voxels() -> None:
    poses, coords = random_poses(9, 4), np.random.default_rng(0).integers(0, 90, (50, 3)).astype(np.int32)
    voxels = Voxels(coords, np.zeros((50, 3), np.float32), minimum=np.zeros(3), size=0.06)

    def rays(chosen: np.ndarray) -> Rays:
        return camera_rays(voxels, chosen, INTRINSICS, frame_size=(456, 256), vision=vision(28, 2))

    together, alone = rays(poses), rays(poses[:1])
    assert np.array_equal(together.voxels, alone.voxels)
    assert np.array_equal(together.frames[:1], alone.frames)
    assert together.frames.shape == (4, 2, 2, 3)


@pytest.fixture(scope="module")
def directions() -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(40, 3))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    values[0] = [0, 1, -1]
    return torch.from_numpy(values).bfloat16().float().numpy()


def test_encoding_has_directions_then_sines_then_cosines(directions: np.ndarray) -> None:
    encoded = encode_directions(directions)
    assert encoded.shape == (40, LIVE_COLUMNS) == (40, 387)
    assert np.array_equal(encoded[:, :3], directions)
    for row, direction in zip(encoded, directions.tolist(), strict=True):
        angles = [value * (2.0**k if k < 63 else -(2.0**63)) for value in direction for k in range(64)]
        assert np.allclose(row[3:195], [math.sin(angle) for angle in angles], atol=1e-7)
        assert np.allclose(row[195:], [math.cos(angle) for angle in angles], atol=1e-7)


def test_the_last_frequency_is_negative(directions: np.ndarray) -> None:
    encoded = encode_directions(directions)
    sine = encoded[:, 3 + 63]
    assert np.allclose(sine, -np.sin(directions[:, 0].astype(np.float64) * 2.0**63), atol=1e-7)
    assert np.abs(sine).max() > 0.1


def test_one_direction_a_row_whatever_the_others(directions: np.ndarray) -> None:
    together = encode_directions(directions)
    alone = np.concatenate([encode_directions(row[None]) for row in directions])
    assert np.array_equal(together, alone)


def rays_of(golden) -> Rays:
    scene = load_scene(golden.scene)
    voxels = voxelise(scene.points, scene.colours, golden.case["voxel_size"])
    poses = np.stack([scene.poses[f"frame_{number:010d}"] for number in golden.case["frame_index"]])
    frame_size = load_clip(golden.video).size
    return camera_rays(voxels, poses, scene.intrinsics, frame_size=frame_size, vision=vision(70, 3))


def test_reference_rays_are_reproduced_bit_for_bit(golden) -> None:
    rays = rays_of(golden)
    assert np.array_equal(rays.w2c_0, golden.expected["w2c_0"])
    assert np.array_equal(rays.voxels, golden.expected["pcd_viewdirs"])
    assert np.array_equal(rays.frames.reshape(-1, 9, 3), golden.expected["img_rays_pooled"])


def test_reference_intrinsics_are_reproduced_bit_for_bit(golden) -> None:
    scaled = scale_intrinsics(load_scene(golden.scene).intrinsics, load_clip(golden.video).size, 70)
    assert np.array_equal(scaled, golden.expected["K_scaled"])


def test_reference_encodings_are_reproduced_and_the_rest_is_constant(golden) -> None:
    rows = golden.expected["rows"]
    reference = golden.expected["pcd_ray_embedding.rows"]
    ours = encode_directions(golden.expected["pcd_viewdirs"][rows])
    waves = reference[:, 3:].reshape(len(rows), 2, 3, 127)
    assert np.abs(ours[:, :3] - reference[:, :3]).max() == 0
    assert np.abs(ours[:, 3:].reshape(len(rows), 2, 3, 64) - waves[..., :64]).max() <= 1e-6
    assert np.array_equal(waves[:, 0, :, 64:], np.zeros((len(rows), 3, 63)))
    assert np.array_equal(waves[:, 1, :, 64:], np.ones((len(rows), 3, 63)))
