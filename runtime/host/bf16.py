"""bfloat16 values held in float32 arrays: the number format in which the reference computes view directions."""

import numpy as np

__all__ = ["round_bf16"]


def round_bf16(values: np.ndarray) -> np.ndarray:
    """Round finite values to the nearest bfloat16, ties to even.

    Args:
        values: array of any shape, float32 or float64 (float64 goes through float32, as in PyTorch).

    Returns:
        float32 array of the same shape whose values are exact bfloat16 numbers.
    """
    # a copy of float32 values too: the steps below work in place
    bits = np.array(values, np.float32).view(np.uint32)
    # 0x7FFF plus the last kept bit carries above the middle, and at the middle only into odd numbers. In a NaN
    # the carry can run through the sign and leave -0, hence finite values only
    to_nearest_even = bits >> np.uint32(16)
    to_nearest_even &= np.uint32(1)
    to_nearest_even += np.uint32(0x7FFF)
    bits += to_nearest_even
    bits &= np.uint32(0xFFFF0000)
    return bits.view(np.float32)
