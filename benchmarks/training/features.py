"""Arrays for training, made from a generated data set by the runtime's own code and kept in memory."""

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.geometry import Geometry
from ...runtime.console import Progress
from ...runtime.host.pixels import resized
from ...runtime.host.voxels import Voxels
from ...runtime.inputs.selection import select_frames
from ...runtime.stages import HostStages
from ..rea.dataset import ReaDataset, Sample, by_clip
from ..world.furniture import AFFORDANCES, COLOURS, KINDS
from ..world.questions import WISHES

__all__ = ["FLOOR", "FRAMES", "VOXEL_SIZE", "WALL", "Clip", "Question", "Room", "load_rooms"]

VOXEL_SIZE = 0.2
FRAMES = 4
FLOOR, WALL = -1, -2
# a surface's voxel may have its centre so far outside
MARGIN = VOXEL_SIZE / 2


@dataclass(frozen=True)
class Question:
    """A question with its truth, and where its object is seen from the first frame.

    Attributes:
        type: question type.
        text: in words.
        answer: in words.
        piece: index of the piece of furniture that the question is about; -1 where the clip has to tell.
        place: [3] float32 cosine and sine of its bearing and the logarithm of its distance in metres.
    """

    type: str
    text: str
    answer: str
    piece: int
    place: np.ndarray


@dataclass(frozen=True)
class Clip:
    """A clip of a room.

    Attributes:
        pixels: [T, S, S, 3] uint8, resized.
        point_rays: [N, 3] float32.
        frame_rays: [T*n*n, 3] float32.
        target: index of the piece of furniture that the item is put on.
        questions: asked about it.
    """

    pixels: np.ndarray
    point_rays: np.ndarray
    frame_rays: np.ndarray
    target: int
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Room:
    """A room and its clips.

    Attributes:
        coords: [N, 3] int32 voxels.
        feats: [N, 3] float32 colours.
        pieces: [N] int16, the piece of furniture that a voxel belongs to; or `FLOOR`, or `WALL`.
        heights: [N] float32, metres above the floor.
        kinds: kind of each piece, as an index.
        colours: colour of each piece, as an index.
        clips: clips of the room.
    """

    coords: np.ndarray
    feats: np.ndarray
    pieces: np.ndarray
    heights: np.ndarray
    kinds: np.ndarray
    colours: np.ndarray
    clips: tuple[Clip, ...]


def load_rooms(dataset: ReaDataset, world: Path, geometry: Geometry, *, quiet: bool = True) -> list[Room]:
    """Read a generated data set.

    Args:
        dataset: its questions.
        world: folder with the truth about each room.
        geometry: of the model.
        quiet: whether to leave out the progress bar.
    """
    scenes: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        scenes.setdefault(sample.scene_id, []).append(sample)
    read = partial(load_room, world=world, geometry=geometry)
    rooms = []
    # libraries have threads by now, and a fork of a process with threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn) as pool, Progress(quiet).bar("rooms", len(scenes)) as advance:
        for room in pool.map(read, scenes.values(), chunksize=8):
            rooms.append(room)
            advance(1)
    return rooms


def load_room(samples: Sequence[Sample], world: Path, geometry: Geometry) -> Room:
    """One room with all its clips."""
    truth = json.loads((world / f"{samples[0].scene_id}.json").read_text(encoding="utf-8"))
    furniture = truth["furniture"]
    scene = samples[0].load()[0]
    voxels = HostStages(geometry.vision, VOXEL_SIZE).voxels(scene)
    centres = (voxels.coords + voxels.minimum + 0.5) * VOXEL_SIZE
    acts = {act["query_start_frame"]: act["target"] for act in truth["clips"]}
    names = [piece["name"] for piece in furniture]
    return Room(
        coords=voxels.coords,
        feats=voxels.feats,
        pieces=label(centres, furniture),
        heights=centres[:, 2].astype(np.float32),
        kinds=np.array([list(KINDS).index(piece["kind"]) for piece in furniture]),
        colours=np.array([list(COLOURS).index(piece["colour"]) for piece in furniture]),
        clips=tuple(
            load_clip(group, voxels, furniture, names.index(acts[group[0].start]), geometry)
            for group in by_clip(samples)
        ),
    )


def load_clip(
    samples: Sequence[Sample], voxels: Voxels, furniture: list[dict[str, Any]], target: int, geometry: Geometry
) -> Clip:
    """One clip with the questions about it."""
    scene, clip = samples[0].load()
    selection = select_frames(clip, scene.poses, frames=FRAMES, default=FRAMES, offset=scene.offset)
    rays = HostStages(geometry.vision, VOXEL_SIZE).rays(scene, selection, voxels)
    return Clip(
        pixels=np.stack([resized(frame, geometry.vision.image_size) for frame in clip.read(selection.indices)]),
        point_rays=rays.voxels,
        frame_rays=rays.frames.reshape(-1, 3),
        target=target,
        questions=tuple(locate(sample, furniture, selection.poses[0]) for sample in samples),
    )


def label(centres: np.ndarray, furniture: list[dict[str, Any]]) -> np.ndarray:
    """For voxel centres [N, 3] the piece that each belongs to, [N] int16; `FLOOR` or `WALL` for the rest."""
    pieces = np.where(centres[:, 2] < VOXEL_SIZE, FLOOR, WALL).astype(np.int16)
    for index, piece in enumerate(furniture):
        c, s = np.cos(piece["yaw"]), np.sin(piece["yaw"])
        local = np.abs((centres[:, :2] - piece["centre"]) @ np.array([[c, -s], [s, c]]))
        width, depth, height = piece["size"]
        inside = (local < np.array([width, depth]) / 2 + MARGIN).all(axis=1) & (centres[:, 2] < height + MARGIN)
        pieces[inside] = index
    return pieces


def locate(sample: Sample, furniture: list[dict[str, Any]], pose: np.ndarray) -> Question:
    """A question with the piece it is about, and where that is from the first camera [4, 4]."""
    words = sample.question.replace("?", " ").replace(".", " ").split()
    piece, place = -1, np.full(3, np.nan, np.float32)
    for index, candidate in enumerate(furniture):
        wish = next(WISHES[group] for group, kinds in AFFORDANCES.items() if candidate["kind"] in kinds)
        named = candidate["kind"] in words or wish in sample.question
        if named and candidate["colour"] in words:
            piece = index
            offset = np.array(candidate["centre"]) - pose[:2, 3]
            ahead = pose[:2, 2] / np.linalg.norm(pose[:2, 2])
            distance = np.linalg.norm(offset)
            right = offset @ [ahead[1], -ahead[0]]
            place = np.array([offset @ ahead / distance, right / distance, np.log(distance)], np.float32)
    return Question(sample.question_type, sample.question, sample.answer, piece, place)
