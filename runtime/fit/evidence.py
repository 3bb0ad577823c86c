"""Points and frames in samples, and which reading of the poses their colours prefer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..inputs.arrays import FrameArrays
from ..inputs.cameras import BODY, POSE_CONVENTIONS
from ..inputs.frames import Content
from ..inputs.scene import Scene
from ..inputs.selection import Selection
from ..libraries import load_library
from .colours import Agreement, agreement
from .reading import meant

__all__ = ["Evidence", "Preference", "gather", "look_at_some", "preferred"]

MOST_POINTS, MOST_FRAMES, FRAME_WIDTH = 20_000, 4, 160
# agreement of colours by which a reading is left alone, and by which it is proved; measured on rooms of the small
# world with dense and thin clouds, other exposure and noise
FITS, PROVES = 0.5, 0.55
LIKELY = 0.4
# by how much another reading has to agree better, and by how much where it explains far more of the frames
MARGIN, MARGIN_OF_MORE, MORE = 0.5, 0.3, 4
# by how much less for a warning, and how far the second best has to be behind
MILDER, AHEAD = 0.15, 0.2
# a reading that fits by chance, in views of a few colours: from which agreement on another is looked for, and how well
# that has to agree, by both measures, to be likely
SURE, CLEAR, CLEARER = 0.8, 0.8, 0.2
# points before the frames from which views of one colour count, and from which anything is proved
ANY_CELLS, LEAST_LIKELY, LEAST_CERTAIN = 20, 100, 200
# one or two views may look at one wall
FEW_FRAMES, FEW_MARGIN, FEW_CELLS = 3, 0.3, 1000


@dataclass(frozen=True)
class Preference:
    """The convention by which poses fit the frames best; `reason` is in words."""

    convention: str
    certain: bool
    reason: str


@dataclass(frozen=True)
class Evidence:
    """Samples of points and frames.

    Attributes:
        points: [P, 3] float64.
        colours: [P, 3] float64, 0..255.
        frames: [h, w, 3] uint8 each, made smaller.
        poses: [F, 4, 4] of these frames, read by the convention `given`.
        given: a convention.
        intrinsics: [3, 3], pixels of frames of `size`.
        size: width and height.
        known: agreements by convention, as they become known.
    """

    points: np.ndarray
    colours: np.ndarray
    frames: tuple[np.ndarray, ...]
    poses: np.ndarray
    given: str
    intrinsics: np.ndarray
    size: tuple[int, int]
    known: dict[str, Agreement] = field(default_factory=dict)

    def agree(self, convention: str) -> Agreement:
        """How colours agree where poses are meant by a convention."""
        if convention not in self.known:
            poses = tuple(meant(self.poses, self.given, convention))
            self.known[convention] = agreement(
                self.points, self.colours, poses, self.intrinsics, self.frames, self.size
            )
        return self.known[convention]

    def with_intrinsics(self, intrinsics: np.ndarray) -> "Evidence":
        """The same with other intrinsics."""
        return replace(self, intrinsics=intrinsics, known={})

    def scaled(self, cloud: float, poses: float) -> "Evidence":
        """The same with points and places of the camera in other units."""
        moved = self.poses.copy()
        moved[:, :3, 3] *= poses
        return replace(self, points=self.points * cloud, poses=moved, known={})

    def fits(self, convention: str) -> bool:
        """Whether nothing has to be explained."""
        return self.agree(convention).share >= FITS

    def is_sure(self, convention: str) -> bool:
        """Whether a reading fits so well that no other is looked for."""
        return self.agree(convention).share >= SURE

    def proves(self, convention: str) -> bool:
        """Whether no other reading is possible."""
        found = self.agree(convention)
        return found.share >= PROVES and found.cells >= LEAST_CERTAIN

    def compare(self, other: Agreement, second: float = 0.0) -> bool | None:
        """Whether another reading than the given is certainly, or else likely, the right one; None where neither.

        Args:
            other: the agreement by the other reading.
            second: share of the next best reading.
        """
        ours = self.agree(self.given)
        more = other.cells >= MORE * ours.cells
        plain = ours.plain - (AHEAD if more else 0) if ours.cells >= ANY_CELLS else 0.0
        better = other.share - max(ours.share, plain) - (MARGIN_OF_MORE if more else MARGIN)
        few = len(self.frames) < FEW_FRAMES
        better -= FEW_MARGIN if few else 0.0
        if other.share < LIKELY or other.cells < (FEW_CELLS if few else LEAST_LIKELY) or better < -MILDER:
            clear = min(other.share, other.plain) >= CLEAR and other.share - ours.share >= CLEARER
            return False if clear and not few and other.cells >= LEAST_CERTAIN else None
        proved = other.share >= PROVES and other.cells >= LEAST_CERTAIN and other.share - second >= AHEAD
        return proved and better >= 0 and not few


def look_at_some(selection: Selection) -> tuple[list[int], list[Content]]:
    """Some of the frames: their places in the clip, and what they are; raises BadInput where one cannot be read."""
    places = sorted(set(selection.indices))
    chosen = [places[int(place)] for place in np.linspace(0, len(places) - 1, min(MOST_FRAMES, len(places)))]
    # of frames in memory all that will be looked at are, since an iterator gives each once
    read = places if isinstance(selection.clip.frames, FrameArrays) else chosen
    contents = zip(read, selection.clip.contents(read), strict=True)
    return chosen, [content for place, content in contents if place in chosen]


def gather(
    scene: Scene, selection: Selection, given: str, places: Sequence[int], contents: Sequence[Content]
) -> Evidence:
    """Samples of a scene and of some frames of a selection, whose poses were read by a convention; see `Evidence`.

    Raises:
        BadInput: a frame cannot be decoded.
    """
    step = -(-len(scene.points) // MOST_POINTS)
    poses = np.stack([selection.poses[selection.indices.index(place)] for place in places])
    frames = tuple(smaller(content.pixels()) for content in contents)
    return Evidence(
        points=scene.points[::step].astype(np.float64),
        colours=scene.colours[::step].astype(np.float64),
        frames=frames,
        poses=poses,
        given=given,
        intrinsics=scene.intrinsics,
        size=selection.clip.size,
    )


def smaller(frame: np.ndarray) -> np.ndarray:
    """A frame about as wide as it has to be, each pixel the mean of a square."""
    step = frame.shape[1] // FRAME_WIDTH
    if step < 2 or frame.shape[0] < step:
        return frame
    return np.asarray(load_library("PIL.Image").fromarray(frame).reduce(step))


def preferred(evidence: Evidence, thorough: bool) -> Preference | None:
    """The convention by which poses fit best, unless it is the given one or the evidence is thin.

    Args:
        evidence: samples.
        thorough: try all also where the given one fits.
    """
    given = evidence.given
    if evidence.is_sure(given) and not thorough:
        return None
    others = {name: evidence.agree(name) for name in (*POSE_CONVENTIONS, BODY) if name != given}
    ranked = sorted(others, key=lambda name: -others[name].share)
    best, second = ranked[0], others[ranked[1]].share
    certain = evidence.compare(others[best], second)
    if certain is None:
        return None
    ours = evidence.agree(given)
    percents = [f"{100 * max(found.share, 0):.0f} %" for found in (others[best], ours)]
    return Preference(
        best, certain, f"colours of points and pixels agree to {percents[0]} so, to {percents[1]} as given"
    )
