"""Which pose belongs to which frame, by their names."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ...errors import BadInput
from .reading import Reading, UnreadNames, listed, read_names

__all__ = ["PosedFrames", "by_number", "pair", "require_some", "tell_unpaired"]

LOG = logging.getLogger(__name__)


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


def pair(names: Sequence[str], reading: Reading, poses: Collection[str]) -> dict[int, str]:
    """The pose of each frame that has one, by the frame's place.

    Args:
        names: of frames, in their order.
        reading: how they are read, for poses that are named otherwise; where it is empty, only equal names are a pair.
        poses: names of poses.
    """
    same = {place: name for place, name in enumerate(names) if name in poses}
    if not reading.names or len(same) in (len(names), len(poses)):
        return same
    try:
        theirs = read_names(list(poses))
    except UnreadNames:
        return same
    for ours, other in ((reading.stamps, theirs.stamps), (reading.numbers, theirs.numbers)):
        named = dict(zip(other or (), theirs.names, strict=False))
        counted = {place: named[count] for place, count in enumerate(ours or ()) if count in named}
        if len(set(counted.values())) > len(same) and counted.items() >= same.items():
            LOG.info("poses such as %s are those of frames such as %s", counted[min(counted)], names[min(counted)])
            return counted
    return same


def by_number(poses: Collection[str], first: int, count: int) -> dict[int, str]:
    """The pose of each of `count` frames that are numbered from `first`, by the frame's place.

    Raises:
        UnreadNames: two poses have the same number, or it cannot be told which number counts.
    """
    theirs = read_names(list(poses))
    numbered = zip(theirs.numbers or (), theirs.names, strict=False)
    return {number - first: name for number, name in numbered if 0 <= number - first < count}


def require_some(clip: object, stems: Mapping[int, str], poses: Mapping[str, np.ndarray], like: str) -> None:
    """Raise BadInput, with what frames are named like, where no frame has a pose."""
    if not poses:
        raise BadInput(
            f"no frame of {clip} has a pose: the scene has none; give poses to Scene.of, by the frames' stems"
        )
    if not stems:
        raise BadInput(
            f"no frame of {clip} has a pose: frames are named like {like}, poses like {next(iter(poses))}; they are "
            "matched by stem, or by the number or time in it (in a video file --first-frame 1 if it counts from 1)"
        )


def tell_unpaired(
    clip: object, names: Sequence[str], stems: Mapping[int, str], poses: Collection[str], advice: str = ""
) -> None:
    """Say how many frames have no pose, as a warning with advice, and how many poses no frame."""
    used = set(stems.values())
    lonely = [name for place, name in enumerate(names) if place not in stems]
    spare = [name for name in poses if name not in used] if len(used) < len(poses) else []
    told = [f"frames without a pose are left out, {len(lonely)} of {len(names)} ({listed(lonely)})"] if lonely else []
    told += [f"poses without a frame, {len(spare)} of {len(poses)} ({listed(spare)})"] if spare else []
    if told:
        text = "; ".join([*told, advice] if advice and lonely and spare else told)
        LOG.log(logging.WARNING if lonely else logging.INFO, "%s: %s", clip, text)
