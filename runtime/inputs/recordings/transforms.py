"""How frames of a robot lie in each other over time, and poses between the times that were recorded."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...errors import BadInput
from ..cameras.cameras import TOLERANCE_SECONDS
from ..cameras.poses import UNIT_TOLERANCE, from_quaternions

__all__ = ["GAP_SECONDS", "Track", "Transforms"]

NANO = 1_000_000_000
# seconds between two samples that are interpolated; samples that are this near in place (metres) and turn (radians)
# may be any time apart, since nothing moved
GAP_SECONDS = 0.5
STILL_METRES, STILL_RADIANS = 0.05, 0.05
STRAIGHT = 0.9995


@dataclass(frozen=True)
class Track:
    """Where one frame lies in another.

    Attributes:
        times: [N] int64 nanoseconds, ascending.
        quaternions: [N, 4] float64 of length 1, real part first.
        places: [N, 3] float64, metres.
        static: whether it holds at all times; N is 1 then.
    """

    times: np.ndarray
    quaternions: np.ndarray
    places: np.ndarray
    static: bool = False

    @classmethod
    def of(cls, times: np.ndarray, numbers: np.ndarray, *, static: bool = False) -> tuple["Track", int]:
        """From rows [N, 7] of place and quaternion (x, y, z, w), in any order of time; and how many are no poses.

        Of a static track the last row counts, and of several at one time the last.
        """
        length = np.linalg.norm(numbers[:, 3:], axis=1)
        with np.errstate(invalid="ignore"):
            good = np.isfinite(numbers).all(axis=1) & (np.abs(length - 1) <= UNIT_TOLERANCE)
        times, numbers, length = times[good], numbers[good], length[good]
        if static:
            times, numbers, length = times[-1:], numbers[-1:], length[-1:]
        # the first of the reversed rows of a time is its last
        times, last = np.unique(times[::-1], return_index=True)
        rows = numbers[::-1][last]
        quaternions = rows[:, [6, 3, 4, 5]] / length[::-1][last][:, None]
        return cls(times, quaternions, rows[:, :3], static), int((~good).sum())

    def __len__(self) -> int:
        return len(self.times)

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses [T, 4, 4] at times [T] int64, and whether they are known [T].

        Between two samples places are interpolated evenly and rotations along the shortest turn (slerp). Up to
        `TOLERANCE_SECONDS` before the first and after the last sample, that one is taken.
        """
        if self.static:
            pose = from_quaternions(self.quaternions, self.places)
            return np.repeat(pose, len(times), axis=0), np.ones(len(times), bool)
        inside = times.clip(self.times[0], self.times[-1])
        after = np.searchsorted(self.times, inside)
        before = np.where(self.times[after] == inside, after, after - 1)
        apart = self.times[after] - self.times[before]
        share = (inside - self.times[before]) / np.maximum(apart, 1)
        first, second = self.quaternions[before], self.quaternions[after]
        moved = np.linalg.norm(self.places[after] - self.places[before], axis=1)
        turned = 2 * np.arccos(np.abs((first * second).sum(axis=1)).clip(0, 1))
        still = (moved <= STILL_METRES) & (turned <= STILL_RADIANS)
        known = (np.abs(times - inside) <= TOLERANCE_SECONDS * NANO) & ((apart <= GAP_SECONDS * NANO) | still)
        places = self.places[before] + share[:, None] * (self.places[after] - self.places[before])
        return from_quaternions(slerp(first, second, share), places), known


def slerp(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Rotations [T, 4] on the shortest way between two [T, 4], a share [T] of it (Shoemake, 1985)."""
    cosine = (first * second).sum(axis=1)
    second = np.where(cosine[:, None] < 0, -second, second)
    cosine = np.abs(cosine).clip(0, 1)
    angle = np.arccos(cosine)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.stack([np.sin((1 - share) * angle), np.sin(share * angle)]) / np.sin(angle)
    # of a small turn the sine is nothing to divide by
    weights = np.where(cosine > STRAIGHT, np.stack([1 - share, share]), weights)
    mixed = weights[0][:, None] * first + weights[1][:, None] * second
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1)[:, None])


@dataclass(frozen=True)
class Transforms:
    """Tracks by frame and the frame in which it lies.

    Attributes:
        tracks: by parent and child.
        source: what messages call them.
    """

    tracks: Mapping[tuple[str, str], Track]
    source: str

    @property
    def frames(self) -> set[str]:
        """All frames."""
        return {frame for pair in self.tracks for frame in pair}

    def ancestors(self, frame: str) -> list[str]:
        """A frame, the one that it lies in, the one that this lies in, and so on."""
        found = [frame]
        while True:
            parents = [parent for parent, child in self.tracks if child == found[-1] and parent not in found]
            if not parents:
                return found
            found.append(parents[0])

    def path(self, frame: str, within: str) -> list[tuple[Track, bool]]:
        """Tracks from a frame to another, each with whether it is gone down, from the parent.

        Raises:
            BadInput: the two are not connected.
        """
        came: dict[str, tuple[str, Track, bool] | None] = {frame: None}
        rest = deque([frame])
        while rest and within not in came:
            at = rest.popleft()
            for (parent, child), track in self.tracks.items():
                if at in (parent, child) and (to := parent if at == child else child) not in came:
                    came[to] = (at, track, at == parent)
                    rest.append(to)
        if within not in came:
            known = ", ".join(sorted(self.frames)[:12]) or "none"
            raise BadInput(
                f"{self.source}: no transform connects {frame} with {within}; its frames are {known}; name others "
                "(--camera-frame, --pose-frame, --map-frame), or record /tf_static too"
            )
        steps, at = [], within
        while (step := came[at]) is not None:
            at = step[0]
            steps.append(step[1:])
        return steps[::-1]

    def moves(self, frame: str, within: str) -> bool:
        """Whether anything but static transforms lies between two frames; errors as in `path`."""
        return any(not track.static for track, _ in self.path(frame, within))

    def span(self, frame: str, within: str) -> tuple[int, int] | None:
        """First and last time at which what moves between two frames is known; None where nothing moves."""
        moving = [track for track, _ in self.path(frame, within) if not track.static]
        if not moving:
            return None
        return max(int(track.times[0]) for track in moving), min(int(track.times[-1]) for track in moving)

    def at(self, frame: str, within: str, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses [T, 4, 4] of a frame in another at times [T] int64 nanoseconds, and whether they are known [T].

        Raises:
            BadInput: the two are not connected.
        """
        poses, known = np.tile(np.eye(4), (len(times), 1, 1)), np.ones(len(times), bool)
        for track, down in self.path(frame, within):
            step, there = track.at(times)
            poses, known = (np.linalg.inv(step) if down else step) @ poses, known & there
        return poses, known
