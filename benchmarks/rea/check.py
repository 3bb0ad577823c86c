"""What of the REA data set is there and usable."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.console import Progress
from ...runtime.errors import BadInput
from ...runtime.fit.fit import examine
from ...runtime.fit.picture import write_picture
from ...runtime.inputs.cameras import load_intrinsics, load_poses, usable
from ...runtime.inputs.points import load_points
from ...runtime.inputs.selection import select_frames
from .dataset import Broken, ReaDataset, Sample, by_clip

LOG = logging.getLogger(__name__)

__all__ = ["Check", "Coverage", "check_dataset"]

# of a clip, as many as the model sees
FRAMES = 32


@dataclass
class Coverage:
    """What a scene's clips ask for and what is there; a frame in several clips counts for each.

    Attributes:
        samples: questions.
        clips: different ranges of frames.
        frames: frames in the clips.
        found: of these, the ones on disk.
        posed: of these, the ones with a pose file.
    """

    samples: int = 0
    clips: int = 0
    frames: int = 0
    found: int = 0
    posed: int = 0

    def add(self, group: list[Sample]) -> None:
        """Count the samples of one clip."""
        sample = group[0]
        self.samples += len(group)
        self.clips += 1
        self.frames += len(sample.stems)
        self.found += sum((sample.video / f"{stem}.jpg").is_file() for stem in sample.stems)
        self.posed += sum((sample.c2ws / f"{stem}.txt").is_file() for stem in sample.stems)


@dataclass
class Check:
    """The state of a data set on disk.

    Attributes:
        types: samples by question type.
        scenes: coverage by scene.
        broken: samples that cannot be used.
        doubtful: of each clip, one sample with what speaks against its files; none where no pictures were asked for.
    """

    types: dict[str, int]
    scenes: dict[str, Coverage] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    doubtful: list[Broken] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Samples that are not broken."""
        return sum(self.types.values()) - len(self.broken)

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {"usable": self.usable, **asdict(self)}

    def __str__(self) -> str:
        total = sum(self.types.values())
        lines = [f"{count:8,}  {name}" for name, count in self.types.items()]
        lines += [f"{total:8,}  samples of {len(self.scenes)} scenes", ""]
        lines.append(f"{'scene':<12} {'samples':>8} {'clips':>8} {'frames':>10} {'found':>10} {'with pose':>10}")
        lines += [
            f"{scene:<12} {row.samples:>8,} {row.clips:>8,} {row.frames:>10,} {row.found:>10,} {row.posed:>10,}"
            for scene, row in self.scenes.items()
        ]
        lines += ["", *(f"broken: {sample.id}: {sample.reason}" for sample in self.broken)]
        lines += [f"doubtful: {sample.id}: {sample.reason}" for sample in self.doubtful]
        return "\n".join([*lines, f"{self.usable:,} of {total:,} samples are usable, {len(self.broken):,} are broken"])


def check_dataset(dataset: ReaDataset, *, pictures: Path | None = None, quiet: bool = True) -> Check:
    """Look at the files of every sample: each cloud, pose and first frame of a clip is read, the rest has to exist.

    Args:
        dataset: the data set.
        pictures: folder for one picture a clip, whose scene and frames are then held against each other.
        quiet: whether to leave out the progress bar.
    """
    complaint = functools.cache(complain)
    read_cloud = functools.partial(load_points, glb="first")
    check = Check(types=dict(Counter(sample.question_type for sample in dataset.samples)))
    with Progress(quiet).bar("check", len(dataset.samples)) as advance:
        for group in by_clip(dataset.samples):
            sample = group[0]
            check.scenes.setdefault(sample.scene_id, Coverage()).add(group)
            reason = (
                complaint(read_cloud, sample.pointcloud)
                or complaint(load_intrinsics, sample.intrinsics)
                or complain(read_clip, sample)
            )
            if reason:
                check.broken += [Broken(sample.id, reason) for sample in group]
            elif pictures is not None:
                check.doubtful += draw(sample, pictures)
            advance(len(group))
    return check


def draw(sample: Sample, folder: Path) -> Iterator[Broken]:
    """Draw a sample's scene and clip, and yield what speaks against them."""
    scene, clip = sample.load()
    count = min(FRAMES, len(clip.frames.posed(scene.poses)))
    fit = examine(
        scene, select_frames(clip, scene.poses, frames=count, default=count, offset=scene.offset), thorough=True
    )
    write_picture(folder / f"{sample.scene_id}_{sample.start}_{sample.stop}.png", fit)
    yield from (Broken(sample.id, str(finding)) for finding in fit.findings)


def read_clip(sample: Sample) -> None:
    """Read every pose of a clip and its first frame; poses that are lost are said, since their frames are not used."""
    posed, lost = usable(load_poses(sample.c2ws, stems=sample.stems))
    if lost:
        LOG.warning("%s: %s", sample.id, lost)
    sample.find_frames(posed)


def complain(read: Callable[[Any], object], source: Path | Sample) -> str | None:
    """What is wrong with a source, if something is."""
    try:
        read(source)
    except (BadInput, OSError) as error:
        return str(error)
    return None
