"""The released model's size: all graphs compile ahead of time for two capabilities, within the stated memory."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.checkpoints import FULL, write_checkpoint
from stllm_edge.runtime.bundle.digests import file_digest
from stllm_edge.runtime.bundle.manifest import ENCODERS, MANIFEST

pytest.importorskip("tensorrt_rtx", reason="pip install 'stllm-edge[rtx]'")
pytestmark = pytest.mark.slow
HOST, DISK, ACTIVATIONS = 6e9, 8e9, 1e9
TOWER = "onnx/vision.tensorrt.onnx"
# of the language model, the encoders know only the width
ENCODERS_ONLY = replace(FULL, llm=replace(FULL.llm, layers=1, vocabulary=1024, ffn=256))


def export(*arguments: object) -> Any:
    """Run stllm-export in a process of its own, within the stated memory; what it prints as JSON."""
    program = [sys.executable, "-c", "from stllm_edge.cli import export; export()"]
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    peak = re.search(r"peak memory (\d+) MB", done.stderr)
    assert peak is not None
    assert int(peak[1]) * 1e6 <= HOST
    return json.loads(done.stdout or "{}")


def check(bundle: Path, target: str) -> dict[tuple[str, str], Any]:
    """What a check with 39,000 voxels and 32 frames finds, by precision and encoder."""
    options = ["--profile", "voxels=1:30000:39000", "--profile", "frames=1:32:32", "--check", "--json"]
    findings = export("tensorrt", "--bundle", bundle, "--target", target, *options)["graphs"]
    return {(found["precision"], found["encoder"]): found for found in findings}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Encoders of the released model's size at both precisions."""
    folder = tmp_path_factory.mktemp("full")
    if shutil.disk_usage(folder).free < DISK:
        pytest.skip(f"needs {DISK / 1e9:.0f} GB of disk in {folder}")
    checkpoint = write_checkpoint(folder / "checkpoint", ENCODERS_ONLY)
    export("onnx", "--ckpt", checkpoint, "--out", folder / "bundle", "--precision", "fp32", "--precision", "fp16")
    shutil.rmtree(checkpoint)
    yield folder / "bundle"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def quantised(bundle: Path, quantise: Any) -> Path:
    """The same with a symmetric INT8 form in the place of the float32 tower."""
    copy = Path(shutil.copytree(bundle, bundle.with_name("int8"), copy_function=os.link))
    quantise(bundle / TOWER, copy / TOWER, np.int8(0))
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][TOWER] = {"bytes": (copy / TOWER).stat().st_size, "sha256": file_digest(copy / TOWER)}
    del manifest["encoders"]["fp16"]
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize("target", ["rtx-ampere", "rtx-ada"])
def test_all_graphs_compile(target: str, bundle: Path) -> None:
    found = check(bundle, target)
    assert set(found) == {(precision, encoder) for precision in ("fp32", "fp16") for encoder in ENCODERS}
    for finding in found.values():
        assert finding["refused"] == finding["unsupported"] == []
        assert finding["engine_bytes"] > 30e6
    for precision in ("fp32", "fp16"):
        assert 0 < found[precision, "aligner"]["activation_bytes"] <= ACTIVATIONS


@pytest.mark.parametrize("target", ["rtx-ampere", "rtx-ada"])
def test_an_int8_tower_compiles(target: str, quantised: Path) -> None:
    tower = check(quantised, target)["fp32", "vision"]
    assert tower["operators"]["QuantizeLinear"] > 100
    assert tower["refused"] == tower["unsupported"] == []
    assert 300e6 < tower["engine_bytes"] < 600e6
