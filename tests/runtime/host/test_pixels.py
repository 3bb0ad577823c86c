"""Pixel values: PIL's pixels, the ends of the range, and the reference bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import load_clip
from stllm_edge.runtime.host.pixels import pixel_values


def test_pixels_are_resized_by_pil_and_span_minus_one_to_one() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (27, 48, 3), np.uint8)
    pixels = pixel_values(frame, 33)
    resized = np.asarray(Image.fromarray(frame).resize((33, 33), Image.Resampling.BICUBIC))
    assert pixels.shape == (3, 33, 33)
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, resized.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("level", "value"), [(0, -1), (255, 1)])
def test_black_and_white_are_the_ends(level: int, value: int) -> None:
    assert (pixel_values(np.full((9, 9, 3), level, np.uint8), 14) == value).all()


def test_reference_pixels_are_reproduced_bit_for_bit(golden) -> None:
    clip = load_clip(golden.video)
    pixels = np.stack([pixel_values(frame, 70) for frame in clip.read(range(len(clip)))])
    assert np.array_equal(pixels, golden.expected["pixel_values"])
    stems = [f"frame_{number:010d}" for number in golden.case["frame_index"]]
    assert [Path(file).stem for file in clip.frames.files] == stems
