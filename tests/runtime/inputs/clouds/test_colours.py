"""Ranges of colours, and what is said of those that can be read in two ways."""

import logging

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.clouds.colours import to_bytes

STEPS = np.arange(255).reshape(85, 3)


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (STEPS.astype(np.uint8), STEPS),
        (STEPS.astype(np.float32), STEPS),
        (STEPS.astype(np.float64) / 2, STEPS / 2),
        (STEPS.astype(np.int64), STEPS),
        ((STEPS / 255).astype(np.float16), STEPS),
        ((STEPS / 255).astype(np.float32), STEPS),
        (STEPS / 254 * 1.0005, np.minimum(np.round(STEPS / 254 * 1.0005 * 255), 255)),
        ((STEPS * 257).astype(np.uint16), STEPS),
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.zeros((2, 3), np.uint16), np.zeros((2, 3))),
    ],
)
def test_without_a_word(colours: np.ndarray, expected: np.ndarray, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        known = to_bytes(colours, "these")
    assert known.dtype == np.float32
    assert np.abs(known - expected).max() < 1e-3
    assert not caplog.text


@pytest.mark.parametrize(
    ("colours", "highest", "words"),
    [
        (STEPS.astype(np.uint16), 254, "16 bits, but span 0..254 only; they are read as 0..255"),
        (STEPS * 257, 254, "they are read as 0..65535"),
        (STEPS * 257.0, 254, "they are read as 0..65535"),
        (np.eye(3), 255, "0 and 1 only; they are read as 0..1"),
        (np.eye(3) * 1.5, 1.5, "read as 0..255, so the scene is nearly black"),
    ],
)
def test_what_can_be_read_in_two_ways_is_told(colours: np.ndarray, highest: float, words: str, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert to_bytes(colours, "these").max() == highest
    assert words in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("colours", [-STEPS, STEPS * 300, -STEPS / 255])
def test_no_range_is_an_error(colours: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"^these: colours span .*, expected 0\.\.255, 0\.\.1 or 0\.\.65535"):
        to_bytes(colours, "these")
