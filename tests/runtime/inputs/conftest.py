"""Frames and poses that can be told apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import Clip


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
