"""Coordinates and colours among named columns, by the names that programs give them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import BadInput

__all__ = ["to_cloud"]

AXES = ("x", "y", "z")
COLOUR_NAMES = tuple(
    tuple(prefix + name for name in names)
    for prefix in ("", "diffuse_", "vertex_", "scalar_", "color_", "colour_")
    for names in (("red", "green", "blue"), ("r", "g", "b"))
)
PACKED_NAMES = ("rgb", "rgba")
GREY_NAMES = ("intensity", "scalar_intensity", "grey", "gray", "reflectance", "reflectivity")


def to_cloud(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3] from columns [P], in the columns' own types; letters' case does not matter.

    Colours are red, green and blue (`red`, `r`, `diffuse_red`, and so on), or one column `rgb` or `rgba` whose four
    bytes hold them, as PCL packs them. Opacity is left out.

    Raises:
        BadInput: there are no coordinates or no colours, or they are no numbers.
    """
    known = {name.lower(): column for name, column in columns.items()}
    found = ", ".join(columns)
    if not set(AXES) <= known.keys():
        raise BadInput(f"lacks x, y, z; found {found}")
    points = stacked(known, AXES)
    for names in COLOUR_NAMES:
        if set(names) <= known.keys():
            return points, stacked(known, names)
    for name in PACKED_NAMES:
        if name in known:
            return points, unpacked(known[name])
    if grey := [name for name in GREY_NAMES if name in known]:
        raise BadInput(f"no colours, only {grey[0]}, which the model does not take; found {found}")
    raise BadInput(f"no colours; lacks red, green, blue; found {found}")


def stacked(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Columns side by side; raises BadInput unless they are numbers."""
    if any(columns[name].dtype.kind not in "fiu" for name in names):
        raise BadInput(f"{', '.join(names)} hold something else than numbers")
    return np.stack([columns[name] for name in names], axis=1)


def unpacked(packed: np.ndarray) -> np.ndarray:
    """Red, green and blue [P, 3] uint8 out of numbers with the bits 0xAARRGGBB."""
    if packed.dtype.kind == "f":
        # in text the same bits are written as an integer, or as the tiny number that they are as float32
        written_whole = packed.dtype.itemsize == 8 and (packed == np.round(packed)).all()
        bits = packed.astype(np.int64) if written_whole else np.ascontiguousarray(packed, np.float32).view(np.uint32)
    elif packed.dtype.kind in "iu" and packed.dtype.itemsize >= 4:
        bits = packed
    else:
        raise BadInput(f"its packed colours are {packed.dtype}, expected 4 bytes a point")
    return np.stack([(bits >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=1)
