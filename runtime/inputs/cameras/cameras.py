"""What a file of cameras says: poses by the names of images, by time or in the frames' order, and lenses."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from ...errors import BadInput
from .lens import Lens

__all__ = ["TOLERANCE_SECONDS", "Cameras", "associate", "image_stem", "read_stamps"]

LOG = logging.getLogger(__name__)
# TUM's own tool pairs stamps that are at most this far apart
TOLERANCE_SECONDS = 0.02
IMAGE_SUFFIXES = {
    ".bmp", ".exr", ".gif", ".heic", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"
}  # fmt: skip


# nine digits of seconds are of 1973; a frame's number has zeros before it
STAMP = re.compile(r"(?<!\d)([1-9]\d{8,18})(?:([._])(\d{1,9}))?(?!\d)")
SECONDS = re.compile(r"(\d{1,9})(\.)(\d{1,9})")


@dataclass(frozen=True)
class Cameras:
    """Where a camera was and what it saw, as one file or folder says.

    Attributes:
        source: what it was read from, in words.
        poses: camera-to-world [4, 4] float64 with OpenCV axes, by image name without suffix, else by place; each is
            checked when it is asked for.
        lenses: by the same names; empty where the format holds none.
        times: [P] seconds of the poses, of a trajectory; None where poses have names.
        ordered: whether the poses are those of the frames, one after the other.
    """

    source: str
    poses: Mapping[str, np.ndarray]
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    times: np.ndarray | None = None
    ordered: bool = False

    def of_frames(
        self, stems: Sequence[str], folder: str, times: Sequence[float] | None
    ) -> tuple[Mapping[str, np.ndarray], Lens | None]:
        """The poses for a clip's frames, by the stems that they are matched by, and the frames' one lens.

        Args:
            stems: of the frames, in their order.
            folder: name of the frames' folder, which tells images of several cameras apart.
            times: seconds of the frames since the clip's beginning, if known.

        Raises:
            BadInput: poses and frames cannot be brought together, or the frames have several lenses.
        """
        names = list(self.poses)
        if self.times is not None:
            found = self._by_time(stems, times)
            chosen = {stem: names[place] for stem, place in found.items()}
        elif self.ordered:
            if len(names) != len(stems):
                raise BadInput(
                    f"{self.source}: holds {len(names)} poses without names for {len(stems)} frames; expected one a "
                    "frame, or a folder of pose files named like the frames"
                )
            chosen = dict(zip(stems, names, strict=True))
        else:
            chosen = self._by_stem(names, folder)
            exact = {stem: chosen[stem] for stem in stems if stem in chosen}
            if len(exact) < len(stems):
                # names that match in part are left for the clip to bring together, which also compares numbers
                return Renamed(chosen, self.poses), self._lens(exact or chosen)
            chosen = exact
        return Renamed(chosen, self.poses), self._lens(chosen)

    def _by_time(self, stems: Sequence[str], times: Sequence[float] | None) -> dict[str, int]:
        assert self.times is not None
        span = f"{self.times.min():.3f}..{self.times.max():.3f} s"
        stamps = read_stamps(stems, self.times)
        if (
            stamps is None
            and times is not None
            and self.times.min() >= -TOLERANCE_SECONDS
            and (self.times.min() <= times[-1])
        ):
            stamps = np.array(times)
        if stamps is None:
            raise BadInput(
                f"{self.source}: its poses are at {span}, and the frames ({stems[0]}..) have no such times in their "
                "names; name the frames by their time stamps"
            )
        places = associate(stamps, self.times, TOLERANCE_SECONDS)
        found = {stem: int(place) for stem, place in zip(stems, places, strict=True) if place >= 0}
        if not found:
            raise BadInput(
                f"{self.source}: no pose within {TOLERANCE_SECONDS} s of a frame; poses are at {span}, frames at "
                f"{stamps.min():.3f}..{stamps.max():.3f} s"
            )
        LOG.info("%s: %d of %d frames have a pose within %g s", self.source, len(found), len(stems), TOLERANCE_SECONDS)
        return found

    def _by_stem(self, names: Sequence[str], folder: str) -> dict[str, str]:
        """Names of images by their last part, of the camera whose folder the frames are in."""
        stems = {PurePath(name).name: name for name in names}
        if len(stems) == len(names):
            return stems
        inside = [name for name in names if PurePath(name).parent.name == folder]
        stems = {PurePath(name).name: name for name in inside}
        if inside and len(stems) == len(inside):
            return stems
        folders = sorted({str(PurePath(name).parent) for name in names})
        raise BadInput(
            f"{self.source}: images of the same name lie in {', '.join(folders[:4])}; give --video the folder of one "
            f"of them, named alike (found {folder})"
        )

    def _lens(self, chosen: Mapping[str, str]) -> Lens | None:
        lenses = list(dict.fromkeys(self.lenses[name] for name in chosen.values() if name in self.lenses))
        if not lenses:
            return None
        first = lenses[0]
        for other in lenses[1:]:
            ours, theirs = (np.array([lens.fx, lens.fy, lens.cx, lens.cy, *lens.bending]) for lens in (first, other))
            apart = np.abs(ours - theirs) > 0.01 * np.maximum(np.abs(ours), 1e-2)
            if apart.any() or (first.size, first.fisheye) != (other.size, other.fisheye):
                raise BadInput(
                    f"{self.source}: its images have {len(lenses)} lenses that differ, focal lengths {first.fx:g} and "
                    f"{other.fx:g} among them; the model takes one, give a clip of one camera"
                )
        if len(lenses) > 1:
            LOG.info("%s: %d lenses within 1 %%, the first is taken for all", self.source, len(lenses))
        return first


class Renamed(Mapping[str, np.ndarray]):
    """Poses under other names."""

    def __init__(self, names: Mapping[str, str], poses: Mapping[str, np.ndarray]):
        """`names` gives the poses' own names by the new ones."""
        self._names, self._poses = names, poses

    def __getitem__(self, name: str) -> np.ndarray:
        return self._poses[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def image_stem(name: str) -> str:
    """The name of an image without its suffix, folders kept; what follows the point of a time stamp is no suffix."""
    plain = name.replace("\\", "/")
    return plain[: -len(suffix)] if (suffix := PurePath(plain).suffix).lower() in IMAGE_SUFFIXES else plain


def associate(frame_times: Sequence[float] | np.ndarray, pose_times: np.ndarray, tolerance: float) -> np.ndarray:
    """For each frame the place of the pose that is nearest in time, [T] int64; -1 where none is near enough.

    Args:
        frame_times: [T] seconds.
        pose_times: [P] seconds of the same clock, at least one, in any order.
        tolerance: seconds that a pose may be before or after its frame.
    """
    wanted, order = np.asarray(frame_times, np.float64), np.argsort(pose_times, kind="stable")
    ordered = np.asarray(pose_times, np.float64)[order]
    after = np.searchsorted(ordered, wanted).clip(0, len(ordered) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(ordered[before] - wanted) <= np.abs(ordered[after] - wanted), before, after)
    return np.where(np.abs(ordered[nearest] - wanted) <= tolerance, order[nearest], -1)


def read_stamps(stems: Sequence[str], near: np.ndarray) -> np.ndarray | None:
    """The frames' time stamps, seconds, where all names hold one; their unit is the one that brings most near times.

    Args:
        stems: like 1305031102.175304, 1305031102_175304000 or 1403636579763555584.
        near: [P] seconds, ascending or not.
    """
    found = [STAMP.search(stem) or SECONDS.fullmatch(stem) for stem in stems]
    parts = [match.groups() for match in found if match]
    if len(parts) < len(stems):
        return None
    digits = max(len(fraction or "") for _, _, fraction in parts)
    # after a point stand decimals; after a line micro- or nanoseconds, which not all programs pad
    unit = 10.0 ** -(6 if digits <= 6 else 9)
    stamps = np.array(
        [
            int(whole) + (float(f"0.{fraction}") if point == "." else int(fraction) * unit if fraction else 0.0)
            for whole, point, fraction in parts
        ]
    )
    if digits:
        return stamps
    inside = [
        (int(((scaled >= near.min() - 1) & (scaled <= near.max() + 1)).sum()), -power, scaled)
        for power in (0, 3, 6, 9)
        for scaled in [stamps / 10.0**power]
    ]
    return max(inside, key=lambda option: option[:2])[2]
