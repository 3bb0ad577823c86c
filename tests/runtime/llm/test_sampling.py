import sys

import numpy as np
import pytest
from stllm_edge.runtime.llm.sampling import sample


def test_temperature_zero_takes_the_best() -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    assert sample(logits, 0, np.random.default_rng(1)) == logits.argmax()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = np.array([0.0, 1.0, 2.0, -50.0], np.float32)
    generator = np.random.default_rng(2)
    draws = np.bincount([sample(logits, temperature, generator) for _ in range(4000)], minlength=4) / 4000
    weights = np.exp(logits / temperature)
    assert np.allclose(draws, weights / weights.sum(), atol=0.03)


def test_the_seed_decides_the_draws() -> None:
    logits = np.zeros(1000, np.float32)
    first, again, other = (sample(logits, 1.0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("temperature", [1e-30, sys.float_info.min, 5e-324])
def test_tiny_temperatures_take_the_best(temperature: float) -> None:
    logits = np.array([3.0, 40.0, -40.0], np.float32)
    assert sample(logits, temperature, np.random.default_rng(0)) == 1
