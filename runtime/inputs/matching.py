"""A clip and the cameras that a file gives for it: poses by frame, intrinsics in its pixels, frames without bending."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from .cameras import usable
from .cameras.cameras import Cameras
from .cameras.lens import LEAST_PIXELS, Lens
from .clip import Clip
from .frames import Content, Frames, ImageFiles
from .video import VideoFile

__all__ = ["Matched", "match_cameras"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matched:
    """What is known of the cameras of a clip.

    Attributes:
        clip: its frames without the lens's bending, if there is one.
        poses: [4, 4] float64 camera-to-world by the stems that the clip's frames are matched by; those that can be
            used.
        intrinsics: [3, 3] float64, pixels of the clip's frames; None where the cameras' format holds none.
        source: where they come from, in words.
    """

    clip: Clip
    poses: Mapping[str, np.ndarray]
    intrinsics: np.ndarray | None
    source: str


def match_cameras(cameras: Cameras, clip: Clip, *, straight: bool = False) -> Matched:
    """Bring together what a file of cameras says and a clip from files.

    Args:
        cameras: what `load_cameras` gives.
        clip: what `load_clip` gives.
        straight: whether the frames are without the lens's bending already, as with intrinsics of their own.

    Raises:
        BadInput: frames and poses have nothing in common, the lens belongs to images of another shape, or is of a kind
            that frames cannot be straightened of.
    """
    frames = clip.frames
    stems, folder = [], ""
    if isinstance(frames, ImageFiles):
        stems, folder = [file.rpartition(".")[0] for file in frames.files], frames.folder.resolve().name
    elif isinstance(frames, VideoFile):
        stems = [str(frames.first_frame + place) for place in range(len(frames))]
    named, lens = cameras.of_frames(stems, folder, clip.times)
    poses, lost = usable(named)
    if lost:
        LOG.warning("%s: %s", cameras.source, lost)
    if lens is None or straight:
        return Matched(clip, poses, None, cameras.source)
    lens = lens.at(clip.size, cameras.source)
    bends = lens.bends(cameras.source)
    if bends >= LEAST_PIXELS:
        LOG.info("%s: its lens bends by up to %.1f pixels; frames are straightened", cameras.source, bends)
        clip = replace(clip, frames=Straightened(frames, lens))
    return Matched(clip, poses, lens.matrix, cameras.source)


class Straightened:
    """Frames of another source as a lens that does not bend shows them."""

    times_hint: ClassVar[str] = ImageFiles.times_hint

    def __init__(self, frames: Frames, lens: Lens):
        """`lens` is that of the frames at their size."""
        self._frames, self._lens = frames, lens

    def __str__(self) -> str:
        return str(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, place: int) -> str:
        """As the source does."""
        return self._frames.name(place)

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """As the source does, and straight; a frame of another size is left for the clip to refuse."""
        return map(self._straight, self._frames.read(places))

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """Those of the source, with the lens."""
        for content in self._frames.contents(places):
            yield Content((*content.parts, *astuple(self._lens)), partial(self._pixels, content))

    def _pixels(self, content: Content) -> np.ndarray:
        return self._straight(content.pixels())

    def _straight(self, frame: np.ndarray) -> np.ndarray:
        return self._lens.straighten(frame) if frame.shape[1::-1] == self._lens.size else frame

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """As the source does."""
        return self._frames.posed(poses)
