"""Checkpoint in, answer out, against the reference tensors; then other sizes through the same commands."""

import filecmp
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.model.parts import load_part
from stllm_edge.export.model.points import MapTensors
from stllm_edge.runtime.bundle.geometry import Geometry
from stllm_edge.runtime.inputs.scene import Scene
from stllm_edge.runtime.inputs.writing import write_clip, write_scene

Dump = dict[str, np.ndarray]
NEW_TOKENS = 24
# over the bytes of all tensors, in the order of their names
CHECKPOINT_DIGEST = "de55ced46da3da9a45981afcdf53c1740e4050c0dcfb532536ece1d5e9d6a1a5"
UNET_LAYERS = [
    "conv0p1s1",
    "bn0",
    *(name for level in range(4) for name in (f"conv{level + 1}p{2**level}s2", f"bn{level + 1}", f"block{level + 1}")),
    *(
        name
        for step in range(4, 8)
        for name in (f"convtr{step}p{2 ** (8 - step)}s2", f"bntr{step}", f"block{step + 1}")
    ),
    "final",
]


@pytest.fixture(scope="session")
def dump_of(golden_bundle: Path, stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dump]:
    """What `stllm-run` dumps for a case and a language model; each is run once."""
    folder, known = tmp_path_factory.mktemp("dumps"), {}

    def dump(golden: Any, quant: str) -> Dump:
        key = f"{golden.folder.name}-{quant}"
        if key not in known:
            result = stllm(
                *("run", "--bundle", golden_bundle, "--scene", golden.scene, "--video", golden.video),
                *("--question", golden.case["question"], "--frames", len(golden.case["frame_index"])),
                *("--bare-prompt", "--no-time-instruction", "--kv", "f32", "--no-flash-attention"),
                *("--quant", quant, "--max-new-tokens", NEW_TOKENS, "--dump", folder / f"{key}.safetensors"),
            )
            assert result.exit_code == 0, result.output
            known[key] = load_file(folder / f"{key}.safetensors")
        return known[key]

    return dump


@pytest.fixture
def dump(golden: Any, dump_of: Callable[..., Dump]) -> Dump:
    """The stages with the F32 language model."""
    return dump_of(golden, "F32")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voxel_coords", "voxel_feats", "w2c_0", "pcd_viewdirs", "img_rays_pooled"])
def test_host_side_tensor_is_bit_exact(name: str, golden: Any, dump: Dump) -> None:
    expected = golden.expected[name]
    assert dump[name].size == expected.size
    assert np.array_equal(dump[name].reshape(expected.shape), expected)


@pytest.mark.slow
def test_token_ids_of_the_prompt_are_the_references(golden: Any, dump: Dump) -> None:
    assert dump["prompt_token_ids"].tolist() == golden.case["prompt_token_ids"]
    assert dump["aligner_token_ids"].tolist() == [token for token in golden.case["aligner_token_ids"] if token >= 0]


@pytest.mark.slow
def test_token_ids_with_the_time_instruction_are_the_references(
    golden: Any, golden_bundle: Path, stllm: Any, tmp_path: Path
) -> None:
    timed = golden.case["with_time_instruction"]
    result = stllm(
        *("run", "--bundle", golden_bundle, "--scene", golden.scene, "--video", golden.video, "--quant", "Q8_0"),
        *("--question", golden.case["question"], "--frames", len(golden.case["frame_index"]), "--bare-prompt"),
        *("--time-instruction", "--fps", timed["fps"], "--video-seconds", timed["video_seconds"]),
        *("--max-new-tokens", 1, "--dump", tmp_path / "dump.safetensors"),
    )
    assert result.exit_code == 0, result.output
    assert load_file(tmp_path / "dump.safetensors")["prompt_token_ids"].tolist() == timed["prompt_token_ids"]


@pytest.mark.slow
def test_point_features_agree(golden: Any, dump: Dump, rel_rms: Any) -> None:
    ours, rows = dump["pcd_features"], golden.expected["rows"]
    assert len(ours) == golden.case["num_voxels"]
    assert rel_rms(ours[rows], golden.expected["pcd_features.rows"]) <= 5e-6
    assert rel_rms(ours.std(axis=0, ddof=1, dtype=np.float64), golden.expected["pcd_features.column_std"]) <= 5e-6
    assert rel_rms(ours.mean(axis=0, dtype=np.float64), golden.expected["pcd_features.column_mean"]) <= 5e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit"),
    [("pooled_features", 5e-6), ("video_tokens", 5e-6), ("prefix_tokens", 3e-5), ("logits_last_prompt", 1e-4)],
)
def test_stage_agrees(
    name: str, limit: float, golden: Any, dump: Dump, rel_rms: Any, record_property: Callable[..., None]
) -> None:
    expected = golden.expected[name]
    assert dump[name].size == expected.size
    error = rel_rms(dump[name].reshape(expected.shape), expected)
    record_property(f"{golden.folder.name} {name} rel-rms", error)
    assert error <= limit


@pytest.mark.slow
def test_greedy_answer_is_identical(golden: Any, dump: Dump) -> None:
    assert dump["token_ids"].tolist() == golden.expected["greedy_token_ids"].ravel().tolist()
    assert len(dump["token_ids"]) == NEW_TOKENS


@pytest.mark.slow
@pytest.mark.parametrize(("quant", "limit"), [("F16", 2e-3), ("Q8_0", 0.08)])
def test_logits_of_smaller_types_stay_close(
    quant: str,
    limit: float,
    golden: Any,
    dump_of: Callable[..., Dump],
    rel_rms: Any,
    record_property: Callable[..., None],
) -> None:
    error = rel_rms(dump_of(golden, quant)["logits_last_prompt"], golden.expected["logits_last_prompt"])
    record_property(f"{golden.folder.name} {quant} logits rel-rms", error)
    print(f"{golden.folder.name} {quant}: logits rel-rms {error:.2e}")
    assert error <= limit


# the reference data themselves


def test_written_checkpoint_is_the_references(golden_checkpoint: Path) -> None:
    """Weights drawn by another generator would make every comparison fail without a reason."""
    digest = hashlib.sha256()
    with safe_open(golden_checkpoint / "model.safetensors", "pt") as file:
        for name in sorted(file.keys()):
            digest.update(file.get_tensor(name).view(-1).view(torch.uint8).numpy().data)
    assert digest.hexdigest() == CHECKPOINT_DIGEST


def test_case_in_this_repository_is_the_recorded_one(closet: Any, whole_closet: Any) -> None:
    for name, values in closet.expected.items():
        assert np.array_equal(values, whole_closet.expected[name]), name
    assert closet.case == whole_closet.case
    files = [
        str(file.relative_to(closet.folder))
        for folder in (closet.scene, closet.video)
        for file in folder.rglob("*")
        if file.is_file()
    ]
    assert len(files) == 4
    assert filecmp.cmpfiles(closet.folder, whole_closet.folder, files, shallow=False)[0] == files


def test_reference_data_in_this_repository_stay_small(closet: Any) -> None:
    assert sum(file.stat().st_size for file in closet.folder.parent.rglob("*")) <= 3_000_000


# the point encoder, layer by layer


@pytest.fixture(scope="session")
def unet_outputs(whole_closet: Any, golden_checkpoint: Path) -> dict[str, torch.Tensor]:
    """Output of every layer of the plain module for `closet`."""
    checkpoint = Checkpoint(golden_checkpoint)
    encoder = load_part(checkpoint, take_inventory(checkpoint), "points")
    outputs: dict[str, torch.Tensor] = {}
    for name in UNET_LAYERS:
        encoder.net3d.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: outputs.update({name: output.clone()})
        )
    with torch.inference_mode():
        maps = MapTensors.build(whole_closet.expected["voxel_coords"])
        encoder(torch.from_numpy(whole_closet.expected["voxel_feats"]), maps)
    return outputs


def test_every_dumped_layer_is_compared(whole_closet: Any) -> None:
    dumped = {name.split(".")[1] for name in whole_closet.expected if name.startswith("unet.")}
    assert dumped == set(UNET_LAYERS)


@pytest.mark.parametrize("layer", UNET_LAYERS)
def test_unet_layer_agrees(layer: str, whole_closet: Any, unet_outputs: dict[str, torch.Tensor], rel_rms: Any) -> None:
    expected, coords = whole_closet.expected[f"unet.{layer}.F"], whole_closet.expected[f"unet.{layer}.C"][:, 1:]
    levels = MapTensors.build(whole_closet.expected["voxel_coords"]).coords
    (ours,) = (level for level in levels if len(level) == len(coords))
    row_of = {tuple(row): index for index, row in enumerate(ours.tolist())}
    rows = [row_of[tuple(row)] for row in coords.tolist()]
    assert rel_rms(unet_outputs[layer][rows], expected) <= 5e-6


# other sizes


def write_world(folder: Path, points: np.ndarray, frames: int, size: tuple[int, int] = (80, 60)) -> tuple[Path, Path]:
    """A scene of given points [P, 3] and a clip of noise, posed on a line through it."""
    generator = np.random.default_rng(len(points))
    colours = generator.uniform(0, 255, points.shape)
    intrinsics = np.array([[70.0, 0, size[0] / 2], [0, 75.0, size[1] / 2], [0, 0, 1]])
    poses = {}
    for number in range(frames):
        angle = 0.1 * number
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = [0.02 * number, 0.1, -1.0]
        poses[f"frame_{number:04d}"] = pose
    noise = ((stem, generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for stem in poses)
    scene = Scene(points.astype(np.float32), colours.astype(np.float32), poses, intrinsics)
    return (
        write_scene(folder / "scene", scene),
        write_clip(folder / "video", noise, fps=10.0, seconds=2.0),
    )


def block(x: int, y: int, z: int) -> np.ndarray:
    """Points in the middle of every other voxel of a block."""
    cells = np.argwhere(np.ones((x, y, z)))
    return (cells[cells.sum(axis=1) % 2 == 0] + 0.5) * 0.06


SLIM = replace(TINY.points, blocks=(1,) * 8)
WORLDS: dict[str, tuple[Geometry, np.ndarray, int]] = {
    "odd grid, one frame, one voxel, one key head, tied": (
        Geometry(
            vision=replace(TINY.vision, image_size=70, grid=3, width=48, heads=3, mlp=72, layers=1),
            points=replace(SLIM, features=64),
            aligner=replace(
                TINY.aligner, width=64, heads=1, layers=1, cross_layers=(0,), point_features=64, ffn=80, latents=3
            ),
            llm=replace(TINY.llm, width=96, heads=6, kv_heads=1, layers=3, ffn=160, vocabulary=1003, tied=True),
        ),
        np.array([[0.1, 0.2, 0.3]]),
        1,
    ),
    "coordinates above 256, nine frames, as many key heads": (
        Geometry(
            vision=replace(TINY.vision, image_size=45, patch_size=15, grid=2, layers=3, heads=4),
            points=replace(
                SLIM,
                channels=(3, 12, 8, 20, 16, 24, 20, 16, 12, 16),
                downsampled=(12, 8, 20, 16),
                upsampled=(24, 12, 8, 20),
                features=192,
                blocks=(1, 2, 1, 1, 1, 1, 1, 1),
            ),
            aligner=replace(
                TINY.aligner, width=192, heads=3, layers=2, cross_layers=(1,), point_features=192, latents=40
            ),
            llm=replace(TINY.llm, width=128, heads=2, kv_heads=2, layers=1, ffn=224, rope_base=1e4, rms_eps=1e-5),
        ),
        np.concatenate([block(5, 4, 700), np.add(block(12, 14, 6), (0.48, 0, 0))]),
        9,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_other_sizes_go_through_the_same_commands(name: str, stllm: Any, tmp_path: Path) -> None:
    geometry, points, frames = WORLDS[name]
    checkpoint, bundle = write_checkpoint(tmp_path / "checkpoint", geometry, seed=3), tmp_path / "bundle"
    scene, video = write_world(tmp_path / "world", points, frames)
    if "above 256" in name:
        assert (points.max(axis=0) / 0.06).max() > 256

    verified = stllm(
        *("export", "all", "--ckpt", checkpoint, "--out", bundle, "--frames", frames),
        *("--quant", "F32", "--quant", "Q8_0", "--scene", scene, "--video", video),
    )
    assert verified.exit_code == 0, verified.output
    assert verified.stdout.count("✓") == 1 + 8 + 5 + 6
    assert "✗" not in verified.stdout

    answered = stllm(
        *("run", "--bundle", bundle, "--scene", scene, "--video", video, "-q", "Where is the cup?"),
        *("--json", "--max-new-tokens", 5, "--dump", tmp_path / "dump.safetensors"),
    )
    assert answered.exit_code == 0, answered.output
    report, dump = json.loads(answered.stdout), load_file(tmp_path / "dump.safetensors")
    grid, width = geometry.vision.grid, geometry.llm.width
    assert report["frames"] == frames
    assert report["voxels"] == len(points)
    assert 1 <= report["new_tokens"] <= 5
    assert dump["pcd_features"].shape == (len(points), geometry.points.features)
    assert dump["video_tokens"].shape == (frames * grid * (grid + 1), width)
    assert dump["prefix_tokens"].shape == (geometry.aligner.latents, width)
    assert dump["logits_last_prompt"].shape == (geometry.llm.vocabulary,)
    assert all(np.isfinite(values).all() for values in dump.values())
