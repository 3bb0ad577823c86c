"""Colours of any range as 0..255, told apart by type and values."""

import logging

import numpy as np

from ...errors import BadInput

__all__ = ["to_bytes"]

LOG = logging.getLogger(__name__)
# what rounding adds to 1, or takes from 0
SLACK = 1e-3
# float colours that reach no further are nearly black as 0..255, but too bright for 0..1
DARK = 16


def to_bytes(colours: np.ndarray, source: str) -> np.ndarray:
    """Colours as float32 in 0..255.

    Bytes are taken as they are; uint16 counts to 65535 and floats up to 1 count to 1: both are brought to whole
    steps of 0..255. Other numbers up to 255 are taken as they are. Where type and values do not agree, the reading is
    the values', and it is said.

    Args:
        colours: [P, 3] finite numbers, at least one row.
        source: what messages name them.

    Raises:
        BadInput: they have no range that is known.
    """
    if colours.dtype == np.uint8:
        return colours.astype(np.float32)
    low, high = float(colours.min()), float(colours.max())
    if low < -SLACK or high > 65535:
        raise BadInput(f"{source}: colours span {low:g}..{high:g}, expected 0..255, 0..1 or 0..65535")
    if high > 255:
        if colours.dtype != np.uint16:
            LOG.warning("%s: colours span %g..%g; they are read as 0..65535", source, low, high)
        return scaled(colours, 65535)
    if colours.dtype.kind == "f" and 0 < high <= 1 + SLACK:
        if (colours == np.round(colours)).all():
            LOG.warning("%s: colours are 0 and 1 only; they are read as 0..1", source)
        return scaled(colours, 1)
    if colours.dtype == np.uint16 and high > 0:
        LOG.warning("%s: colours have 16 bits, but span %g..%g only; they are read as 0..255", source, low, high)
    if colours.dtype.kind == "f" and 0 < high < DARK:
        LOG.warning("%s: colours span %g..%g; they are read as 0..255, so the scene is nearly black", source, low, high)
    return np.maximum(colours, 0).astype(np.float32) if low < 0 else np.ascontiguousarray(colours, np.float32)


def scaled(colours: np.ndarray, full: int) -> np.ndarray:
    """From 0..full to whole steps of 0..255, float32."""
    return np.round(np.clip(colours * np.float32(255 / full), 0, 255)).astype(np.float32)
