"""Fixtures of the cache's tests."""

from pathlib import Path

import pytest
from stllm_edge.runtime import Clip, Scene, load_clip, load_scene


@pytest.fixture
def place(inputs) -> tuple[Scene, Clip]:
    """A small scene and a clip of three frames."""
    return load_scene(inputs.scene), load_clip(inputs.video)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"
