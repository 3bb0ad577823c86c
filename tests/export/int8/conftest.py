"""A calibration set of the tiny checkpoint, and its bundle with INT8 beside the other formats."""

import shutil
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--samples", 4, "--frames", 1)


@pytest.fixture(scope="session")
def calibration(
    tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("calibration") / "set"
    result = stllm("calib", "collect", "--ckpt", tiny_checkpoint, *world, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def int8_bundle(
    tiny_checkpoint: Path, tiny_bundle: Path, calibration: Path, stllm: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle with encoders in INT8, calibrated; tests that change it work on a copy."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("int8") / "bundle"))
    options = ["--precision", "int8", "--calibration", calibration]
    result = stllm("export", "onnx", "--ckpt", tiny_checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    return bundle
