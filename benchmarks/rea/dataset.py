"""The REA data set: questions about scenes and clips, whose files are read when they are needed (SPEC section 9)."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.digests import file_digest
from ...runtime.errors import BadInput
from ...runtime.inputs.clip import Clip, even_times
from ...runtime.inputs.entries import field, parse_conversation, read_entries
from ...runtime.inputs.frames import ImageFiles
from ...runtime.inputs.scene import Scene, load_scene

__all__ = ["QUESTION_TYPES", "Broken", "ReaDataset", "Sample", "by_clip"]

NAME = "REA"
QUESTION_TYPES = (
    "relative_direction",
    "relative_distance",
    "find_my_item",
    "furniture_affordance",
    "action_planning",
)
# EPIC-KITCHENS extracted 60 frames a second, and 50 from the later videos, whose numbers have three digits
EPIC_FPS, EPIC_EXTENSION_FPS = 60.0, 50.0
EPIC_EXTENSION = re.compile(r"P\d+_\d{3}")
# over four hours; a number beyond is a mistake, and every frame of a clip is looked for
MOST_FRAMES = 1_000_000


@dataclass(frozen=True)
class Sample:
    """A question about a range of frames; nothing of it is read yet.

    Attributes:
        id: unique within the data set.
        question: without the placeholders.
        answer: as annotated.
        question_type: one of `QUESTION_TYPES`.
        scene_id: such as P01_11.
        start: number of the clip's first frame.
        stop: number of its last frame.
        video: folder of `frame_XXXXXXXXXX.jpg`.
        pointcloud: file of the coloured cloud.
        c2ws: folder of camera-to-world poses named like the frames, of which a subset has one.
        intrinsics: 3x3 text file.
        fps: frames a second.
    """

    id: str
    question: str
    answer: str
    question_type: str
    scene_id: str
    start: int
    stop: int
    video: Path
    pointcloud: Path
    c2ws: Path
    intrinsics: Path
    fps: float

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the clip's frames, whether they are on disk or not."""
        return tuple(f"frame_{number:010d}" for number in range(self.start, self.stop + 1))

    def to_entry(self, root: Path) -> dict[str, Any]:
        """As an entry of the data set's JSON file, with paths relative to a folder."""
        paths = {"video": self.video, "pointcloud": self.pointcloud, "c2ws": self.c2ws, "K": self.intrinsics}
        return {
            "id": self.id,
            **{key: path.relative_to(root).as_posix() for key, path in paths.items()},
            "conversations": [
                {"from": "human", "value": f"<pointcloud><image>{self.question}"},
                {"from": "gpt", "value": self.answer},
            ],
            "metadata": {
                "dataset": NAME,
                "question_type": self.question_type,
                "query_start_frame": self.start,
                "query_stop_frame": self.stop,
                "fps": self.fps,
            },
            "scene_id": self.scene_id,
        }

    def load(self) -> tuple[Scene, Clip]:
        """Read the cloud, the intrinsics and the size of the frames; poses are read when frames are chosen.

        Of a GLB the first geometry is read as it is stored: the authors do so, and the data set's poses fit it.

        Raises:
            BadInput: a file is missing or is not what it has to be.
        """
        scene = load_scene(self.pointcloud, poses=self.c2ws, intrinsics=self.intrinsics, stems=self.stems, glb="first")
        return scene, self.find_frames(scene.poses)

    def find_frames(self, posed: Collection[str]) -> Clip:
        """The clip's frames that are on disk, counted from its first.

        Args:
            posed: stems of the frames that have a pose, at least one.

        Raises:
            BadInput: one of these is missing, or the first cannot be read.
        """
        found = {stem: f"{stem}.jpg" for stem in self.stems if (self.video / f"{stem}.jpg").is_file()}
        if missing := [stem for stem in posed if stem not in found]:
            count = f"{len(missing)} of {len(posed)} frames with a pose are"
            raise BadInput(f"frame {self.video / missing[0]}.jpg: missing; {count}")
        files = ImageFiles(self.video, tuple(found.values()))
        places = [place for place, stem in enumerate(self.stems) if stem in found]
        return Clip(files, files.size(), *even_times(places, self.fps, len(self.stems) / self.fps))


@dataclass(frozen=True)
class Broken:
    """A sample that cannot be used, and why."""

    id: str
    reason: str


class ReaDataset:
    """The questions of one JSON file of the release.

    Attributes:
        file: the JSON file.
        fps: frames a second, if they were given.
        samples: its questions, in its order; their paths are absolute.
    """

    def __init__(self, file: Path, root: Path, *, fps: float | None = None):
        """Read the questions and nothing else.

        Args:
            file: JSON list of entries.
            root: folder that the entries' paths are relative to.
            fps: frames a second; by default `metadata.fps` of an entry, else EPIC-KITCHENS' 60, or 50 where the
                video's number has three digits.

        Raises:
            BadInput: the file is not of this data set, or an entry is incomplete or doubled.
        """
        if fps is not None and not 0 < fps < float("inf"):
            raise BadInput(f"--fps {fps}: expected a positive number")
        if not root.is_dir():
            raise BadInput(f"--root {root}: no such folder; expected the one that the entries' paths are relative to")
        self.file, self.fps = file, fps
        self.samples = read_samples(file, root.absolute(), fps)

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON file."""
        return file_digest(self.file)


def by_clip(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Samples in groups about the same scene and clip, in the order of their first members."""
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        files = (sample.pointcloud, sample.video, sample.c2ws, sample.intrinsics)
        groups.setdefault((*files, sample.start, sample.stop, sample.fps), []).append(sample)
    return list(groups.values())


def read_samples(file: Path, root: Path, fps: float | None) -> tuple[Sample, ...]:
    """The samples of a JSON file; raises BadInput that names the entry."""
    samples = tuple(read_entries("--rea", file, lambda entry: parse_entry(entry, root, fps)))
    places: dict[str, int] = {}
    for place, sample in enumerate(samples):
        if sample.id in places:
            raise BadInput(
                f"--rea {file}: entries {places[sample.id]} and {place} have the same id {sample.id!r}; ids must differ"
            )
        places[sample.id] = place
    return samples


def parse_entry(entry: Any, root: Path, fps: float | None) -> Sample:
    """One entry as a sample; raises ValueError or TypeError with what is wrong."""
    name = field(entry, "metadata.dataset", str)
    if name != NAME:
        raise ValueError(f"belongs to data set {name!r}, expected {NAME!r}")
    question_type = field(entry, "metadata.question_type", str)
    if question_type not in QUESTION_TYPES:
        raise ValueError(f"has question_type {question_type!r}; known are {', '.join(QUESTION_TYPES)}")
    start, stop = (field(entry, f"metadata.query_{end}_frame", int) for end in ("start", "stop"))
    if not 0 <= start <= stop:
        raise ValueError(f"has frames {start}..{stop}, expected 0 <= query_start_frame <= query_stop_frame")
    if stop - start >= MOST_FRAMES:
        raise ValueError(f"has frames {start}..{stop}, more than {MOST_FRAMES}")
    asked, answer = parse_conversation(entry)
    scene_id = field(entry, "scene_id", str)
    return Sample(
        id=str(field(entry, "id", str | int)),
        question=asked,
        answer=answer,
        question_type=question_type,
        scene_id=scene_id,
        start=start,
        stop=stop,
        video=root / field(entry, "video", str),
        pointcloud=root / field(entry, "pointcloud", str),
        c2ws=root / field(entry, "c2ws", str),
        intrinsics=root / field(entry, "K", str),
        fps=fps or recorded_fps(entry) or default_fps(scene_id),
    )


def recorded_fps(entry: dict[str, Any]) -> float | None:
    if "fps" not in entry["metadata"]:
        return None
    fps = field(entry, "metadata.fps", int | float)
    if not 0 < fps < float("inf"):
        raise ValueError(f"has metadata.fps {fps}, expected a positive number")
    return float(fps)


def default_fps(scene_id: str) -> float:
    return EPIC_EXTENSION_FPS if EPIC_EXTENSION.fullmatch(scene_id) else EPIC_FPS
