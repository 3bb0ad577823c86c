"""Which frames of a clip the model sees, with their poses and times (SPEC section 6)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadInput, require_at_least
from .cameras import usable
from .clip import Clip
from .scene import Scene

__all__ = ["Selection", "select_frames", "upright"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The frames of a clip that the model sees.

    Attributes:
        clip: where they come from.
        indices: [T] places in the clip, ascending.
        poses: [T, 4, 4] float64 camera-to-world, metres from the scene's offset.
    """

    clip: Clip
    indices: tuple[int, ...]
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def timing(self) -> tuple[float, list[float]]:
        """The clip's length and the T frames' times, seconds; raises BadInput where they are not known."""
        seconds, all_times = self.clip.timing()
        times = [all_times[index] for index in self.indices]
        if max(times) > seconds:
            LOG.warning(
                "the last frame is at %.2f s, after the clip's end at %.2f s; --video-seconds sets its length",
                max(times),
                seconds,
            )
        return seconds, times


def select_frames(
    clip: Clip,
    poses: Mapping[str, np.ndarray],
    *,
    frames: int | None,
    default: int,
    offset: np.ndarray | None = None,
) -> Selection:
    """Choose frames evenly among those that have a pose that can be used; the poses of all frames of the clip are read.

    Args:
        clip: the clip.
        poses: the scene's [4, 4] matrices by stem; a video file's frames are matched by the number in the stem, and
            a clip in memory has its own instead.
        frames: how many are asked for, at most as many as have a pose; None takes `default` and repeats if needed.
        default: the bundle's number of frames.
        offset: the scene's [3], which is taken off the poses; by default none.

    Raises:
        BadInput: no frame has a pose that can be used, or fewer have one than were asked for.
    """
    posed, lost = usable(clip.frames.posed(poses))
    require_at_least({"--frames": (frames, 1)})
    if frames is not None and frames > len(posed):
        why = f"; {lost}" if lost else ""
        raise BadInput(f"--frames {frames}: {len(posed)} of {len(clip)} frames of {clip} have a pose{why}")
    if lost:
        LOG.warning("%s: %s", clip, lost)
    count = frames or default
    if count > len(posed):
        LOG.warning("%d frames are sampled from %d with a pose, so frames repeat (--frames)", count, len(posed))
    places = sorted(posed)
    chosen = [places[int(place)] for place in np.linspace(0, len(places) - 1, count)]
    stacked = np.stack([posed[place] for place in chosen])
    if offset is not None:
        stacked[:, :3, 3] -= offset
    return Selection(clip, tuple(chosen), stacked)


def upright(scene: Scene, clip: Clip) -> Scene:
    """The scene with intrinsics of the clip's upright frames; warns where they were those of the stored frames."""
    return replace(scene, intrinsics=clip.upright(scene.intrinsics))
