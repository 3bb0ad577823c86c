"""Rooms of the small world in memory, with a clip each."""

import pytest
from stllm_edge.benchmarks.world.mistakes import Take, record


@pytest.fixture(scope="session")
def recording() -> Take:
    return record(0)


@pytest.fixture(scope="session")
def recordings() -> list[Take]:
    """Sixty rooms."""
    return [record(seed) for seed in range(60)]
