"""Where points are: those that are nowhere, those far off, and the common offset of all."""

import logging

import numpy as np

from ...errors import BadInput

__all__ = ["cropped", "take_off", "warn_of_strays", "whole"]

LOG = logging.getLogger(__name__)
# depth cameras write a point a pixel, NaN where they see nothing
MOST_INVALID = 0.9
# metres: beyond this are no coordinates, in maps of the earth neither
FURTHEST = 1e9
# metres: float32 has steps of 0.06 mm here, and a thousandth of the points would fall into another voxel
FAR_ORIGIN = 1000.0
# metres: a whole number of voxels of 1 to 10, 12, 14, 15, 18, 20, 25, 30, 50 cm, so that their borders stay in place
OFFSET_STEP = 126.0
SAMPLED = 50_000
# points so many edges of the middle 98 % beyond these, and so many metres, are strays
STRAY_EDGES, STRAY_METRES = 5.0, 20.0
# metres: a few that depth cameras misread, tens of metres off, do no harm; these roundings and spans are told
STRAY_COST, STRAY_SPAN = 0.25, 200.0
# bfloat16 rounds a coordinate by up to this share of it
ROUNDING = 1 / 256
COARSE = 0.5


def whole(points: np.ndarray, colours: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """The points whose coordinates and colours are numbers; the others are counted.

    Args:
        points: [P, 3], at least one.
        colours: [P, 3].
        source: what messages name them.

    Raises:
        BadInput: over nine of ten are none.
    """
    # NaN is the least and the greatest of what it is among
    ends = [float(end) for values in (points, colours) for end in (values.min(), values.max())]
    if np.isfinite(ends).all() and max(-ends[0], ends[1]) <= FURTHEST:
        return points, colours
    # comparing is false for NaN
    bad_points = ~(np.abs(points) <= FURTHEST).all(axis=1)
    bad = bad_points | ~np.isfinite(colours).all(axis=1)
    meaning = "coordinates" if bad_points.any() else "colours"
    told = f"{source}: {bad.sum()} of {len(points)} points have {meaning} that are NaN or infinite"
    if bad.mean() > MOST_INVALID:
        raise BadInput(f"{told}, over {MOST_INVALID:.0%} of them")
    LOG.warning("%s, and are left out", told)
    return points[~bad], colours[~bad]


def cropped(points: np.ndarray, colours: np.ndarray, metres: float, source: str) -> tuple[np.ndarray, np.ndarray]:
    """The points no further than so many metres from the middle (the median) along each axis.

    Raises:
        BadInput: no point is left, or the distance is none.
    """
    if not 0 < metres < FURTHEST:
        raise BadInput(f"--crop {metres:g}: expected metres > 0")
    near = (np.abs(points - np.median(sample(points), axis=0)) <= metres).all(axis=1)
    if not near.any():
        raise BadInput(f"--crop {metres:g}: {source} has no point within {metres:g} m of its middle")
    LOG.info("%s: --crop %g leaves out %d of %d points", source, metres, (~near).sum(), len(points))
    return points[near], colours[near]


def warn_of_strays(points: np.ndarray, source: str) -> None:
    """Warn of points far beyond the middle 98 %, and of clouds in whose middle coordinates are rounded coarsely.

    Coordinates count from the lowest of all points, in bfloat16, as in the authors' model: what is far from it is
    rounded coarsely, and so are the directions in which the camera sees it.
    """
    low, middle, high = np.quantile(sample(points), (0.01, 0.5, 0.99), axis=0)
    lowest, highest = (np.array([getattr(axis, end)() for axis in points.T], np.float64) for end in ("min", "max"))
    span = " x ".join(f"{edge:.4g}" for edge in highest - lowest)
    step = (middle - lowest).max() * ROUNDING
    cost = f"coordinates are rounded relative to the furthest, here by up to {step:.2g} m in the middle of the scene"
    reach = max(STRAY_EDGES * float((high - low).max()), STRAY_METRES)
    far = (low - lowest).max() > reach or (highest - high).max() > reach
    if far and (step > STRAY_COST or (highest - lowest).max() > STRAY_SPAN):
        near = ((points >= low - reach) & (points <= high + reach)).all(axis=1)
        keep = np.ceil(np.abs(points[near] - middle).max())
        LOG.warning(
            "%s: spans %s m, but 98 %% of it %s m; %s. --crop %d leaves out the points far off, %d of %d",
            *(source, span, " x ".join(f"{edge:.4g}" for edge in high - low), cost, keep, (~near).sum(), len(points)),
        )
    elif step > COARSE:
        LOG.warning("%s: spans %s m; %s. --crop METRES leaves out what is further from the middle", source, span, cost)


def take_off(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points about their offset, [P, 3] float32, and the offset [3] float64, which is zero for a room.

    It is taken off in float64: in float32, coordinates of a national grid have steps of 3 to 6 cm.
    """
    middle = np.median(sample(points), axis=0)
    offset = np.where(np.abs(middle) > FAR_ORIGIN, np.round(middle / OFFSET_STEP) * OFFSET_STEP, 0.0)
    if offset.any():
        points = points.astype(np.float64) - offset
    return np.ascontiguousarray(points, np.float32), offset


def sample(points: np.ndarray) -> np.ndarray:
    """Points evenly from all over the file, float64."""
    return points[:: -(-len(points) // SAMPLED)].astype(np.float64)
