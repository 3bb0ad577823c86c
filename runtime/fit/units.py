"""Whether coordinates are metres: how large the scene is, how far the frames see, how fast the camera moves."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Measures", "Oddity", "oddity", "upwards"]

# metres; the usual and the most of what a person's or a robot's camera sees indoors and around a house
FURTHEST_VIEW, WIDEST_SCENE, FASTEST = 15.0, 60.0, 10.0
# above the floor, where the frames see far too: upstairs or on a gantry alone is no sign
HIGHEST, FAR_FROM_HIGH = 4.0, 5.0
IMPOSSIBLE_VIEW, IMPOSSIBLE_SCENE = 60.0, 100.0
SMALLEST_SCENE, SMALLEST_ROOM, NEAREST_VIEW = 0.4, 1.0, 0.05
FEWEST_VOXELS = 8
USUAL_VIEW, USUAL_SCENE = 2.0, 6.0
UNITS = {"millimetres": 0.001, "centimetres": 0.01}
# rarer, and so near to centimetres that a person has to say which, where they are this much more usual
INCH, CLEARLY = 0.0254, 1.0
TAILS = (1, 99)
# cosine of the angle by which people look down, and a mean of directions that have none in common
NEAR_AN_AXIS, SHORTEST_MEAN = 0.8, 1e-3


@dataclass(frozen=True)
class Measures:
    """What tells the size of things, metres if coordinates are.

    Attributes:
        low: [3], below which hardly a point lies.
        high: [3], above which hardly a point lies.
        view: median distance to what the frames see.
        height: of the camera above nearly all points, where cameras are held upright.
        speed: of the camera, a second; None where times are not known.
        inside: whether the camera is within the points.
    """

    low: np.ndarray
    high: np.ndarray
    view: float
    height: float
    speed: float | None
    inside: bool

    @classmethod
    def of(cls, points: np.ndarray, poses: np.ndarray, view: float, times: list[float] | None) -> "Measures":
        """From points [P, 3], poses [T, 4, 4], the median distance in view, NaN if not known, and T times."""
        low, high = np.percentile(points, TAILS, axis=0)
        places = poses[:, :3, 3]
        if np.isnan(view):
            view = float(np.median(np.linalg.norm(points - places[0], axis=1)))
        inside = bool(((places >= low) & (places <= high)).all(axis=1).any())
        way = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
        up = upwards(poses)
        height = float(np.median(places @ up) - np.percentile(points @ up, TAILS[0]))
        spent = times[-1] - times[0] if times else 0.0
        return cls(low, high, view, height, way / spent if spent > 0 else None, inside)

    @property
    def extent(self) -> float:
        """The longest side."""
        return float((self.high - self.low).max())

    def __str__(self) -> str:
        sides = " x ".join(f"{side:.3g}" for side in self.high - self.low)
        return f"the cloud spans {sides}, the frames see {self.view:.3g} far, the camera is {self.height:.3g} high"


def upwards(poses: np.ndarray) -> np.ndarray:
    """The way up, [3] of length 1, where cameras [T, 4, 4] are held upright: an axis of the world if one is near."""
    mean = -poses[:, :3, 1].mean(axis=0)
    length = float(np.linalg.norm(mean))
    up = mean / length if length > SHORTEST_MEAN else np.array([0.0, 0.0, 1.0])
    nearest = int(np.abs(up).argmax())
    return np.eye(3)[nearest] * np.sign(up[nearest]) if abs(up[nearest]) > NEAR_AN_AXIS else up


@dataclass(frozen=True)
class Oddity:
    """Why coordinates are hardly metres; `factor` is metres a unit, None where it cannot be told."""

    certain: bool
    reason: str
    factor: float | None = None


def oddity(measures: Measures, voxel_size: float | None) -> Oddity | None:
    """What speaks against metres; None where nothing does."""
    view, extent = measures.view, measures.extent
    if view > IMPOSSIBLE_VIEW and extent > IMPOSSIBLE_SCENE:

        def unusual(factor: float) -> float:
            return float(abs(np.log(view * factor / USUAL_VIEW)) + abs(np.log(extent * factor / USUAL_SCENE)))

        unit = min(UNITS, key=lambda name: unusual(UNITS[name]))
        if unusual(INCH) < unusual(UNITS[unit]) - CLEARLY:
            words = (
                f"coordinates have to be metres, these look like inches (0.0254) or {unit} ({UNITS[unit]}): {measures}"
            )
            return Oddity(True, words)
        return Oddity(True, f"coordinates have to be metres, these look like {unit}: {measures}", UNITS[unit])
    fast = measures.speed is not None and measures.speed > FASTEST
    high = measures.height > HIGHEST and view > FAR_FROM_HIGH
    if high or (view > FURTHEST_VIEW) + (extent > WIDEST_SCENE) + fast >= 2:
        moves = f", the camera moves {measures.speed:.3g} a second" if fast else ""
        return Oddity(False, f"coordinates have to be metres, and these are large: {measures}{moves}")
    # a room around the camera has more than a few voxels; a table top before it may have less
    room = max(SMALLEST_ROOM, FEWEST_VOXELS * (voxel_size or 0.0))
    if extent < SMALLEST_SCENE or view < NEAREST_VIEW or (measures.inside and extent < room):
        return Oddity(False, f"coordinates have to be metres, and these are small: {measures}")
    return None
