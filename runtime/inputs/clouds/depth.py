"""Depth frames with poses, fused to a cloud that has the colours of the clip's frames."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..clip import Clip
from ..decoding.bounded import BoundedFile
from ..decoding.images import require_size

__all__ = ["CELL", "DEPTH_FOLDER", "first_in_cells", "fuse_depth"]

LOG = logging.getLogger(__name__)
DEPTH_FOLDER = "depth"
SUFFIXES = (".png", ".tif", ".tiff")
# frames are taken evenly, and of larger ones every so many pixels
MOST_FRAMES, MOST_SIDE = 100, 320
# metres: one point is kept in each cell, the first in the order of time
CELL = 0.01
CELLS = 1 << 20


def fuse_depth(
    folder: Path, clip: Clip, poses: Mapping[str, np.ndarray], intrinsics: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] float64 in the poses' coordinates, and colours [P, 3] uint8.

    A depth frame belongs to a frame of the clip as a pose does, by its name; those without a frame or without a pose
    are left out and counted. Depth is along the camera's axis and registered to the frames, of which it may be a
    smaller version. Zero, and the highest number of its type, are no depth. A pixel has the colour of the frame's
    nearest pixel.

    Args:
        folder: images of 16 bits (or of floats, metres), named like the frames.
        clip: the frames.
        poses: camera-to-world [4, 4] by stem.
        intrinsics: [3, 3], pixels of the clip's frames.
        scale: what stands for one metre.

    Raises:
        BadInput: no depth frame has both a pose and a frame, or one cannot be read.
    """
    if not scale > 0:
        raise BadInput(f"--depth-scale {scale:g}: expected a number > 0, 1000 for millimetres")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not files:
        raise BadInput(f"{folder}: holds no {', '.join(SUFFIXES)} depth frames")
    shown = clip.frames.posed({file.stem: np.array(at) for at, file in enumerate(files)})
    posed = clip.frames.posed(poses)
    places = sorted(shown.keys() & posed.keys())
    if len(places) < len(files):
        LOG.warning("%s: %d of %d depth frames have both a frame and a pose", folder, len(places), len(files))
    if not places:
        raise BadInput(f"{folder}: no depth frame has both a frame of {clip} and a pose")
    chosen = [places[at] for at in np.linspace(0, len(places) - 1, min(MOST_FRAMES, len(places))).astype(int)]
    LOG.info("%s: %d of %d depth frames are fused, a point in %g m", folder, len(chosen), len(files), CELL)
    origin = posed[chosen[0]][:3, 3]
    seen = [
        back_projected(read_depth(files[int(shown[place])], scale), frame, posed[place], intrinsics, origin)
        for place, frame in zip(chosen, clip.read(chosen), strict=True)
    ]
    points, colours = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    points, colours = first_in_cells(points, colours)
    return points + origin, colours


def read_depth(file: Path, scale: float) -> np.ndarray:
    """A depth frame [h, w] float64, metres; NaN where it has none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with BoundedFile(file) as opened, Image.open(opened) as image:
                require_size(image.size, file.stat().st_size)
                stored = np.asarray(image)
    except Exception as error:  # decoders of damaged files raise anything
        raise BadInput(f"depth frame {file}: unreadable ({error})") from None
    if stored.ndim != 2 or stored.dtype.itemsize < 2 or stored.dtype.kind not in "fiu":
        raise BadInput(
            f"depth frame {file}: expected one channel of 16 bits, found {list(stored.shape)} {stored.dtype}"
        )
    if stored.dtype.kind == "f":
        return np.where(stored > 0, stored, np.nan)
    none = (stored <= 0) | (stored == 65535)
    return np.where(none, np.nan, stored / scale)


def back_projected(
    depth: np.ndarray, frame: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] from an origin, and colours [P, 3], of a depth frame's pixels; one a cell."""
    step = -(-max(depth.shape) // MOST_SIDE)
    rows, columns = np.nonzero(np.isfinite(depth[::step, ::step]))
    rows, columns = rows * step, columns * step
    # the centre of a pixel, which may be of a smaller image, in pixels of the frame
    down, across = (
        (places + 0.5) * frame.shape[axis] / depth.shape[axis] for axis, places in ((0, rows), (1, columns))
    )
    rays = np.stack([across, down, np.ones(len(rows))], axis=1) @ np.linalg.inv(intrinsics).T
    points = (rays * depth[rows, columns, None]) @ pose[:3, :3].T + (pose[:3, 3] - origin)
    return first_in_cells(points, frame[down.astype(int), across.astype(int)])


def first_in_cells(points: np.ndarray, colours: np.ndarray, cell: float = CELL) -> tuple[np.ndarray, np.ndarray]:
    """Of the points [P, 3] in each cell of so many metres the first, in their order, with its colour."""
    cells = np.floor(points / cell).clip(-CELLS, CELLS - 1).astype(np.int64) + CELLS
    _, first = np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2], return_index=True)
    first.sort()
    return points[first], colours[first]
