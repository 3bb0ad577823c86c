"""Where a clip's frames come from: what every source does, and a folder of image files (SPEC section 6)."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import BadInput
from .decoding.images import IMAGE_SUFFIXES, OTHER_PICTURES, image_of, read_file, read_image, white_of
from .names.pairs import PosedFrames, pair, require_some, tell_unpaired
from .names.reading import Reading, UnreadNames, listed, read_names

__all__ = ["Content", "Frames", "ImageFiles", "list_frames", "look_at_first"]

LOG = logging.getLogger(__name__)
DESCRIPTION = "clip.json"
# of frames that poses are named like
UNREAD = Reading(())
# frames of more than 8 bits that are looked at for their brightest value
PEAK_FRAMES = 8


@dataclass(frozen=True)
class Content:
    """A frame that is not decoded yet.

    Attributes:
        parts: bytes, arrays and values that decide every pixel: equal parts, equal frames.
        pixels: gives it [H, W, 3] uint8 RGB; raises BadInput where it cannot be decoded.
    """

    parts: tuple[Any, ...]
    pixels: Callable[[], np.ndarray]


class Frames(Protocol):
    """Frames of a clip by their places 0..n-1; its text is what messages call the clip."""

    #: what gives the frames' times where they are not known
    times_hint: ClassVar[str]

    def __len__(self) -> int:
        """How many there are."""

    def name(self, place: int) -> str:
        """What messages call a frame."""

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB at ascending places, which may repeat; raises BadInput for a bad one."""

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """The same before they are decoded, each once and in this order; raises BadInput where one cannot be read."""

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Poses of the frames that have one, by place; `poses` are the scene's. Raises BadInput where none has."""


@dataclass(frozen=True)
class ImageFiles:
    """A folder of frames; a frame has the pose of its stem, or of the same number or time.

    Attributes:
        folder: where they are.
        files: their names, at least one, in the order of time.
        reading: how the stems are read; by default poses have the same stems, and some frames have none.
        white: value of white, where they have more than 8 bits.
    """

    times_hint: ClassVar[str] = (
        f"give --fps (and --video-seconds), a {DESCRIPTION} with fps and seconds in the folder, "
        "or --no-time-instruction"
    )

    folder: Path
    files: tuple[str, ...]
    reading: Reading = UNREAD
    white: float = 65535.0

    def __str__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, place: int) -> str:
        """The file."""
        return str(self.folder / self.files[place])

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Each file when its turn comes."""
        return (content.pixels() for content in self.contents(places))

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """Bytes of the files."""
        for place in places:
            data = read_file(self.folder / self.files[place])
            yield Content((data, self.white), partial(self._decode, place, data))

    def _decode(self, place: int, data: bytes) -> np.ndarray:
        file = self.folder / self.files[place]
        try:
            return image_of(data, file).rgb(self.white)
        except ValueError as error:
            raise BadInput(f"frame {file}: {error}") from None

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Matched by stem, or by the number or time in it where that finds more."""
        names = [stem_of(file) for file in self.files]
        stems = pair(names, self.reading, poses)
        require_some(self, stems, poses, names[0])
        if self.reading.names:
            tell_unpaired(self, names, stems, poses)
        return PosedFrames(stems, poses)

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, pixels."""
        height, width = read_image(self.folder / self.files[0]).values.shape[:2]
        return width, height


def list_frames(folder: Path) -> ImageFiles:
    """Image files of a folder in the order of time.

    Raises:
        BadInput: there are none, or their names do not tell one order.
    """
    # names, not paths: a folder may hold a recording of many thousands
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    files = {file: stem_of(file) for file in names if file.lower().endswith(IMAGE_SUFFIXES)}
    others = [file for file in names if file.lower().endswith(OTHER_PICTURES)]
    if not files:
        found = f"; {others[0]} is of a kind that is not read, convert it" if others else ""
        raise BadInput(f"video {folder}: the folder holds no {', '.join(IMAGE_SUFFIXES)} frames{found}")
    if others:
        LOG.warning(
            "video %s: pictures of other kinds are not read, %d (%s); convert them", folder, len(others), listed(others)
        )
    kept = {stem: file for file, stem in files.items()}
    if len(kept) < len(files):
        twice = next(file for file, stem in files.items() if kept[stem] != file)
        raise BadInput(f"video {folder}: {twice} and {kept[files[twice]]} have the same number; keep one kind of files")
    try:
        reading = read_names(list(kept))
    except UnreadNames as error:
        raise BadInput(f"video {folder}: {error}; keep or link the frames of one clip in a folder, numbered") from None
    told = [kept[stem] for stem in reading.left_out]
    if told:
        LOG.warning("video %s: files not named like the others are left out, %d (%s)", folder, len(told), listed(told))
    if reading.doubt:
        LOG.warning("video %s: %s", folder, reading.doubt)
    shown = [kept[stem] for stem in reading.names]
    LOG.log(
        logging.INFO if reading.words else logging.DEBUG,
        "video %s: frames are ordered by %s, from %s to %s",
        folder,
        reading.words or "their names",
        shown[0],
        shown[-1],
    )
    return ImageFiles(folder, tuple(shown), reading)


def look_at_first(files: ImageFiles) -> tuple[ImageFiles, tuple[int, int], int]:
    """What the first frame tells of all: the value of white is known, their size, and quarter turns counterclockwise.

    Raises:
        BadInput: it cannot be read.
    """
    first = read_image(files.folder / files.files[0])
    height, width = first.values.shape[:2]
    if first.orientation != 1:
        LOG.info("video %s: frames are turned as EXIF says; K is that of upright frames", files)
    if first.pages > 1:
        LOG.warning(
            "video %s: files hold several pictures, %d in the first; the first of each is taken", files, first.pages
        )
    if first.deep:
        files = replace(files, white=white_of_all(files))
        LOG.info("video %s: grey frames of more than 8 bits are scaled, with white at %g", files, files.white)
    return files, (width, height), first.turns


def white_of_all(files: ImageFiles) -> float:
    """The value of white in frames of more than 8 bits, by the brightest value in some of them."""
    places = sorted({int(place) for place in np.linspace(0, len(files) - 1, PEAK_FRAMES)})
    some = [read_image(files.folder / files.files[place]).values for place in places]
    try:
        return white_of(max(values.max() for values in some), any(values.dtype.kind == "f" for values in some))
    except ValueError as error:
        raise BadInput(f"frame {files.name(0)}: {error}") from None


def stem_of(file: str) -> str:
    return file.rpartition(".")[0]
