"""Where a clip's frames come from: what every source does, and a folder of image files (SPEC section 6)."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from ..errors import BadInput

__all__ = ["Frames", "ImageFiles", "frame_numbers", "list_frames", "match", "read_image"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DESCRIPTION = "clip.json"


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

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Poses of the frames that have one, by place; `poses` are the scene's. Raises BadInput where none has."""


class PosedFrames(Mapping[int, np.ndarray]):
    """The poses of a scene by the places of the frames that they belong to; still read when they are asked for."""

    def __init__(self, stems: Mapping[int, str], poses: Mapping[str, np.ndarray]):
        """`stems` name the pose of each place."""
        self._stems, self._poses = stems, poses

    def __getitem__(self, place: int) -> np.ndarray:
        return self._poses[self._stems[place]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)


@dataclass(frozen=True)
class ImageFiles:
    """A folder of frames; a frame has the pose of its stem.

    Attributes:
        folder: where they are.
        files: their names, at least one, in the order of their numbers.
    """

    times_hint: ClassVar[str] = (
        f"give --fps (and --video-seconds), a {DESCRIPTION} with fps and seconds in the folder, "
        "or --no-time-instruction"
    )

    folder: Path
    files: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, place: int) -> str:
        """The file."""
        return str(self.folder / self.files[place])

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Each file when its turn comes."""
        for place in places:
            yield read_image(self.folder / self.files[place])

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Matched by stem."""
        names = [stem_of(file) for file in self.files]
        return match(self, {place: stem for place, stem in enumerate(names) if stem in poses}, poses, names[0])

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, pixels."""
        height, width, _ = read_image(self.folder / self.files[0]).shape
        return width, height


def match(clip: Frames, stems: Mapping[int, str], poses: Mapping[str, np.ndarray], like: str) -> PosedFrames:
    """The poses of a clip's frames by place; raises BadInput, with what frames are named like, where there are none."""
    if not poses:
        raise BadInput(
            f"no frame of {clip} has a pose: the scene has none; give poses to Scene.of, by the frames' stems"
        )
    if not stems:
        raise BadInput(
            f"no frame of {clip} has a pose: frames are named like {like}, poses like {next(iter(poses))}; "
            "they are matched by stem, and in a video file by number (--first-frame 1 if it counts from 1)"
        )
    return PosedFrames(stems, poses)


def list_frames(folder: Path, first_frame: int) -> tuple[ImageFiles, tuple[int, ...]]:
    """Image files of a folder in the order of their numbers, and these numbers counted from 0."""
    # names, not paths: a folder may hold a recording of many thousands
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES))
    if not files:
        raise BadInput(f"video {folder}: the folder holds no {', '.join(IMAGE_SUFFIXES)} frames")
    numbers = frame_numbers([stem_of(file) for file in files], first_frame)
    ordered = sorted(zip(numbers, files, strict=True))
    for (number, file), (following, other) in itertools.pairwise(ordered):
        if number == following:
            raise BadInput(f"video {folder}: {file} and {other} have the same number")
    if ordered[0][0] < 0:
        raise BadInput(f"--first-frame {first_frame}: {folder / ordered[0][1]} comes before it")
    return ImageFiles(folder, tuple(file for _, file in ordered)), tuple(number for number, _ in ordered)


def stem_of(file: str) -> str:
    return file.rpartition(".")[0]


def frame_numbers(stems: Sequence[str], first_frame: int) -> tuple[int, ...]:
    """The last number in each stem, counted from 0; the place in the list where any stem has none."""
    found = [re.findall(r"\d+", stem) for stem in stems]
    if not all(found):
        return tuple(range(len(stems)))
    return tuple(int(digits[-1]) - first_frame for digits in found)


def read_image(path: Path) -> np.ndarray:
    """An image file, [H, W, 3] uint8 RGB."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"frame {path}: unreadable ({error})") from None
