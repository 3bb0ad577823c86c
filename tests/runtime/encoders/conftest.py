"""Fixtures of the encoders' tests."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def vision(tiny_bundle: Path) -> Path:
    """A graph."""
    return tiny_bundle / "onnx/vision.onnx"


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """What it takes."""
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 56, 56)).astype(np.float32)
