"""Image files as they are shown: turned upright, grey or deep ones as 8-bit RGB (SPEC section 6)."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .bounded import BoundedFile

__all__ = [
    "IMAGE_SUFFIXES",
    "OTHER_PICTURES",
    "Picture",
    "decode_image",
    "image_of",
    "read_file",
    "read_image",
    "require_size",
    "white_of",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# pictures that are not read, and would be missed
OTHER_PICTURES = (".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".exr", ".dng", ".cr2", ".nef", ".arw", ".raw")
# a header may claim anything: pixels of any file, for each byte of it, and at most
ANY_PIXELS, PIXELS_A_BYTE, MOST_PIXELS = 1 << 22, 1 << 10, 1 << 27
# of a pixel in a file, at most
PIXEL_BYTES = 8
ORIENTATION = 0x0112
# EXIF orientations that are quarter turns, as turns counterclockwise
QUARTERS = {3: 2, 6: 3, 8: 1}
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
# bits that cameras write into files of 16
DEPTHS = (8, 10, 12, 14, 16)
PAGED = ("TIFF", "PNG", "WEBP")


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes:
        values: [H, W, 3] uint8 RGB, or [H, W] of a grey image with more than 8 bits, upright.
        stored: width and height in the file, pixels.
        orientation: EXIF's, which has been applied; 1 where it stands as it is stored.
        pages: how many pictures the file holds, of which this is the first.
    """

    values: np.ndarray
    stored: tuple[int, int]
    orientation: int
    pages: int

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits."""
        return self.values.ndim == 2

    @property
    def turns(self) -> int:
        """Quarter turns counterclockwise that it has been turned by; 0 where it is mirrored too."""
        return QUARTERS.get(self.orientation, 0)

    def rgb(self, white: float) -> np.ndarray:
        """[H, W, 3] uint8 RGB, where `white` is the value of white in a deep image; raises ValueError beyond it."""
        if not self.deep:
            return self.values
        peak = self.values.max()
        if not 0 <= self.values.min() <= peak <= white:
            raise ValueError(f"its values go up to {peak:g}, those of other frames to {white:g}; convert to 8 bits")
        if self.values.dtype.kind == "f":
            grey = np.rint(self.values * (255 / white)).astype(np.uint8)
        else:
            # the upper 8 bits: exact for 8 bits that were shifted or repeated
            grey = (self.values >> (int(white).bit_length() - 8)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def white_of(peak: float, floating: bool) -> float:
    """The value of white in deep images whose brightest value is `peak`; raises ValueError where it is not known."""
    whites = (1.0, 255.0) if floating else [float((1 << bits) - 1) for bits in DEPTHS]
    white = next((white for white in whites if peak <= white), None)
    if white is None:
        raise ValueError(f"its values go up to {peak:g}, expected at most {whites[-1]:g}; convert to 8 bits")
    return white


def read_image(path: Path) -> Picture:
    """Read an image file; raises BadInput where it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # what Pillow warns of in a file's metadata
            warnings.simplefilter("ignore")
            with BoundedFile(path) as opened, Image.open(opened) as image:
                require_size(image.size, path.stat().st_size)
                return upright(image)
    except Exception as error:  # decoders of damaged files raise anything
        raise BadInput(f"frame {path}: unreadable ({error})") from None


def read_file(path: Path) -> bytes:
    """The bytes of an image file; raises BadInput where it cannot be read."""
    try:
        with BoundedFile(path) as opened:
            if path.stat().st_size > MOST_PIXELS * PIXEL_BYTES:
                raise OSError(f"has {path.stat().st_size} bytes, more than any image that is read")
            return opened.read()
    except OSError as error:
        raise BadInput(f"frame {path}: unreadable ({error})") from None


def image_of(data: bytes, path: Path) -> Picture:
    """The image of a file that was read; raises BadInput where it cannot be decoded."""
    from PIL import UnidentifiedImageError

    try:
        return decode_image(data)
    except UnidentifiedImageError:
        raise BadInput(f"frame {path}: unreadable (cannot identify image file)") from None
    except Exception as error:  # decoders of damaged files raise anything
        raise BadInput(f"frame {path}: unreadable ({error})") from None


def decode_image(content: bytes) -> Picture:
    """Read an image of a file's content; raises what its decoder does where it cannot be read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as image:
            require_size(image.size, len(content))
            return upright(image)


def require_size(size: tuple[int, int], length: int) -> None:
    """Raise ValueError where an image claims more pixels than a file of so many bytes holds."""
    if size[0] * size[1] > min(MOST_PIXELS, ANY_PIXELS + PIXELS_A_BYTE * length):
        raise ValueError(f"it claims {size[0]}x{size[1]} pixels in {length} bytes; write it anew")


def upright(image: Any) -> Picture:
    """An open image, decoded and turned."""
    from PIL import ImageOps

    stored = image.size
    pages = getattr(image, "n_frames", 1) if image.format in PAGED else 1
    orientation = image.getexif().get(ORIENTATION, 1)
    turned = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        values = np.asarray(turned)
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinity")
        return Picture(values, stored, orientation, pages)
    return Picture(np.asarray(turned.convert("RGB")), stored, orientation, pages)
