"""Video files: frames by the times that they are shown at, decoded from the keyframe before them (SPEC section 6)."""

import bisect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..bundle.digests import sha256
from ..errors import BadInput
from .decoding.streams import Stream, Unreadable, decode_all, open_video, turned
from .frames import Content, ImageFiles
from .names.pairs import PosedFrames, by_number, require_some, tell_unpaired
from .names.reading import UnreadNames

__all__ = ["VideoFile"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video file; a frame has the pose whose stem tells its number.

    Attributes:
        path: the file.
        stream: its frames that are shown.
        first_frame: number that pose files give to frame 0.
    """

    times_hint: ClassVar[str] = ImageFiles.times_hint

    path: Path
    stream: Stream
    first_frame: int

    def __str__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return self.stream.count

    def name(self, place: int) -> str:
        """The file and the frame's place."""
        return f"{self.path}, frame {place}"

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Upright frames, each decoded from the keyframe before it where that spares work."""
        frames = self._decoded(list(dict.fromkeys(places)))
        place, pixels = -1, np.empty(0)
        for wanted in places:
            if wanted != place:
                place, frame = wanted, next(frames)
                if frame.is_corrupt:
                    LOG.warning("%s: decoded with errors, the file is damaged there", self.name(place))
                pixels = turned(frame.to_ndarray(format="rgb24"), self.stream.matrix)
            yield pixels

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """The whole file and the frame's place in it; decoding begins at the first frame that is asked for."""
        try:
            digest = sha256(self.path)
        except OSError as error:
            raise BadInput(f"video {self.path}: unreadable ({error.strerror})") from None
        frames: Iterator[tuple[int, np.ndarray]] | None = None

        def pixels(number: int) -> np.ndarray:
            nonlocal frames
            frames = frames or enumerate(self.read(places[number:]), number)
            return next(frame for at, frame in frames if at == number)

        for number, place in enumerate(places):
            yield Content((digest, place, self.stream.matrix), partial(pixels, number))

    def _decoded(self, places: Sequence[int]) -> Iterator[Any]:
        """The frames at ascending places; what cannot be sought is decoded from the start."""
        done = 0
        try:
            for method in (self._sought, self._counted):
                for frame in method(places[done:]):
                    done += 1
                    yield frame
        except Unreadable as error:
            raise BadInput(f"video {self.path}: unreadable after frame {places[done]} ({error})") from None
        if done < len(places):
            raise BadInput(
                f"video {self.path}: ends before frame {places[done]} of {len(self)}, or is damaged there; copy what "
                "can be decoded into a new file (ffmpeg -i)"
            )

    def _sought(self, places: Sequence[int]) -> Iterator[Any]:
        """Frames by their time, until one is not found."""
        times, keys = self.stream.pts, self.stream.keys
        if not times or not keys:
            return
        with open_video(self.path) as (container, stream):
            frames, following = decode_all(container, stream), times[0]
            for place in places:
                start = self.stream.starts[max(0, bisect.bisect_right(keys, times[place]) - 1)]
                if start > following:
                    container.seek(start, stream=stream)
                    frames = decode_all(container, stream)
                frame = next((frame for frame in frames if frame.pts is None or frame.pts >= times[place]), None)
                if frame is None or frame.pts != times[place]:
                    return
                following = times[min(place + 1, len(times) - 1)]
                yield frame

    def _counted(self, places: Sequence[int]) -> Iterator[Any]:
        """Frames from the start, by their time where it is known, else by counting."""
        wanted = iter(places)
        place = next(wanted, None)
        if place is None:
            return
        times = self.stream.pts
        with open_video(self.path) as (container, stream):
            for count, frame in enumerate(decode_all(container, stream)):
                if frame.pts == times[place] if times else count == place:
                    yield frame
                    place = next(wanted, None)
                    if place is None:
                        return

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Matched by number; those beyond the file are left out."""
        count, first = len(self), self.first_frame
        try:
            stems = by_number(poses, first, count) if poses else {}
        except UnreadNames as error:
            raise BadInput(f"poses for {self}: {error}; a video file's are matched by number") from None
        require_some(self, stems, poses, f"numbers {first}..{first + count - 1}")
        names = [f"number {first + place}" for place in range(count)]
        tell_unpaired(self, names, stems, poses, "--first-frame N, if the first frame's pose has number N")
        return PosedFrames(stems, poses)
