"""How well the colours of the nearest points agree with the pixels that they fall on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Agreement", "agreement", "nearest_in_cells", "project"]

# cells of a frame, each with the nearest of the points in it: more points a cell hide more of what is behind
POINTS_A_CELL = 3.0
LEAST_CELL = 2.0
# fewer say nothing
LEAST_CELLS = 60
# colours that vary less than this are one colour, 0..255
LEAST_SPREAD = 2.0
NEAREST = 1e-4


@dataclass(frozen=True)
class Agreement:
    """Colours of nearest points against the pixels that they fall on.

    Attributes:
        cells: how many were compared.
        difference: median over them, mean of the channels, 0..255, exposure made alike; NaN where there are none.
        share: 1 where the colours are the same, 0 where they agree no better than with other pixels of the same view;
            0 where there are too few to tell. It proves a reading.
        plain: the same against any points of the scene, and without a change of exposure: a view of one wall, in which
            all pixels are alike, agrees by this measure alone. It speaks for a reading, and proves none.
        seen: share of the points that lie in a frame.
        depth: median distance of the compared points along the line of sight; NaN where there are none.
    """

    cells: int
    difference: float
    share: float
    plain: float
    seen: float
    depth: float


def project(
    points: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points lie in a frame.

    Args:
        points: [P, 3].
        pose: [4, 4], camera-to-world with OpenCV axes.
        intrinsics: [3, 3].
        size: width and height of the frame, pixels.

    Returns:
        Indices [N] of the points inside it, their pixels [N, 2] and depths [N].
    """
    # a column a point: products of long rows are quick
    camera = pose[:3, :3].T @ (points.T - pose[:3, 3:])
    ahead = np.flatnonzero(camera[2] > NEAREST * np.abs(camera[2]).max(initial=0))
    camera = camera[:, ahead]
    x, y = (intrinsics[:2] @ camera) / camera[2]
    inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
    return ahead[inside], np.stack([x[inside], y[inside]], axis=1), camera[2, inside]


def agreement(
    points: np.ndarray,
    colours: np.ndarray,
    poses: Sequence[np.ndarray],
    intrinsics: np.ndarray,
    frames: Sequence[np.ndarray],
    size: tuple[int, int],
) -> Agreement:
    """Hold points against frames.

    Args:
        points: [P, 3].
        colours: [P, 3], 0..255.
        poses: [4, 4] a frame, camera-to-world with OpenCV axes, in the points' units.
        intrinsics: [3, 3], pixels of frames of `size`.
        frames: [h, w, 3] each, made smaller or not.
        size: width and height of the frames as they were.
    """
    seen = np.zeros(len(points), bool)
    ours, theirs, depths = [np.zeros((0, 3))], [np.zeros((0, 3))], [np.zeros(0)]
    for pose, frame in zip(poses, frames, strict=True):
        index, pixels, depth = project(points, pose, intrinsics, size)
        seen[index] = True
        places = pixels * [frame.shape[1] / size[0], frame.shape[0] / size[1]]
        nearest = nearest_in_cells(places, depth, (frame.shape[1], frame.shape[0]))
        x, y = places[nearest].astype(int).T
        ours.append(colours[index[nearest]])
        theirs.append(frame[y, x].astype(np.float64))
        depths.append(depth[nearest])
    a, b, depth = np.concatenate(ours), np.concatenate(theirs), np.concatenate(depths)
    if len(a) == 0:
        return Agreement(0, np.nan, 0.0, 0.0, float(seen.mean()), np.nan)
    difference, share = matched(a, b)
    return Agreement(len(a), difference, share, unmatched(a, b, colours), float(seen.mean()), float(np.median(depth)))


def nearest_in_cells(places: np.ndarray, depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Indices of the nearest point in each cell of a frame that holds one."""
    cell = max(LEAST_CELL, np.sqrt(size[0] * size[1] * POINTS_A_CELL / max(len(places), 1)))
    columns = int(size[0] / cell) + 1
    order = np.argsort(depth)
    x, y = (places[order] / cell).astype(int).T
    _, first = np.unique(y * columns + x, return_index=True)
    return order[first]


def matched(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """How far colours [N, 3] differ, once exposure and contrast are alike, and agree beyond chance: 1 all, 0 none."""
    theirs = as_exposed(theirs, ours)
    # a fixed shuffle, so that the same inputs always give the same words
    others = theirs[np.random.default_rng(0).permutation(len(theirs))]
    difference, chance = (apart(ours, colours) for colours in (theirs, others))
    return difference, 1 - difference / max(chance, LEAST_SPREAD) if len(ours) >= LEAST_CELLS else 0.0


def unmatched(ours: np.ndarray, theirs: np.ndarray, scene: np.ndarray) -> float:
    """How far colours [N, 3] agree as they are, against colours of any points of the scene [P, 3]."""
    any_points = scene[np.random.default_rng(1).integers(0, len(scene), len(theirs))]
    return 1 - apart(ours, theirs) / max(apart(any_points, theirs), LEAST_SPREAD)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Median difference of colours [N, 3], mean of the channels."""
    return float(np.median(np.abs(ours - theirs) @ np.full(3, 1 / 3)))


def as_exposed(colours: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Colours with the middle and the spread of others, channel by channel."""
    middle, wanted = np.median(colours, axis=0), np.median(like, axis=0)
    spread, wide = (np.abs(c - m).mean(axis=0) for c, m in ((colours, middle), (like, wanted)))
    gain = np.clip(wide / np.maximum(spread, LEAST_SPREAD), 0.5, 2.0)
    return (colours - middle) * gain + wanted
