"""The small world: rooms, clips, questions and answers, written as REA is laid out."""

import json
import logging
import multiprocessing
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.console import Progress
from ...runtime.errors import BadInput, require_at_least
from ...runtime.inputs.writing import write_frames, write_matrix, write_poses
from ..folders import require_new
from ..rea.dataset import Sample
from .clips import FPS, FRAMES, Clip, make_clip, render_clip
from .render import INTRINSICS, sample_cloud
from .room import Room, generator_of, make_room

__all__ = ["Recipe", "Synth", "write_synth"]

LOG = logging.getLogger(__name__)
VIDEOS_A_PARTICIPANT = 99
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Synth:
    """What was written.

    Attributes:
        train: entries of train.json.
        val: entries of val.json.
        questions: entries by type.
    """

    train: int
    val: int
    questions: dict[str, int]

    def __str__(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in self.questions.items())
        return f"{self.train} questions for training, {self.val} for validation: {types}"


@dataclass(frozen=True)
class Recipe:
    """What a world is asked to be; the same recipe gives the same files.

    Attributes:
        scenes: rooms; each has one point cloud and one folder of frames.
        seed: of everything.
        clips: in each room, of 12 frames.
        questions: a clip on each of directions, distances and ways, at most; one each on the item and the furniture.
        val_share: share of the rooms, the last ones, that are kept for validation; at least one of several rooms.
    """

    scenes: int
    seed: int
    clips: int = 2
    questions: int = 3
    val_share: float = 0.1

    def check(self) -> None:
        """Raise BadInput when a number is out of range."""
        least = {"--scenes": (self.scenes, 1), "--seed": (self.seed, 0)}
        require_at_least(least | {"--clips": (self.clips, 1), "--questions": (self.questions, 1)})
        if not 0 <= self.val_share <= 1:
            raise BadInput(f"--val-share {self.val_share}: expected a share from 0 to 1")

    @property
    def val(self) -> int:
        """How many rooms are for validation."""
        return max(round(self.scenes * self.val_share), int(self.val_share > 0 and self.scenes > 1))

    def split(self, index: int) -> str:
        """What a room is for, train or val."""
        return "val" if index >= self.scenes - self.val else "train"

    def write(self, folder: Path, index: int) -> list[dict[str, Any]]:
        """Write a room's files; its entries."""
        scene = scene_id(index)
        room = make_room(self.seed, index)
        numbers = range(index * self.clips, (index + 1) * self.clips)
        clips = [make_clip(room, self.seed, number, self.questions) for number in numbers]
        place = Place.of(folder, "test" if self.split(index) == "val" else "train", scene)
        write_files(place, room, clips, self.seed, index)
        write_json(folder / f"world/{scene}.json", sidecar(room, clips))
        return [sample.to_entry(folder) for sample in samples(scene, place, clips)]


def write_synth(out: Path, recipe: Recipe, *, processes: int | None = None, quiet: bool = True) -> Synth:
    """Write a data set.

    Args:
        out: new folder for train.json, val.json and what they name; beside them `world/` holds each room's truth.
        recipe: what it is to be.
        processes: by default one a core; the files do not depend on it.
        quiet: whether to leave out the progress bar.

    Raises:
        BadInput: the folder holds something or cannot be written, or a number is out of range.
    """
    require_new(out)
    recipe.check()
    require_at_least({"--processes": (processes, 1)})
    processes = min((os.cpu_count() or 1) if processes is None else processes, recipe.scenes)
    LOG.info("rooms: %d, the last %d for validation; processes: %d", recipe.scenes, recipe.val, processes)
    target = out.absolute()
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    try:
        with Progress(quiet).bar("rooms", recipe.scenes) as advance:
            for index, found in enumerate(written(recipe, folder, processes)):
                parts[recipe.split(index)] += found
                advance(1)
        for name, found in parts.items():
            write_json(folder / f"{name}.json", found)
        # last, so that a folder of this name holds everything
        folder.replace(target)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error}); name another folder or make room") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    types = Counter(entry["metadata"]["question_type"] for found in parts.values() for entry in found)
    return Synth(len(parts["train"]), len(parts["val"]), dict(sorted(types.items())))


def written(recipe: Recipe, folder: Path, processes: int) -> Iterator[list[dict[str, Any]]]:
    """Write all rooms; their entries in order."""
    write = partial(recipe.write, folder)
    if processes == 1:
        yield from map(write, range(recipe.scenes))
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(write, range(recipe.scenes), chunksize=4)


def scene_id(index: int) -> str:
    participant, video = divmod(index, VIDEOS_A_PARTICIPANT)
    return f"P{participant + 1:02d}_{video + 1:02d}"


@dataclass(frozen=True)
class Place:
    """Where the files of a scene are, as REA lays them out."""

    video: Path
    pointcloud: Path
    c2ws: Path
    intrinsics: Path

    @classmethod
    def of(cls, folder: Path, split: str, scene: str) -> "Place":
        """Those of a scene of a data set."""
        return cls(
            video=folder / split / scene.split("_")[0] / scene,
            pointcloud=folder / f"pointclouds/{scene}.ply",
            c2ws=folder / f"poses/{scene}",
            intrinsics=folder / f"intrinsics/{scene}.txt",
        )


def write_files(place: Place, room: Room, clips: list[Clip], seed: int, index: int) -> None:
    """Frames, poses, intrinsics and point cloud of a scene; frames count from 1 through all its clips."""
    for file in (place.intrinsics, place.pointcloud):
        file.parent.mkdir(parents=True, exist_ok=True)
    generator = generator_of("frames", seed, index)
    for number, clip in enumerate(clips):
        stems = [f"frame_{number * FRAMES + shown + 1:010d}" for shown in range(FRAMES)]
        frames = (frame.pixels for frame in render_clip(room, clip, generator))
        # answers name colours, whose resolution JPEG halves by default
        write_frames(place.video, zip(stems, frames, strict=True), ".jpg", quality=JPEG_QUALITY, subsampling="4:4:4")
        write_poses(place.c2ws, dict(zip(stems, clip.poses, strict=True)))
    write_matrix(place.intrinsics, INTRINSICS)
    write_ply(place.pointcloud, *sample_cloud(room, generator_of("cloud", seed, index)))


def write_ply(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Points [P, 3] float32 with colours [P, 3] uint8 as a binary PLY file."""
    names = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    vertices = np.empty(len(points), names)
    for (name, _), column in zip(names, (*points.T, *colours.T), strict=True):
        vertices[name] = column
    kinds = {"<f4": "float", "u1": "uchar"}
    properties = [f"property {kinds[kind]} {name}" for name, kind in names]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes())


def sidecar(room: Room, clips: list[Clip]) -> dict[str, Any]:
    """What is true of a scene beyond its questions."""
    acts = [
        {
            "query_start_frame": number * FRAMES + 1,
            "query_stop_frame": (number + 1) * FRAMES,
            "item": clip.item,
            "target": room.furniture[clip.target].name,
        }
        for number, clip in enumerate(clips)
    ]
    return room.to_json() | {"clips": acts}


def samples(scene: str, place: Place, clips: list[Clip]) -> Iterator[Sample]:
    """The questions about a scene."""
    for number, clip in enumerate(clips):
        counts: Counter[str] = Counter()
        for question in clip.questions:
            counts[question.question_type] += 1
            yield Sample(
                id=f"{scene}_{number + 1}_{question.question_type}_{counts[question.question_type]}",
                question=question.text,
                answer=question.answer,
                question_type=question.question_type,
                scene_id=scene,
                start=number * FRAMES + 1,
                stop=(number + 1) * FRAMES,
                fps=FPS,
                **vars(place),
            )


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
