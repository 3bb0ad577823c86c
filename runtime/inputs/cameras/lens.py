"""A lens: focal lengths and centre for images of a size, and how it bends what it shows."""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from ...errors import BadInput
from .intrinsics import scaled, to_intrinsics

__all__ = ["COLMAP_MODELS", "Lens", "colmap_lens"]

# bent by less than this nowhere in the image, frames are left as they are
LEAST_PIXELS = 1.0
# squares across an image inside which the bending is taken as straight, which is off by under a tenth of a pixel
SQUARES = 80
SMALLEST_SQUARE = 8
# what COLMAP names the parameters of each of its models, by the models' numbers
COLMAP_MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
}
REFUSED = ("FOV", "THIN_PRISM_FISHEYE")
BENDING = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


@dataclass(frozen=True)
class Lens:
    """What a camera sees.

    Attributes:
        fx, fy, cx, cy: focal lengths and centre, pixels.
        size: width and height of the images that these are for; None where the format does not say.
        bending: OpenCV's k1, k2, p1, p2, k3, k4, k5, k6; of a fisheye lens, k1 to k4 in their places.
        fisheye: whether the bending is OpenCV's of the angle, not of the radius.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int] | None
    bending: tuple[float, ...] = (0.0,) * len(BENDING)
    fisheye: bool = False

    def __post_init__(self) -> None:
        """Raises BadInput where numbers are no lens."""
        to_intrinsics(self.matrix, "lens")
        if not all(map(math.isfinite, self.bending)):
            raise BadInput(f"lens: its distortion is {list(self.bending)}")
        if self.size is not None and not all(0 < edge <= 1_000_000 for edge in self.size):
            raise BadInput(f"lens: its images have {self.size[0]}x{self.size[1]} pixels")

    @property
    def matrix(self) -> np.ndarray:
        """Intrinsics [3, 3] float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def at(self, size: tuple[int, int], source: str) -> "Lens":
        """The lens for the same images at another size; raises BadInput where they have another shape."""
        matrix = scaled(self.matrix, self.size or size, size, source)
        (fx, _, cx), (_, fy, cy), _ = matrix.tolist()
        return replace(self, fx=fx, fy=fy, cx=cx, cy=cy, size=size)

    def bent(self, rays: np.ndarray) -> np.ndarray:
        """Where the image shows directions [..., 2] (x/z, y/z), as directions of a lens that does not bend."""
        k1, k2, p1, p2, k3, k4, k5, k6 = self.bending
        x, y = rays[..., 0], rays[..., 1]
        square = x * x + y * y
        if self.fisheye:
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            a2 = angle * angle
            grown = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
            return rays * np.where(radius > 1e-9, grown / np.maximum(radius, 1e-9), 1.0)[..., None]
        radial = (1 + square * (k1 + square * (k2 + square * k3))) / (1 + square * (k4 + square * (k5 + square * k6)))
        moved_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        moved_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return np.stack([moved_x, moved_y], axis=-1)

    @functools.cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of squares [V, U, 2] in a straight image, and where the bent one shows them [V, U, 2], pixels."""
        assert self.size is not None, "the lens is asked for a size first (at)"
        step = max(SMALLEST_SQUARE, max(self.size) // SQUARES)
        edges = [np.append(np.arange(0, length, step), length) for length in self.size]
        corners = np.stack(np.meshgrid(*edges), axis=-1).astype(np.float64)
        focal, centre = np.array([self.fx, self.fy]), np.array([self.cx, self.cy])
        with np.errstate(all="ignore"):
            return corners, self.bent((corners - centre) / focal) * focal + centre

    def bends(self, source: str) -> float:
        """How far it moves a point of the image at most, pixels; raises BadInput where it folds the image."""
        if not self.fisheye and not any(self.bending):
            return 0.0
        corners, shown = self.mesh
        with np.errstate(all="ignore"):
            moved = float(np.abs(shown - corners).max())
            right, down = shown[:, 1:, 0] - shown[:, :-1, 0], shown[1:, :, 1] - shown[:-1, :, 1]
        assert self.size is not None
        if not moved <= 2 * max(self.size) or not (right > 0).all() or not (down > 0).all():
            raise BadInput(
                f"{source}: its distortion folds the image of {self.size[0]}x{self.size[1]}; it is no lens's"
            )
        return moved

    @functools.cached_property
    def squares(self) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """The mesh as Pillow takes it: boxes of a straight image, and the corners where the bent one shows them."""
        corners, shown = self.mesh
        # upper left, lower left, lower right, upper right
        quads = np.concatenate([shown[:-1, :-1], shown[1:, :-1], shown[1:, 1:], shown[:-1, 1:]], axis=-1)
        boxes = np.concatenate([corners[:-1, :-1], corners[1:, 1:]], axis=-1).astype(int)
        pairs = zip(boxes.reshape(-1, 4).tolist(), quads.reshape(-1, 8).tolist(), strict=True)
        return [(tuple(box), tuple(quad)) for box, quad in pairs]

    def straighten(self, frame: np.ndarray) -> np.ndarray:
        """A frame [H, W, 3] uint8 as a lens of the same focal lengths and centre that does not bend shows it.

        What the image does not show is black.
        """
        from PIL import Image

        image, bilinear = Image.fromarray(frame), Image.Resampling.BILINEAR
        return np.asarray(image.transform(image.size, Image.Transform.MESH, self.squares, resample=bilinear))


def colmap_lens(model: str, size: tuple[int, int] | None, values: list[float], source: str) -> Lens:
    """The lens of a model as COLMAP names it and its parameters; raises BadInput for one that is not read."""
    names = COLMAP_MODELS.get(model, "").split()
    if not names or model in REFUSED:
        raise BadInput(
            f"{source}: its lens is of the model {model}, which is not read; "
            "make straight images and a PINHOLE model with `colmap image_undistorter`"
        )
    if len(values) != len(names):
        raise BadInput(
            f"{source}: the model {model} has {len(names)} parameters ({' '.join(names)}), found {len(values)}"
        )
    given = dict(zip(names, values, strict=True))
    fx, fy = (given.get(name, given.get("f", 0.0)) for name in ("fx", "fy"))
    bending = tuple(given.get(name, 0.0) for name in BENDING)
    try:
        return Lens(fx, fy, given["cx"], given["cy"], size, bending, model.endswith("FISHEYE"))
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from None
