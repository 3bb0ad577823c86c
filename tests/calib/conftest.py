"""A small scene and clip to collect from."""

import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def world(sample: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A block of voxels in the poses of the built-in sample, and its clip, as options."""
    scene = Path(shutil.copytree(sample[0], tmp_path_factory.mktemp("block") / "scene"))
    points = np.argwhere(np.ones((9, 8, 7))) * 0.06 + 0.01
    colours = np.random.default_rng(0).uniform(0, 255, points.shape)
    np.save(scene / "points.npy", np.concatenate([points, colours], axis=1).astype(np.float32))
    return ["--scene", scene, "--video", sample[1]]
