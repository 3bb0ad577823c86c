"""Frames and poses that can be told apart."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import Clip

from .written import Recording


@pytest.fixture
def poses_for() -> Callable[..., dict[str, np.ndarray]]:
    """Poses by stem whose translation is their place."""

    def poses(*stems: str) -> dict[str, np.ndarray]:
        made = {stem: np.eye(4) for stem in stems}
        for place, pose in enumerate(made.values()):
            pose[0, 3] = place
        return made

    return poses


@pytest.fixture
def write_frames() -> Callable[..., Path]:
    """Image files of these names in a folder, whose grey level is their place."""

    def write(folder: Path, *names: str) -> Path:
        folder.mkdir(exist_ok=True)
        for place, name in enumerate(names):
            Image.fromarray(np.full((6, 8, 3), place, np.uint8)).save(folder / name)
        return folder

    return write


@pytest.fixture
def levels() -> Callable[[Clip, list[int]], list[int]]:
    """Mean grey levels of frames."""
    return lambda clip, indices: [round(float(frame.mean())) for frame in clip.read(indices)]


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Recording]:
    """A recording whose frames have these stems; by default EPIC's."""

    def make(*stems: str) -> Recording:
        stems = stems or tuple(f"frame_{number:010d}" for number in range(1, 7))
        draw = np.random.default_rng(5)
        (tmp_path / "video").mkdir()
        poses = {}
        for stem in stems:
            Image.fromarray(draw.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "video" / f"{stem}.png")
            rotation = np.linalg.qr(draw.standard_normal((3, 3)))[0]
            poses[stem] = np.eye(4)
            poses[stem][:3, :3] = rotation * np.linalg.det(rotation)
            poses[stem][:3, 3] = draw.uniform(-3, 3, 3)
        intrinsics = np.array([[50.0, 0, 31], [0, 52, 25], [0, 0, 1]])
        return Recording(tmp_path, stems, poses, intrinsics)

    return make


@pytest.fixture
def survives_damage() -> Callable[..., None]:
    """That each file of a folder, damaged in many ways, is read or refused within bounds.

    `STLLM_DAMAGED=2000 pytest tests/runtime/inputs -k damage -s` damages so many copies of each, and prints the counts.
    """

    def check(kind: str, folder: Path, count: int) -> None:
        script, count = Path(__file__).with_name("together") / "damaged.py", int(os.environ.get("STLLM_DAMAGED", count))
        alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), kind, str(folder), str(count)]
        done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


@pytest.fixture
def cases() -> Path:
    """Inputs as users have them, and what is right for each."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"needs cases from the field, which are kept outside of this repository: {folder} is absent")
    return folder
