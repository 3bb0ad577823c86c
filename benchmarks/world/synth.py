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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.console import Progress
from ...runtime.errors import BadInput, require_at_least
from ..folders import require_new
from .clips import FPS, FRAMES, Clip, make_clip, render_clip
from .render import INTRINSICS, sample_cloud
from .room import Room, generator_of, make_room

__all__ = ["Synth", "write_synth"]

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
class Plan:
    """What every scene is made by."""

    folder: Path
    seed: int
    clips: int
    questions: int
    first_val: int

    def write(self, index: int) -> list[dict[str, Any]]:
        """Write a scene's files; its entries."""
        scene = scene_id(index)
        room = make_room(self.seed, index)
        numbers = range(index * self.clips, (index + 1) * self.clips)
        clips = [make_clip(room, self.seed, number, self.questions) for number in numbers]
        paths = {
            "video": f"{'test' if index >= self.first_val else 'train'}/{scene.split('_')[0]}/{scene}",
            "pointcloud": f"pointclouds/{scene}.ply",
            "c2ws": f"poses/{scene}",
            "K": f"intrinsics/{scene}.txt",
        }
        write_files(self.folder, paths, room, clips, self.seed, index)
        write_json(self.folder / f"world/{scene}.json", sidecar(room, clips))
        return list(entries(scene, paths, clips))


def write_synth(
    out: Path,
    scenes: int,
    seed: int,
    *,
    clips: int = 2,
    questions: int = 3,
    val_share: float = 0.1,
    processes: int | None = None,
    quiet: bool = True,
) -> Synth:
    """Write a data set; the same arguments give the same files, whatever the number of processes.

    Args:
        out: new folder for train.json, val.json and what they name; beside them `world/` holds each room's truth.
        scenes: rooms; each has one point cloud and one folder of frames.
        seed: of everything.
        clips: in each room, of 12 frames.
        questions: a clip on each of directions, distances and ways, at most; one each on the item and the furniture.
        val_share: share of the rooms, the last ones, that are kept for validation; at least one of several rooms.
        processes: by default one a core.
        quiet: whether to leave out the progress bar.

    Raises:
        BadInput: the folder holds something or cannot be written, or a number is out of range.
    """
    check(out, scenes, seed, clips, questions, val_share, processes)
    val = max(round(scenes * val_share), int(val_share > 0 and scenes > 1))
    processes = min((os.cpu_count() or 1) if processes is None else processes, scenes)
    LOG.info("rooms: %d, the last %d for validation; processes: %d", scenes, val, processes)
    target = out.absolute()
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        plan = Plan(folder, seed, clips, questions, scenes - val)
        with Progress(quiet).bar("rooms", scenes) as advance:
            parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
            for index, found in enumerate(written(plan, scenes, processes)):
                parts["val" if index >= plan.first_val else "train"] += found
                advance(1)
        for name, found in parts.items():
            write_json(folder / f"{name}.json", found)
        folder.replace(target)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error}); name another folder or make room") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    types = Counter(entry["metadata"]["question_type"] for found in parts.values() for entry in found)
    return Synth(len(parts["train"]), len(parts["val"]), dict(sorted(types.items())))


def check(
    out: Path, scenes: int, seed: int, clips: int, questions: int, val_share: float, processes: int | None
) -> None:
    """Raise BadInput unless a data set can be written so."""
    require_new(out)
    least = {"--scenes": (scenes, 1), "--seed": (seed, 0), "--clips": (clips, 1), "--questions": (questions, 1)}
    require_at_least(least | {"--processes": (processes, 1)})
    if not 0 <= val_share <= 1:
        raise BadInput(f"--val-share {val_share}: expected a share from 0 to 1")


def written(plan: Plan, scenes: int, processes: int) -> Iterator[list[dict[str, Any]]]:
    """Write all scenes; their entries in order."""
    if processes == 1:
        yield from map(plan.write, range(scenes))
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(plan.write, range(scenes), chunksize=4)


def scene_id(index: int) -> str:
    participant, video = divmod(index, VIDEOS_A_PARTICIPANT)
    return f"P{participant + 1:02d}_{video + 1:02d}"


def write_files(folder: Path, paths: dict[str, str], room: Room, clips: list[Clip], seed: int, index: int) -> None:
    """Frames, poses, intrinsics and point cloud of a scene; frames count from 1 through all its clips."""
    for path in paths.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for name in ("video", "c2ws"):
        (folder / paths[name]).mkdir()
    generator = generator_of("frames", seed, index)
    for number, clip in enumerate(clips):
        for place, frame in enumerate(render_clip(room, clip, generator)):
            stem = f"frame_{number * FRAMES + place + 1:010d}"
            picture = folder / paths["video"] / f"{stem}.jpg"
            Image.fromarray(frame.pixels).save(picture, quality=JPEG_QUALITY, subsampling="4:4:4")
            np.savetxt(folder / paths["c2ws"] / f"{stem}.txt", clip.poses[place], fmt="%.17g")
    np.savetxt(folder / paths["K"], INTRINSICS, fmt="%.17g")
    write_ply(folder / paths["pointcloud"], *sample_cloud(room, generator_of("cloud", seed, index)))


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


def entries(scene: str, paths: dict[str, str], clips: list[Clip]) -> Iterator[dict[str, Any]]:
    """A scene's entries as REA has them."""
    for number, clip in enumerate(clips):
        counts: Counter[str] = Counter()
        for question in clip.questions:
            counts[question.question_type] += 1
            place = counts[question.question_type]
            yield {
                "id": f"{scene}_{number + 1}_{question.question_type}_{place}",
                **paths,
                "conversations": [
                    {"from": "human", "value": f"<pointcloud><image>{question.text}"},
                    {"from": "gpt", "value": question.answer},
                ],
                "metadata": {
                    "dataset": "REA",
                    "question_type": question.question_type,
                    "query_start_frame": number * FRAMES + 1,
                    "query_stop_frame": (number + 1) * FRAMES,
                    "fps": FPS,
                },
                "scene_id": scene,
            }


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
