"""Intrinsics against the size of the frames: do they belong to it, and if not, to which."""

from dataclasses import dataclass

import numpy as np

__all__ = ["SHARES", "Misfit", "misfit", "of_frames"]

# of width and height; a centre further from the middle than the first is odd, than the second cannot be
ODD, IMPOSSIBLE = 0.12, 0.22
# how far factors of the two sides may differ and still be one
ALIKE = 0.1
NARROWEST, WIDEST = 20.0, 140.0
# size of the frame whose pixels are shares of any
SHARES = (1, 1)
# a K of at most this is in shares of a frame, not in pixels
LARGEST_SHARE = 4.0
SMALLEST_FRAME = 16
# a centre of less than this share is none of a corner's: renderers count from -1 to 1
CENTRED = 0.1


@dataclass(frozen=True)
class Misfit:
    """Why intrinsics do not belong to frames.

    Attributes:
        certain: whether nothing else explains it.
        reason: in words.
        size: width and height of the frames that they belong to; None where it cannot be told.
        alone: whether it is certain whatever colours say.
    """

    certain: bool
    reason: str
    size: tuple[int, int] | None = None
    alone: bool = False


def misfit(intrinsics: np.ndarray, size: tuple[int, int]) -> Misfit | None:
    """What speaks against intrinsics [3, 3] for frames of a width and height; None where nothing does."""
    focal, centre, frame = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2], np.array(size, float)
    found = f"centre {centre[0]:.4g}, {centre[1]:.4g}, focal lengths {focal[0]:.4g}, {focal[1]:.4g}"
    if max(*focal, *np.abs(centre)) <= LARGEST_SHARE and min(size) >= SMALLEST_FRAME:
        if np.abs(centre).max() < CENTRED:
            reason = f"K counts from the middle of the frame, not in pixels from its corner ({found})"
            return Misfit(True, reason, alone=True)
        return Misfit(True, f"K is in shares of a frame, not in pixels ({found})", SHARES, alone=True)
    off = np.abs(centre / frame - 0.5).max()
    if off > ODD:
        return of_another_size(centre, frame, found, certain=bool(off > IMPOSSIBLE))
    angles = np.rad2deg(2 * np.arctan(frame / (2 * focal)))
    if not NARROWEST <= angles.max() <= WIDEST:
        return Misfit(False, f"K gives a field of view of {angles.max():.0f} degrees ({found})")
    return None


def of_another_size(centre: np.ndarray, frame: np.ndarray, found: str, certain: bool) -> Misfit:
    """The misfit of a centre that is not in the middle: of frames scaled, turned or cut out."""
    width, height = (int(side) for side in frame)
    factors = 2 * centre / frame
    if np.abs(2 * centre[::-1] / frame - 1).max() < ALIKE:
        turned = "; turn frames or K, so that both are upright"
        return Misfit(certain, f"K belongs to frames of {height}x{width}, turned by 90 degrees ({found}){turned}")
    if min(factors) <= 0:
        return Misfit(certain, f"the centre of K lies outside of frames of {width}x{height} ({found})")
    whole = np.round(2 * centre).astype(int)
    if abs(factors[0] / factors[1] - 1) < ALIKE:
        whole = np.maximum(np.round(frame * np.sqrt(factors.prod())), 1).astype(int)
    size = (int(whole[0]), int(whole[1]))
    scaled = f"K belongs to frames of about {size[0]}x{size[1]}, these are {width}x{height} ({found})"
    return Misfit(certain, scaled, size if min(size) > 0 else None)


def of_frames(intrinsics: np.ndarray, theirs: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Intrinsics [3, 3] of frames of one width and height as those of the same frames in another."""
    scale = np.diag([size[0] / theirs[0], size[1] / theirs[1], 1.0])
    return np.asarray(scale @ intrinsics)
