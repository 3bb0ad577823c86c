"""Frames and poses that can be told apart."""

import random
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
def mutate() -> Callable[[bytes, random.Random], bytes]:
    """A damaged copy of a file."""
    return mutated


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file with some bytes changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.randrange(1, 8)):
        place, length = draw.randrange(len(data)), draw.randrange(1, 9)
        kind = draw.randrange(5)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place : place + length] = draw.randbytes(length)
        elif kind == 2:
            data[place : place + length] = draw.choice([b"\0", b"\xff"]) * length
        elif kind == 3:
            data[place:place] = data[place : place + 8 * length]
        elif len(data) > 40:
            del data[max(20, place) :]
    return bytes(data)


@pytest.fixture
def cases() -> Path:
    """Inputs as users have them, and what is right for each."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"needs cases from the field, which are kept outside of this repository: {folder} is absent")
    return folder
