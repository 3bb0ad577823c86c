"""Video files: frames are counted without decoding, and decoded up to the last that is wanted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import BadInput
from .frames import ImageFiles, frame_numbers, match

__all__ = ["VideoFile", "probe_video"]


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video file; a frame has the pose whose stem ends with its number.

    Attributes:
        path: the file.
        count: frames that are shown.
        first_frame: number that pose files give to frame 0.
    """

    times_hint: ClassVar[str] = ImageFiles.times_hint

    path: Path
    count: int
    first_frame: int

    def __str__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return self.count

    def name(self, place: int) -> str:
        """The file and the frame's place."""
        return f"{self.path}, frame {place}"

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode from the start, since few files can be sought exactly."""
        import av

        wanted = iter(places)
        place = next(wanted, None)
        try:
            with av.open(str(self.path)) as container:
                for decoded, frame in enumerate(container.decode(video=0)):
                    while place == decoded:
                        yield frame.to_ndarray(format="rgb24")
                        place = next(wanted, None)
                    if place is None:
                        return
        except (av.FFmpegError, OSError) as error:
            raise BadInput(f"video {self.path}: unreadable after frame {place} ({error})") from None
        raise BadInput(f"video {self.path}: ends before frame {place} of {len(self)}; the file is damaged")

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Matched by number; those beyond the file are left out."""
        numbered = dict(zip(frame_numbers(list(poses), self.first_frame), poses, strict=True))
        if len(numbered) < len(poses):
            raise BadInput(f"poses for {self.path}: several have the same number; a video file's are matched by number")
        stems = {number: stem for number, stem in numbered.items() if 0 <= number < len(self)}
        return match(self, stems, poses, f"numbers {self.first_frame}..{self.first_frame + len(self) - 1}")


def probe_video(path: Path) -> tuple[int, tuple[int, int], float | None]:
    """Frames, size and frame rate of a video file; packets are counted, not decoded."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadInput(f"video {path}: holds no video stream")
            stream = container.streams.video[0]
            rate = float(stream.average_rate) if stream.average_rate else None
            size = (stream.codec_context.width, stream.codec_context.height)
            # packets that an edit list hides are decoded, but never shown
            count = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
    except (av.FFmpegError, OSError) as error:
        raise BadInput(f"video {path}: unreadable ({error})") from None
    if not count:
        raise BadInput(f"video {path}: holds no frames")
    return count, size, rate
