"""Frames to pixel values, bit for bit as the vision tower's processor makes them (SPEC section 6)."""

import numpy as np

from ..libraries import load_library

__all__ = ["normalised", "pixel_values", "resized"]

# of each of the 256 levels: the processor scales in float64 and rounds once, then shifts in float32
UNIT = (np.arange(256) * (1 / 255)).astype(np.float32)
# in these two steps: u / 127.5 - 1 has another last bit for half of the levels
NORMALISED = (UNIT - np.float32(0.5)) / np.float32(0.5)


def pixel_values(frame: np.ndarray, size: int) -> np.ndarray:
    """One frame [H, W, 3] uint8 as the tower takes it, [3, size, size] float32 in -1..1."""
    return normalised(resized(frame, size).transpose(2, 0, 1))


def resized(frame: np.ndarray, size: int) -> np.ndarray:
    """One frame [H, W, 3] uint8 as a square [size, size, 3] (PIL bicubic)."""
    pil = load_library("PIL.Image")
    # other bicubic filters, PyTorch's with and without antialiasing, differ from PIL's by many grey levels
    return np.asarray(pil.fromarray(frame).resize((size, size), pil.Resampling.BICUBIC))


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Pixels uint8 as float32 in -1..1, of the same shape."""
    return np.take(NORMALISED, pixels)
