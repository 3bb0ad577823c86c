"""Clips: a folder of frames or a video file; frames are chosen first and read one at a time (SPEC section 6)."""

import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, require_at_least
from ..llm.prompt import time_instruction

__all__ = ["Clip", "Selection", "load_clip", "normalised", "pixel_values", "resized", "select_frames"]

LOG = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DESCRIPTION = "clip.json"


@dataclass(frozen=True)
class Clip:
    """All frames of a clip; none is read yet.

    Attributes:
        path: folder or video file.
        files: image files in the order of their names, or None for a video file.
        numbers: number of each frame, counted from 0.
        first_frame: number that pose files and frame names give to frame 0.
        size: width and height, pixels.
        fps: frames a second, if known.
        seconds: length, if known.
    """

    path: Path
    files: tuple[Path, ...] | None
    numbers: tuple[int, ...]
    first_frame: int
    size: tuple[int, int]
    fps: float | None
    seconds: float | None

    def __len__(self) -> int:
        return len(self.numbers)

    def frame_rate(self) -> float:
        """Frames a second; raises BadInput when they are not known, which the time instruction needs."""
        if self.fps is None:
            raise BadInput(
                f"{self.path}: the frame rate is not known, which the time instruction needs; give --fps (and "
                f"--video-seconds), a {DESCRIPTION} with fps and seconds in the folder, or --no-time-instruction"
            )
        return self.fps

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB at ascending places, one after the other; a place may repeat.

        Raises:
            BadInput: a frame cannot be decoded, or has another size than the first.
        """
        source = self._read_files(indices) if self.files else self._read_video(indices)
        for index, frame in zip(indices, source, strict=True):
            if frame.shape[1::-1] != self.size:
                raise BadInput(f"{self._name(index)}: is {frame.shape[1]}x{frame.shape[0]}, the clip {self.size}")
            yield frame

    def _name(self, index: int) -> str:
        return str(self.files[index]) if self.files else f"{self.path}, frame {self.numbers[index]}"

    def _read_files(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        assert self.files is not None
        for index in indices:
            yield read_image(self.files[index])

    def _read_video(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        import av

        wanted = iter(indices)
        index = next(wanted, None)
        try:
            with av.open(str(self.path)) as container:
                for place, frame in enumerate(container.decode(video=0)):
                    while index == place:
                        yield frame.to_ndarray(format="rgb24")
                        index = next(wanted, None)
                    if index is None:
                        return
        except (av.FFmpegError, OSError) as error:
            raise BadInput(f"video {self.path}: unreadable after frame {index} ({error})") from None
        raise BadInput(f"video {self.path}: ends before frame {index} of {len(self)}; the file is damaged")


@dataclass(frozen=True)
class Selection:
    """The frames of a clip that the model sees.

    Attributes:
        clip: where they come from.
        indices: [T] places in the clip, ascending.
        poses: [T, 4, 4] float64 camera-to-world.
    """

    clip: Clip
    indices: tuple[int, ...]
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def time_instruction(self) -> str:
        """The prompt's line on length and times; raises BadInput when the frame rate is not known."""
        clip, fps = self.clip, self.clip.frame_rate()
        times = [clip.numbers[index] / fps for index in self.indices]
        seconds = len(clip) / fps if clip.seconds is None else clip.seconds
        if max(times) > seconds:
            LOG.warning(
                "the last frame is at %.2f s, after the clip's end at %.2f s; --video-seconds sets its length",
                max(times),
                seconds,
            )
        return time_instruction(seconds, times)


def load_clip(path: Path, *, fps: float | None = None, seconds: float | None = None, first_frame: int = 0) -> Clip:
    """Find the frames of a clip.

    Args:
        path: folder of jpg or png frames, or a video file.
        fps: frames a second; by default from `clip.json` in the folder or from the video file.
        seconds: length; by default from `clip.json`, or the number of frames over fps.
        first_frame: number that names and pose files give to the first frame; EPIC-KITCHENS counts from 1.

    Raises:
        BadInput: there are no frames or they cannot be read.
    """
    path = Path(path)
    for option, value in (("--fps", fps), ("--video-seconds", seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise BadInput(f"{option} {value}: expected a positive number")
    if path.is_dir():
        files, numbers = list_frames(path, first_frame)
        described = read_description(path / DESCRIPTION)
        height, width, _ = read_image(files[0]).shape
        return Clip(
            path=path,
            files=files,
            numbers=numbers,
            first_frame=first_frame,
            size=(width, height),
            fps=fps or described.get("fps"),
            seconds=seconds or described.get("seconds"),
        )
    if not path.is_file():
        raise BadInput(f"video {path}: no such file or folder")
    count, size, rate = probe_video(path)
    return Clip(path, None, tuple(range(count)), first_frame, size, fps or rate, seconds)


def select_frames(clip: Clip, poses: Mapping[str, np.ndarray], *, frames: int | None, default: int) -> Selection:
    """Choose frames evenly among those that have a pose.

    Args:
        clip: the clip.
        poses: [4, 4] matrices by stem; a video file's frames are matched by the number in the stem.
        frames: how many are asked for, at most as many as have a pose; None takes `default` and repeats if needed.
        default: the bundle's number of frames.

    Raises:
        BadInput: no frame has a pose, or fewer have one than were asked for.
    """
    if clip.files:
        stems = {file.stem: place for place, file in enumerate(clip.files)}
        posed = {stems[stem]: pose for stem, pose in poses.items() if stem in stems}
    else:
        numbers = frame_numbers(list(poses), clip.first_frame)
        numbered = dict(zip(numbers, poses.values(), strict=True))
        if len(numbered) < len(poses):
            raise BadInput(f"poses for {clip.path}: several have the same number; a video file's are matched by number")
        posed = {number: pose for number, pose in numbered.items() if 0 <= number < len(clip)}
    if not posed:
        name = clip.files[0].stem if clip.files else f"numbers {clip.first_frame}..{clip.first_frame + len(clip) - 1}"
        raise BadInput(
            f"no frame of {clip.path} has a pose: frames are named like {name}, poses like {next(iter(poses))}; "
            "they are matched by stem, and in a video file by number (--first-frame 1 if it counts from 1)"
        )
    require_at_least({"--frames": (frames, 1)})
    if frames is not None and frames > len(posed):
        raise BadInput(f"--frames {frames}: {len(posed)} of {len(clip)} frames of {clip.path} have a pose")
    count = frames or default
    if count > len(posed):
        LOG.warning("%d frames are sampled from %d with a pose, so frames repeat (--frames)", count, len(posed))
    places = sorted(posed)
    chosen = [places[int(place)] for place in np.linspace(0, len(places) - 1, count)]
    return Selection(clip, tuple(chosen), np.stack([posed[place] for place in chosen]))


def pixel_values(frame: np.ndarray, size: int) -> np.ndarray:
    """One frame [H, W, 3] uint8 as the tower takes it, [3, size, size] float32 in -1..1."""
    return normalised(resized(frame, size)).transpose(2, 0, 1)


def resized(frame: np.ndarray, size: int) -> np.ndarray:
    """One frame [H, W, 3] uint8 as a square [size, size, 3] (PIL bicubic)."""
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Pixels uint8 as float32 in -1..1."""
    unit = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    return (unit - np.float32(0.5)) / np.float32(0.5)


def list_frames(folder: Path, first_frame: int) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    """Image files of a folder in the order of their numbers, and these numbers counted from 0."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise BadInput(f"video {folder}: the folder holds no {', '.join(IMAGE_SUFFIXES)} frames")
    numbers = frame_numbers([file.stem for file in files], first_frame)
    ordered = sorted(zip(numbers, files, strict=True))
    for (number, file), (following, other) in itertools.pairwise(ordered):
        if number == following:
            raise BadInput(f"video {folder}: {file.name} and {other.name} have the same number")
    if ordered[0][0] < 0:
        raise BadInput(f"--first-frame {first_frame}: {ordered[0][1]} comes before it")
    return tuple(file for _, file in ordered), tuple(number for number, _ in ordered)


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


def read_description(path: Path) -> dict[str, Any]:
    """Numbers fps and seconds of a frame folder; empty where it has no description."""
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise TypeError(f"found {type(described).__name__}")
        return {key: positive(described[key]) for key in ("fps", "seconds") if key in described}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path}: expected a JSON object with positive numbers fps and seconds ({error})") from None


def positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"found {value!r}")
    return float(value)


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
