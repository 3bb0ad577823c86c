"""EPIC-Fields: the poses of EPIC-KITCHENS videos, from which REA's come; COLMAP's meaning in a JSON file."""

from typing import Any

import numpy as np

from ...errors import BadInput
from .cameras import Cameras, image_stem
from .lens import colmap_lens
from .poses import RawPoses, from_quaternions

__all__ = ["is_epic", "read_epic"]


def is_epic(content: Any) -> bool:
    """Whether JSON is of this form."""
    return isinstance(content, dict) and "camera" in content and "images" in content


def read_epic(content: dict[str, Any], source: str) -> Cameras:
    """Poses of the frames by name, and their lens.

    Args:
        content: `camera` with model, width, height and params, and `images`: qw, qx, qy, qz, tx, ty, tz of each frame
            by its name, or in the older form lists of these that end with the name; world-to-camera.
        source: for messages.

    Raises:
        BadInput: something of it is missing or of another kind.
    """
    camera, images = content["camera"], content["images"]
    try:
        size = (int(camera["width"]), int(camera["height"]))
        lens = colmap_lens(camera["model"], size, [float(number) for number in camera["params"]], source)
        if isinstance(images, dict):
            pairs = [(str(name), pose) for name, pose in images.items()]
        else:
            pairs = [(str(row[-1]), row[:-1]) for row in images]
        names = [image_stem(name) for name, _ in pairs]
        numbers = np.array([pose for _, pose in pairs], np.float64).reshape(-1, 7)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadInput(
            f"{source}: not as EPIC-Fields writes it; expected a camera with model, width, height and params, and "
            f"images of seven numbers ({type(error).__name__}: {error})"
        ) from None
    if not names:
        raise BadInput(f"{source}: holds no images")
    matrices = dict(zip(names, from_quaternions(numbers[:, :4], numbers[:, 4:]), strict=True))
    return Cameras(source, RawPoses(matrices, source, "w2c"), dict.fromkeys(matrices, lens))
