"""A calibration set: what belongs to it, and what is refused in its place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.int8.calibration import CalibrationSet, Sample


@pytest.fixture
def refused(tiny_checkpoint: Path, stllm: Any, tmp_path: Path) -> Callable[..., str]:
    """What an export to INT8 says, in one line, of options that it does not take."""

    def run(*options: object, checkpoint: Path = tiny_checkpoint) -> str:
        out = tmp_path / "bundle"
        result = stllm("export", "onnx", "--ckpt", checkpoint, "--out", out, "--precision", "int8", *options)
        assert result.exit_code == 2, result.output
        assert not out.exists()
        (line,) = [line for line in result.output.splitlines() if line.startswith("stllm-export")]
        return str(line)

    return run


@pytest.fixture
def changed(calibration: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the set whose description was changed."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        copy = Path(shutil.copytree(calibration, tmp_path / "set"))
        description = json.loads((copy / "set.json").read_text())
        change(description)
        (copy / "set.json").write_text(json.dumps(description))
        return copy

    return make


def test_samples_keep_what_they_were_made_of(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rays = (generator.standard_normal((5, 3)).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    sample = Sample(
        frames=generator.integers(0, 255, (2, 8, 8, 3), np.uint8),
        coords=np.argwhere(np.ones((5, 1, 1))).astype(np.int32),
        feats=rays,
        voxel_rays=rays,
        frame_rays=rays.reshape(1, 5, 1, 3),
        ids=np.arange(3),
    )
    sample.save(tmp_path / "one.npz")
    read = Sample.load(tmp_path / "one.npz")
    for name in Sample.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, name), getattr(sample, name))


def test_one_sample_in_four_is_held_out(calibration: Path, tiny_checkpoint: Path) -> None:
    found = CalibrationSet(calibration)
    assert (found.fitted, found.held_out) == ([0, 1, 2], [3])
    inputs = found.inputs(3, Checkpoint(tiny_checkpoint))
    assert inputs.frames.shape[1] == 3
    assert float(inputs.frames.abs().max()) <= 1
    assert len(inputs.features) == len(inputs.rays[0])


def test_int8_needs_a_set(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "INT8 takes --calibration SET; make one with stllm-calib collect" in refused()
    assert "no set.json; make a set" in refused("--calibration", tmp_path)


def test_another_checkpoints_set_is_refused(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    other = changed(lambda description: description.update(checkpoint="0" * 64))
    assert "was collected for the checkpoint 000000000000" in refused("--calibration", other)


def test_other_preprocessing_is_refused(refused: Callable[..., str], calibration: Path) -> None:
    said = refused("--calibration", calibration, "--voxel-size", 0.1)
    assert "was collected with voxel_size 0.06, the bundle has 0.1" in said


@pytest.mark.parametrize("count", [0, 1])
def test_a_set_has_a_least_size(count: int, refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    def cut(description: dict[str, Any]) -> None:
        description.update(samples=description["samples"][:count], chosen=description["chosen"][:count])

    assert f"holds {count} samples, at least 4 are needed" in refused("--calibration", changed(cut))


def test_an_interrupted_set_says_how_to_go_on(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    half = changed(lambda description: description.update(samples=description["samples"][:2]))
    assert "holds 2 of 4 samples; run the same stllm-calib collect again" in refused("--calibration", half)


def test_a_damaged_set_is_refused(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    copy = changed(lambda description: None)
    (copy / "samples/001.npz").write_bytes(b"no sample")
    assert "its SHA-256 is not that in set.json" in refused("--calibration", copy)
    (copy / "samples/001.npz").unlink()
    assert "missing; run the same stllm-calib collect again" in refused("--calibration", copy)
    (copy / "set.json").write_text("{}")
    assert "damaged" in refused("--calibration", copy)
    (copy / "set.json").write_text(json.dumps({"schema": "x" * 5000}))
    assert "damaged" in refused("--calibration", copy)
