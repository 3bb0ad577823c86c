"""Optimisation profiles: the sizes that an engine takes, in buckets of voxels.

Rows are never padded. A scene takes the smallest bucket that holds it, and one beyond the largest is refused with its
count. By default every profile begins at one row.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.bundle.geometry import Geometry
from ...runtime.bundle.manifest import Bundle
from ...runtime.bundle.table import STAGES
from ...runtime.encoders.engines import Shapes
from ...runtime.errors import BadInput
from ...runtime.host.maps import RUN, KernelMaps
from ...runtime.host.rays import LIVE_COLUMNS
from ...runtime.host.voxels import voxelise
from ...runtime.inputs.entries import field, read_entries
from ...runtime.inputs.points import load_points

__all__ = ["Profile", "Range", "plan_profiles"]

MAPS = "tables"
KERNEL, CHILDREN = 27, 8
NAMES = ("batch", "frames", "voxels", "text")
BATCH = (1, 4, 4)
TEXT = (1, 64, 512)
BUCKETS = ((1, 10_000, 16_000), (1, 30_000, 40_000))
# rows for each voxel, usual and most: runs of five, which cannot be more than five and a missing one; coarser voxels
USUAL = (2.5, 0.3, 0.07, 0.015, 0.003)
MOST = (5.0, 0.5, 0.2, 0.08, 0.03)
MISSING_RUN = 1
# more rows than any device takes, and few enough to compute with
LARGEST = 10_000_000
# TensorRT counts memory in 32 bits here and there, and reports too little beyond
LARGEST_BYTES = 2**31
FLOAT = 4
# a scene may be this much larger than those that were measured
HEADROOM = 1.25


@dataclass(frozen=True)
class Range:
    """Least, usual and most rows."""

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise ValueError(f"{self}: expected 1 <= MIN <= OPT <= MAX")

    def __str__(self) -> str:
        return f"{self.least}:{self.usual}:{self.most}"

    def __iter__(self) -> Iterator[int]:
        return iter((self.least, self.usual, self.most))

    def times(self, factor: int) -> "Range":
        return Range(*(factor * rows for rows in self))


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine is built for.

    Attributes:
        batch: frames that the vision tower encodes at once.
        frames: frames of a question.
        text: tokens of a question.
        voxels: voxels of a scene.
        rows: runs of five voxels, and voxels of the four coarser levels.
    """

    batch: Range
    frames: Range
    text: Range
    voxels: Range
    rows: tuple[Range, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in NAMES)

    def shapes(self, encoder: str, geometry: Geometry) -> Shapes:
        """Least, usual and largest shape of each input of an encoder's graph."""
        sizes = {"vision": self._vision, "points": self._points, "aligner": self._aligner}[encoder](geometry)
        names = STAGES[encoder].inputs[MAPS if encoder == "points" else None]
        return {
            name: tuple((rows, *tail) for rows in range_) for name, (range_, tail) in zip(names, sizes, strict=True)
        }

    def _vision(self, geometry: Geometry) -> "Sizes":
        size = geometry.vision.image_size
        return [(self.batch, (3, size, size))]

    def _points(self, geometry: Geometry) -> "Sizes":
        runs, *coarse = self.rows
        levels = (self.voxels, *coarse)
        return [
            (self.voxels, (geometry.points.channels[0],)),
            (runs, (RUN,)),
            (self.voxels, (RUN * RUN,)),
            (self.voxels, ()),
            *((rows, (KERNEL,)) for rows in levels),
            *((rows, (CHILDREN,)) for rows in coarse),
            # one more, for the missing row
            *((Range(*(n + 1 for n in rows)), ()) for rows in levels[:-1]),
        ]

    def _aligner(self, geometry: Geometry) -> "Sizes":
        patches = self.frames.times(geometry.vision.grid**2)
        return [
            (self.voxels, (geometry.aligner.point_features,)),
            (self.voxels, (LIVE_COLUMNS,)),
            (patches, (geometry.llm.width,)),
            (patches, (LIVE_COLUMNS,)),
            (self.text, (geometry.llm.width,)),
        ]


# rows and fixed axes of a graph's inputs, in its order
Sizes = list[tuple[Range, tuple[int, ...]]]


def plan_profiles(bundle: Bundle, options: Sequence[str], measured: Path | None) -> list[Profile]:
    """One profile a bucket of voxels, the smallest first.

    Args:
        bundle: says how many frames a question has.
        options: `NAME=MIN:OPT:MAX` of batch, frames, voxels and text; voxels may repeat.
        measured: an REA file whose scenes say how many voxels there are; options go before it.

    Raises:
        BadInput: an option cannot be read, excludes its optimum, or contradicts the file.
    """
    given: dict[str, list[Range]] = {}
    for option in options:
        name, bounds = read_option(option)
        given.setdefault(name, []).append(bounds)
    for name, ranges in given.items():
        if len(ranges) > 1 and name != "voxels":
            raise BadInput(f"--profile {name}: given {len(ranges)} times; only voxels may repeat, one a bucket")
    if measured is not None and "voxels" in given:
        raise BadInput(f"--profile voxels and --profile-from {measured}: both say how many voxels; give one")
    frames = bundle.defaults.frames
    batch = given.get("batch", [Range(*BATCH)])[0]
    question = given.get("frames", [Range(1, frames, frames)])[0]
    text = given.get("text", [Range(*TEXT)])[0]
    if measured is not None:
        buckets = [measured_bucket(scene_rows(measured, bundle.defaults.voxel_size))]
    else:
        sizes = dict.fromkeys(given.get("voxels") or (Range(*bounds) for bounds in BUCKETS))
        buckets = [(voxels, estimated_rows(voxels)) for voxels in sorted(sizes, key=lambda range_: range_.most)]
    profiles = [Profile(batch, question, text, voxels, rows) for voxels, rows in buckets]
    require_countable(profiles[-1], bundle.geometry)
    return profiles


def require_countable(profile: Profile, geometry: Geometry) -> None:
    """Raise BadInput where the widest tensor of a profile has more bytes than TensorRT counts."""
    vision, points, aligner, llm = geometry.vision, geometry.points, geometry.aligner, geometry.llm
    widest = {
        "batch": max(3 * vision.image_size**2, vision.patches * max(vision.mlp, 3 * vision.width)),
        "frames": vision.grid**2 * max(aligner.ffn, llm.width),
        "text": max(aligner.ffn, llm.width),
        "voxels": max(KERNEL * max(points.channels[:2] + points.channels[-2:]), aligner.ffn),
    }
    for name, values in widest.items():
        limit, asked = LARGEST_BYTES // (FLOAT * values), getattr(profile, name)
        if asked.most > limit:
            raise BadInput(f"--profile {name}={asked}: MAX is {limit} at most for this model, 2 GB a tensor")


def read_option(option: str) -> tuple[str, Range]:
    """Name and range of `NAME=MIN:OPT:MAX`."""
    name, _, bounds = option.partition("=")
    if name not in NAMES:
        raise BadInput(f"--profile {option}: expected NAME=MIN:OPT:MAX with a NAME of {', '.join(NAMES)}")
    try:
        least, usual, most = map(int, bounds.split(":"))
        range_ = Range(least, usual, most)
        if most > LARGEST:
            raise ValueError(most)
    except ValueError:
        expected = f"{name}=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX <= {LARGEST}"
        raise BadInput(f"--profile {option}: expected {expected}") from None
    if name == "batch" and least > 1:
        raise BadInput(f"--profile {option}: MIN has to be 1; the last frames of a clip may be fewer than MAX")
    return name, range_


def estimated_rows(voxels: Range) -> tuple[Range, ...]:
    """Rows of the kernel maps of scenes that have so many voxels: surfaces, scanned from inside."""
    return tuple(
        Range(1, math.ceil(usual * voxels.usual), math.ceil(most * voxels.most) + MISSING_RUN)
        for usual, most in zip(USUAL, MOST, strict=True)
    )


def measured_bucket(scenes: np.ndarray) -> tuple[Range, tuple[Range, ...]]:
    """One bucket that holds all scenes, [S, 6] rows each, with some headroom."""
    usual = np.median(scenes, axis=0).astype(int)
    most = np.ceil(HEADROOM * scenes.max(axis=0)).astype(int)
    voxels, *rows = (Range(1, int(low), int(high)) for low, high in zip(usual, most, strict=True))
    return voxels, tuple(rows)


def scene_rows(file: Path, voxel_size: float) -> np.ndarray:
    """Voxels, runs and coarser voxels of each point cloud of an REA file, [S, 6] int64; paths are beside the file.

    Raises:
        BadInput: the file is no list of REA entries, or a cloud cannot be read.
    """
    clouds = sorted(set(read_entries("--profile-from", file, lambda entry: Path(field(entry, "pointcloud", str)))))
    try:
        return np.array([map_rows(file.parent / cloud, voxel_size) for cloud in clouds])
    except OSError as error:
        raise BadInput(f"--profile-from {file}: a pointcloud cannot be read ({error.strerror})") from None


def map_rows(cloud: Path, voxel_size: float) -> list[int]:
    known = load_points(cloud)
    voxels = voxelise(known.points, known.colours, voxel_size)
    maps = KernelMaps.build(voxels.coords, MAPS)
    return [len(voxels), len(maps.runs), *(len(table) for table in maps.tables[1:])]
