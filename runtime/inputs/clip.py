"""Clips: the frames of an action with their times, from files or from memory (SPEC section 6)."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .arrays import FrameArrays
from .cameras import require_convention, to_pose
from .decoding.streams import TURNS, UPRIGHT, probe_video
from .frames import DESCRIPTION, Content, Frames, ImageFiles, list_frames, look_at_first
from .video import VideoFile

__all__ = ["Clip", "even_times", "load_clip", "with_length"]

LOG = logging.getLogger(__name__)

# a day; times beyond it are stamps of a clock
LATEST_SECONDS = 86_400.0
NANO = 1_000_000_000
# share of a frame's size by which a principal point may be off the middle
MIDDLE = 0.1
# what quarter turns counterclockwise do to a frame
TURNED = ("mirrored", "turned counterclockwise", "turned by 180°", "turned clockwise")


@dataclass(frozen=True)
class Clip:
    """All frames of a clip; they are read when they are needed.

    Attributes:
        frames: where they come from.
        size: width and height, pixels.
        times: seconds of each frame since the clip's beginning, if known.
        seconds: length, if known.
        turns: quarter turns counterclockwise that the frames have been turned by after they were read.
        pose_convention: by which the frames' own poses were read; None where they have none.
    """

    frames: Frames
    size: tuple[int, int]
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    turns: int = 0
    pose_convention: str | None = None

    @classmethod
    def of(
        cls,
        frames: Iterable[np.ndarray],
        *,
        poses: Iterable[Any],
        times: Iterable[float] | None = None,
        fps: float | None = None,
        seconds: float | None = None,
        pose_convention: str = "c2w",
    ) -> "Clip":
        """A clip from what is in memory; gives what `load_clip` and a scene's poses give for the same in files.

        A sequence of frames is looked at now and not copied. An iterator is gone through once, when the frames that
        the model sees are read; these are kept, and no others.

        Args:
            frames: [H, W, 3] uint8 RGB each, of one size.
            poses: [4, 4] a frame, as many as there are frames.
            times: seconds of each frame since the clip's beginning, ascending.
            fps: frames a second, where the frames are evenly spaced; `times` or `fps` is given, or neither.
            seconds: length; by default the frames over `fps`, or up to the end of the last frame of `times`, which
                is as long as the others on average.
            pose_convention: how `poses` are meant, one of `POSE_CONVENTIONS`; OpenCV axes unless it says OpenGL.

        Raises:
            BadInput: an argument is not what it has to be; the argument and the frame are named.
        """
        require_convention(pose_convention)
        given = to_list("poses", poses, "[4, 4] numbers a frame")
        held = FrameArrays(frames, [to_pose(pose, f"poses[{i}]", pose_convention) for i, pose in enumerate(given)])
        if times is not None and fps is not None:
            raise BadInput("times and fps are both given; give the one that the frames' times come from")
        require_positive({"fps": fps, "seconds": seconds})
        if times is None:
            known = even_times(range(len(held)), fps, seconds)
        else:
            known = given_times(to_list("times", times, "seconds a frame"), len(held), seconds)
        (first,) = held.read([0])
        clip = cls(held, (first.shape[1], first.shape[0]), *known, pose_convention=pose_convention)
        for _ in clip.read(held.within_reach):
            pass  # all that can be checked now is
        return clip

    def __len__(self) -> int:
        return len(self.frames)

    def __str__(self) -> str:
        return str(self.frames)

    def upright(self, intrinsics: np.ndarray) -> np.ndarray:
        """Intrinsics [3, 3] of the upright frames; those of the frames as they are stored are turned with a warning.

        They are known by their principal point: near the middle of the stored size, and not of the upright one.
        """
        width, height = self.size
        (fx, _, cx), (_, fy, cy), _ = intrinsics
        if self.turns % 2 == 0 or is_middle(cx, cy, self.size) or not is_middle(cx, cy, (height, width)):
            return intrinsics
        LOG.warning(
            "%s: frames are shown %s, and K is of %dx%d as they are stored, so it is turned alike; poses are taken as "
            "those of the upright frames",
            self,
            TURNED[self.turns],
            height,
            width,
        )
        cx, cy = (cy, height - cx) if self.turns == 1 else (width - cy, cx)
        return np.array([[fy, 0, cx], [0, fx, cy], [0, 0, 1]])

    def timing(self) -> tuple[float, tuple[float, ...]]:
        """Length and times of the frames, seconds; raises BadInput where they are not known."""
        if self.times is None or self.seconds is None:
            raise BadInput(
                f"{self}: the frame rate is not known, which the time instruction needs; {self.frames.times_hint}"
            )
        return self.seconds, self.times

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB at ascending places, one after the other; a place may repeat.

        Raises:
            BadInput: a frame cannot be decoded, has another size than the first, or came from an iterator that has
                passed it.
        """
        for index, frame in zip(indices, self.frames.read(indices), strict=True):
            yield self._checked(index, frame)

    def contents(self, indices: Sequence[int]) -> Iterator[Content]:
        """The same before they are decoded; a frame of another size is found out when it is."""
        for index, content in zip(indices, self.frames.contents(indices), strict=True):
            yield replace(content, pixels=partial(self._pixels, index, content))

    def _pixels(self, index: int, content: Content) -> np.ndarray:
        return self._checked(index, content.pixels())

    def _checked(self, index: int, frame: np.ndarray) -> np.ndarray:
        if frame.shape[1::-1] != self.size:
            raise BadInput(f"{self.frames.name(index)}: is {frame.shape[1]}x{frame.shape[0]}, the clip {self.size}")
        return frame


def load_clip(
    path: Path | str, *, fps: float | None = None, seconds: float | None = None, first_frame: int = 0
) -> Clip:
    """Find the frames of a clip.

    Args:
        path: folder of image files, or a video file.
        fps: frames a second; by default from `clip.json` in the folder or from the video file; without one, times are
            those in the names of the frames, or of the video file where its rate varies.
        seconds: length; by default from `clip.json`, or the number of frames over fps.
        first_frame: number that names and pose files give to the first frame; EPIC-KITCHENS counts from 1.

    Raises:
        BadInput: there are no frames or they cannot be read.
    """
    path = Path(path)
    require_positive({"--fps": fps, "--video-seconds": seconds})
    if path.is_dir():
        files = list_frames(path)
        described = read_description(path / DESCRIPTION)
        files, size, turns = look_at_first(files)
        known = times_of(files, fps or described.get("fps"), seconds or described.get("seconds"), first_frame)
        return Clip(files, size, *known, turns)
    if not path.is_file():
        raise BadInput(f"video {path}: no such file or folder")
    stream = probe_video(path)
    turns = TURNS.get(stream.matrix, 0)
    if stream.matrix != UPRIGHT:
        LOG.info("video %s: frames are shown %s, as the file says; K is that of upright frames", path, TURNED[turns])
    size = stream.size[::-1] if turns % 2 else stream.size
    if fps is None and stream.times is not None:
        LOG.info("video %s: frames have times of their own, not of a constant rate", path)
        known = with_length(stream.times, seconds or (stream.times[-1] + stream.last if stream.last else None))
    else:
        known = even_times(range(stream.count), fps or stream.rate, seconds)
    return Clip(VideoFile(path, stream, first_frame), size, *known, turns)


def even_times(
    numbers: Sequence[int], fps: float | None, seconds: float | None
) -> tuple[tuple[float, ...] | None, float | None]:
    """Times of frames with these numbers, and the clip's length; None where they are not known."""
    if fps is None:
        return None, seconds
    return tuple(number / fps for number in numbers), seconds or len(numbers) / fps


def given_times(times: list[Any], count: int, seconds: float | None) -> tuple[tuple[float, ...], float]:
    """The times of `count` frames and the clip's length; raises BadInput unless they ascend from 0 or later."""
    if len(times) != count:
        raise BadInput(f"times: {len(times)} for {count} frames, expected one a frame")
    before = -math.inf
    for place, time in enumerate(times):
        if not is_number(time) or not math.isfinite(time):
            raise BadInput(f"times[{place}]: found {time!r}, expected seconds")
        if not 0 <= time <= LATEST_SECONDS:
            raise BadInput(
                f"times[{place}]: is {float(time):g} s, expected 0 to {LATEST_SECONDS:g} s since the clip's beginning; "
                "subtract its stamp"
            )
        if time <= before:
            raise BadInput(f"times[{place}]: is {float(time):g} s after {before:g} s, expected ascending times")
        before = float(time)
    return with_length(tuple(map(float, times)), seconds)


def with_length(times: tuple[float, ...], seconds: float | None) -> tuple[tuple[float, ...], float]:
    """Times and the clip's length; by default the last frame is as long as the others on average."""
    interval = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return times, seconds or times[-1] + interval


def times_of(
    files: ImageFiles, fps: float | None, seconds: float | None, first_frame: int
) -> tuple[tuple[float, ...] | None, float | None]:
    """Times of image files, and the clip's length, from their numbers over the rate, or from stamps in their names.

    Raises:
        BadInput: a frame comes before the first one.
    """
    numbers, stamps = files.reading.numbers, files.reading.stamps
    if numbers is not None and numbers[0] < first_frame:
        raise BadInput(f"--first-frame {first_frame}: {files.name(0)} comes before it")
    if fps is None:
        if stamps is None or stamps[-1] - stamps[0] > LATEST_SECONDS * NANO or len(set(stamps)) < len(stamps):
            return None, seconds
        LOG.info("video %s: times of the frames are those in their names", files)
        return with_length(tuple((stamp - stamps[0]) / NANO for stamp in stamps), seconds)
    if numbers is not None and (numbers[-1] - first_frame) / fps <= LATEST_SECONDS:
        return even_times([number - first_frame for number in numbers], fps, seconds)
    if numbers is not None or stamps is not None:
        LOG.warning(
            "video %s: names such as %s hold no frame numbers at %g frames a second, so times are the frames' places "
            "over it%s",
            files,
            files.files[0],
            fps,
            "; leave out the rate (--fps, clip.json) for the times in the names" if stamps else "",
        )
    return even_times(range(len(files)), fps, seconds)


def to_list(name: str, values: Any, expected: str) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise BadInput(f"{name}: expected {expected}, found {type(values).__name__}") from None


def require_positive(values: Mapping[str, Any]) -> None:
    """Raise BadInput unless each value that is given is a positive number."""
    for name, value in values.items():
        if value is not None and not is_positive(value):
            raise BadInput(f"{name} {value}: expected a positive number")


def is_middle(x: float, y: float, size: tuple[int, int]) -> bool:
    """Whether a principal point is near the middle of a frame."""
    return abs(x / size[0] - 0.5) <= MIDDLE and abs(y / size[1] - 0.5) <= MIDDLE


def is_positive(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def read_description(path: Path) -> dict[str, float]:
    """Numbers fps and seconds of a frame folder; empty where it has no description."""
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise TypeError(f"found {type(described).__name__}")
        found = {key: described[key] for key in ("fps", "seconds") if key in described}
        if bad := [value for value in found.values() if not is_positive(value)]:
            raise ValueError(f"found {bad[0]!r}")
        return {key: float(value) for key, value in found.items()}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path}: expected a JSON object with positive numbers fps and seconds ({error})") from None
