"""Fixtures: a tiny generated checkpoint and its bundle, the built-in sample, and reference tensors."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from stllm_edge import cli
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.sample import write_sample

DATA = Path(__file__).resolve().parent / "data"
# reference data too large for this repository, beside it where they are
SHARED = DATA.parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_core(worker_id: str) -> None:
    """Give each of several test processes one core: threads that wait for each other's cores double the time."""
    if worker_id == "master":
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker_id.removeprefix("gw")) % len(cores)]})
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep remembered digests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def command(name: str, *arguments: object) -> Result:
    """Run one of the commands in this process; `name` is export, run, bench or calib."""
    return CliRunner().invoke(cli.command(f"stllm-{name}"), [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def stllm() -> Any:
    return command


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scene and clip folders of the built-in sample."""
    return write_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated checkpoint of a few megabytes."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", TINY)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle: fp32 and fp16 encoders, F32, Q8_0 and Q4_K_M; tests that change it work on a copy."""
    bundle = tmp_path_factory.mktemp("bundle") / "tiny"
    options = ["--precision", "fp32", "--precision", "fp16", "--quant", "F32", "--quant", "Q8_0", "--quant", "Q4_K_M"]
    result = command("export", "all", "--ckpt", tiny_checkpoint, "--out", bundle, "--no-verify", *options)
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="session")
def block(sample: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small scene in the poses of the built-in sample, and its clip."""
    scene = tmp_path_factory.mktemp("block") / "scene"
    shutil.copytree(sample[0], scene)
    points = np.argwhere(np.ones((9, 8, 7))) * 0.06 + 0.01
    colours = np.random.default_rng(0).uniform(0, 255, points.shape)
    np.save(scene / "points.npy", np.concatenate([points, colours], axis=1).astype(np.float32))
    return {"scene": scene, "video": sample[1]}


@pytest.fixture(scope="session")
def world(block: dict[str, Path]) -> list[object]:
    """The same as options of `stllm-export verify`."""
    return [word for name, path in block.items() for word in (f"--{name}", path)]


@pytest.fixture(scope="session")
def calibration(tiny_checkpoint: Path, world: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibration") / "set"
    result = command("calib", "collect", "--ckpt", tiny_checkpoint, *world, "--out", out, "--samples", 4, "--frames", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def int8_bundle(
    tiny_checkpoint: Path, tiny_bundle: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle with a tower in INT8, and with an aligner too; tests that change it work on a copy."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("int8") / "bundle"))
    options = ["--precision", "int8", "--precision", "vision=int8,aligner=int8", "--calibration", calibration]
    result = command("export", "onnx", "--ckpt", tiny_checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    return bundle


@dataclass(frozen=True)
class GoldenCase:
    """A reference case: files, its description, and what the authors' model computes in float32."""

    folder: Path
    case: Mapping[str, Any]
    expected: Mapping[str, np.ndarray]

    @property
    def scene(self) -> Path:
        return self.folder / "scene"

    @property
    def video(self) -> Path:
        return self.folder / "frames"


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint, written from its recipe (273 MB)."""
    return write_golden_checkpoint(DATA / "recipe", tmp_path_factory.mktemp("golden") / "checkpoint")


def write_golden_checkpoint(recipe: Path, folder: Path) -> Path:
    """Write a checkpoint from small tensors that are stored and large ones that are drawn; returns its folder.

    A drawn tensor depends on the recipe's seed and on its own name alone. All values are bfloat16 numbers, in the
    tensors of the point encoder too, which are stored as float32.
    """
    rule = json.loads((recipe / "weights.json").read_text())
    tensors = load_file(recipe / "small.safetensors")
    for name, spec in rule["tensors"].items():
        generator = np.random.Generator(np.random.PCG64([rule["seed"], zlib.crc32(name.encode())]))
        drawn = generator.standard_normal(spec["shape"], np.float32)
        values = torch.from_numpy(np.float32(spec["mean"]) + np.float32(spec["std"]) * drawn)
        tensors[name] = values.bfloat16().to({"bfloat16": torch.bfloat16, "float32": torch.float32}[spec["dtype"]])
    shutil.copytree(recipe / "files", folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def golden_bundle(golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32 encoders, F32, F16 and Q8_0."""
    bundle = tmp_path_factory.mktemp("golden-bundle") / "bundle"
    options = ["--quant", "F32", "--quant", "F16", "--quant", "Q8_0"]
    result = command("export", "all", "--ckpt", golden_checkpoint, "--out", bundle, "--no-verify", *options)
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="session")
def cases() -> Path:
    """Cases from the field, a folder each, with the clean `room` that they are made of."""
    return shared_folder("cases")


@pytest.fixture(scope="session", params=["closet", "room"])
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    """Each reference case in turn: the one in this repository, and a larger one where it is present."""
    name: str = request.param
    return read_case(DATA / name if name == "closet" else shared_folder(f"golden/{name}"))


@pytest.fixture(scope="session")
def closet() -> GoldenCase:
    return read_case(DATA / "closet")


@pytest.fixture(scope="session")
def whole_closet() -> GoldenCase:
    """The same case with every tensor that was recorded, the point encoder's layers among them."""
    return read_case(shared_folder("golden/closet"))


def shared_folder(name: str) -> Path:
    """A folder of the reference data outside of this repository; skips the test where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs reference data that this repository is too small for: {folder} is absent")
    return folder


def read_case(folder: Path) -> GoldenCase:
    tensors = load_file(folder / "expected_fp32.safetensors")
    expected = {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for name, tensor in tensors.items()
    }
    return GoldenCase(folder, json.loads((folder / "case.json").read_text()), expected)


def rel_rms(ours: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    a, b = (np.asarray(values, np.float64).ravel() for values in (ours, reference))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="session", name="rel_rms")
def rel_rms_function() -> Any:
    return rel_rms


@pytest.fixture(scope="session")
def qwen2_tokenizer() -> Path:
    """Folder with the files of the real Qwen2 tokenizer."""
    return shared_folder("tokenizer_qwen2")
