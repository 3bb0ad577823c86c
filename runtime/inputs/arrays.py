"""Frames that are in memory, with a pose each: in a sequence that stays, or from an iterator that gives them once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..errors import BadInput
from .frames import Content

__all__ = ["FrameArrays"]


class FrameArrays:
    """Frames [H, W, 3] uint8 RGB, each with its pose.

    A sequence or an array of them is used as it is, not copied. An iterator is gone through once, up to the last frame
    that is chosen, and copies of the first and of the chosen frames are kept: T of them take T * H * W * 3 bytes.
    """

    times_hint: ClassVar[str] = "give times or fps to Clip.of, or time_instruction=False"

    def __init__(self, frames: Iterable[Any], poses: Sequence[np.ndarray]):
        """Take frames with as many camera-to-world poses; nothing is read of them yet.

        Raises:
            BadInput: there are no frames, or another number of poses.
        """
        self._poses = poses
        self._frames: Sequence[Any] | np.ndarray | OnePass
        if isinstance(frames, Sequence | np.ndarray):
            if not len(frames):
                raise BadInput("frames: there are none")
            if len(frames) != len(poses):
                raise BadInput(f"poses: {len(poses)} for {len(frames)} frames, expected one a frame")
            self._frames = frames
        else:
            if not len(poses):
                raise BadInput("poses: there are none, expected one a frame")
            self._frames = OnePass(frames, len(poses))

    def __str__(self) -> str:
        return "the clip in memory"

    def __len__(self) -> int:
        return len(self._poses)

    def name(self, place: int) -> str:
        """As a caller would write it."""
        return f"frames[{place}]"

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """As they are; raises BadInput for a frame that an iterator has passed."""
        for place in places:
            yield require_image(self._frames[place], place)

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """The arrays."""
        for frame in self.read(places):
            yield Content((frame,), partial(np.asarray, frame))

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """All frames with their own poses; the scene's are of other frames."""
        return dict(enumerate(self._poses))

    @property
    def within_reach(self) -> range:
        """Places of the frames that can be looked at without taking them from an iterator."""
        return range(1) if isinstance(self._frames, OnePass) else range(len(self))


class OnePass:
    """An iterator's frames by ascending places; the ones that were asked for are kept, the others passed over."""

    def __init__(self, frames: Iterable[Any], count: int):
        """Take an iterator of `count` frames."""
        try:
            self._rest = iter(frames)
        except TypeError:
            kind = type(frames).__name__
            raise BadInput(f"frames: expected a sequence or an iterator of arrays, found {kind}") from None
        self._count, self._passed = count, 0
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, place: int) -> np.ndarray:
        """Raises BadInput when the frame was passed over, or when there are not as many as there have to be."""
        if place in self._kept:
            return self._kept[place]
        if place < self._passed:
            raise BadInput(
                f"frames[{place}]: an iterator gives its frames once, and this one was passed over; "
                "give the frames as a list to look at them again in another selection"
            )
        for frame in self._rest:
            self._passed += 1
            if self._passed > place:
                # a copy, since cameras and decoders fill the same buffer again
                self._kept[place] = require_image(frame, place).copy()
                break
        else:
            raise BadInput(f"frames: there are {self._passed}, but {self._count} poses; expected one a frame")
        if self._passed == self._count and next(self._rest, None) is not None:
            raise BadInput(f"frames: there are more than the {self._count} poses; expected one a frame")
        return self._kept[place]


def require_image(frame: Any, place: int) -> np.ndarray:
    """The frame at a place of the caller's; raises BadInput unless it is [H, W, 3] uint8."""
    if not isinstance(frame, np.ndarray):
        raise BadInput(f"frames[{place}]: expected an array [H, W, 3] uint8 (RGB), found {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        found = f"{list(frame.shape)} {frame.dtype}"
        raise BadInput(f"frames[{place}]: expected an array [H, W, 3] uint8 (RGB), found {found}")
    return frame
