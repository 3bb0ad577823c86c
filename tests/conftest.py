"""Fixtures: a tiny generated checkpoint and its bundle, the built-in sample, and reference tensors where present."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from stllm_edge import cli
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.sample import write_sample

SHARED = Path(__file__).resolve().parents[2] / "shared"


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


def golden_folder() -> Path:
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"the reference tensors are not here: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint, written from its recipe."""
    golden, out = golden_folder(), tmp_path_factory.mktemp("golden") / "checkpoint"
    subprocess.run([sys.executable, golden / "make_checkpoint.py", golden / "recipe", out], check=True)
    return out


@pytest.fixture(scope="session")
def golden_bundle(golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32 encoders, F32, F16 and Q8_0."""
    bundle = tmp_path_factory.mktemp("golden-bundle") / "bundle"
    options = ["--quant", "F32", "--quant", "F16", "--quant", "Q8_0"]
    result = command("export", "all", "--ckpt", golden_checkpoint, "--out", bundle, "--no-verify", *options)
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="session", params=["room", "closet"])
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    """Each reference case in turn."""
    return read_case(golden_folder() / request.param)


@pytest.fixture(scope="session")
def closet() -> GoldenCase:
    return read_case(golden_folder() / "closet")


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
    folder = SHARED / "tokenizer_qwen2"
    if not folder.is_dir():
        pytest.skip(f"the Qwen2 tokenizer is not here: {folder} is absent")
    return folder
