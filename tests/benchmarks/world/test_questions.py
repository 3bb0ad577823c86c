"""Answers recomputed from poses, boxes and frames alone, by geometry of the tests' own."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

AFFORDANCES = {
    "chair stool sofa": "Sit on it.",
    "bed mattress lounger": "Lie down on it.",
    "table desk stand": "Put things on it.",
    "cabinet bookshelf fridge": "Keep things inside it.",
}
WISHES = {"sit down": "Sit", "lie down": "Lie", "put something": "Put", "keep something": "Keep"}
WAYS = {"In front.": "straight ahead", "To the right.": "right", "Behind.": "around", "To the left.": "left"}


def of_type(world: Any, question_type: str) -> Iterator[tuple[dict[str, Any], str, str, dict[str, Any], np.ndarray]]:
    """Entry, question, answer, the scene's truth and the pose of the clip's first frame."""
    for entry in world.entries():
        if entry["metadata"]["question_type"] == question_type:
            question, answer = (turn["value"] for turn in entry["conversations"])
            truth = world.sidecar(entry["scene_id"])
            yield entry, question, answer, truth, pose(world, entry, entry["metadata"]["query_start_frame"])


def pose(world: Any, entry: dict[str, Any], number: int) -> np.ndarray:
    return np.loadtxt(world.folder / entry["c2ws"] / f"frame_{number:010d}.txt")


def named(question: str, truth: dict[str, Any]) -> dict[str, Any]:
    (piece,) = [piece for piece in truth["furniture"] if f" {piece['name']} " in re.sub(r"[?,.]", " ", question)]
    return piece


def affordance(kind: str) -> str:
    (answer,) = [answer for kinds, answer in AFFORDANCES.items() if kind in kinds.split()]
    return answer


def direction(piece: dict[str, Any], camera: np.ndarray) -> str:
    """By the side of the two diagonals between the camera's axes on which the piece lies."""
    offset = np.append(piece["centre"], 0.0) - np.append(camera[:2, 3], 0.0)
    right = camera[:3, 0]
    ahead = np.cross([0.0, 0.0, 1.0], right)
    x, z = offset @ right, offset @ ahead
    assert min(abs(x - z), abs(x + z)) / np.hypot(x, z) / np.sqrt(2) > np.sin(np.deg2rad(9.9)), "near a border"
    assert np.hypot(x, z) >= 0.7
    if abs(z) > abs(x):
        return "In front." if z > 0 else "Behind."
    return "To the right." if x > 0 else "To the left."


def test_directions(world: Any) -> None:
    for entry, question, answer, truth, camera in of_type(world, "relative_direction"):
        assert answer == direction(named(question, truth), camera), entry["id"]


def test_distances(world: Any) -> None:
    borders = [(0.75, 1.3), (1.7, 2.3), (2.9, 3.5), (4.2, 9.0)]
    for entry, question, answer, truth, camera in of_type(world, "relative_distance"):
        metres = float(np.hypot(*(camera[:2, 3] - named(question, truth)["centre"])))
        (whole,) = [place + 1 for place, (low, high) in enumerate(borders) if low <= metres <= high]
        assert answer == f"About {whole} meter{'s' if whole > 1 else ''}.", entry["id"]


def test_ways(world: Any) -> None:
    for entry, question, answer, truth, camera in of_type(world, "action_planning"):
        (verb,) = [answer for wish, answer in WISHES.items() if wish in question]
        able = [piece for piece in truth["furniture"] if affordance(piece["kind"]).startswith(verb)]
        (colour,) = {piece["colour"] for piece in truth["furniture"]} & set(re.findall(r"\w+", question))
        coloured = [piece for piece in truth["furniture"] if piece["colour"] == colour]
        (goal,) = [piece for piece in able if piece in coloured]
        assert min(len(able), len(coloured)) > 1, entry["id"]
        assert WAYS[direction(goal, camera)] in answer, entry["id"]


def test_last_frame_shows_the_target_and_the_item_on_it(world: Any) -> None:
    for entry, truth, clip in world.clips():
        number = clip["query_stop_frame"]
        owner = visible(truth["furniture"], pose(world, entry, number), np.loadtxt(world.folder / entry["K"]))
        middle = owner[18:54, 24:72]
        shares = np.bincount(middle[middle >= 0], minlength=len(truth["furniture"]))
        target = truth["furniture"][int(shares.argmax())]
        assert target["name"] == clip["target"], entry["id"]

        answers = {
            other["metadata"]["question_type"]: other["conversations"][1]["value"]
            for other in world.entries()
            if (other["scene_id"], other["metadata"]["query_stop_frame"]) == (entry["scene_id"], number)
        }
        assert answers["find_my_item"] == f"On the {target['name']}."
        assert answers["furniture_affordance"] == affordance(target["kind"])

        frame = Image.open(frame_file(world.folder, entry, number))
        seen = np.asarray(frame, np.float64)[owner == shares.argmax()]
        paint = np.mean([box["colour"] for box in target["boxes"]], axis=0)
        cosine = seen @ paint / np.linalg.norm(seen, axis=1) / np.linalg.norm(paint)
        assert np.median(cosine) > 0.99, entry["id"]


def frame_file(folder: Path, entry: dict[str, Any], number: int) -> Path:
    return folder / entry["video"] / f"frame_{number:010d}.jpg"


def visible(furniture: list[dict[str, Any]], camera: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Index of the furniture seen at each pixel [72, 96], -1 where none: dense points, the nearest wins."""
    points, owners = [], []
    for index, piece in enumerate(furniture):
        spin = np.array([[np.cos(piece["yaw"]), -np.sin(piece["yaw"])], [np.sin(piece["yaw"]), np.cos(piece["yaw"])]])
        for box in piece["boxes"]:
            low, high = np.array(box["low"]), np.array(box["high"])
            steps = [np.linspace(a, b, max(2, int((b - a) / 0.012) + 2)) for a, b in zip(low, high, strict=True)]
            for axis in range(3):
                sides = [step if place != axis else step[[0, -1]] for place, step in enumerate(steps)]
                local = np.stack([grid.ravel() for grid in np.meshgrid(*sides)], axis=1)
                points.append(np.column_stack([local[:, :2] @ spin.T + piece["centre"], local[:, 2]]))
                owners.append(np.full(len(local), index))
    local = np.column_stack([np.concatenate(points), np.ones(sum(map(len, points)))]) @ np.linalg.inv(camera).T
    ahead = local[:, 2] > 0.05
    pixels = local[ahead, :3] @ intrinsics.T
    x, y = np.floor(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    depth, owner = local[ahead, 2], np.concatenate(owners)[ahead]
    inside = (x >= 0) & (x < 96) & (y >= 0) & (y < 72)
    order = np.flatnonzero(inside)[np.argsort(-depth[inside])]
    picture = np.full((72, 96), -1)
    picture[y[order], x[order]] = owner[order]
    return picture


@pytest.mark.parametrize("question_type", ["relative_direction", "relative_distance", "action_planning"])
def test_objects_of_a_clip_differ(world: Any, question_type: str) -> None:
    asked = [
        (entry["scene_id"], entry["metadata"]["query_start_frame"], question.split("something")[-1], question)
        for entry, question, *_ in of_type(world, question_type)
    ]
    pieces = [
        (scene, start, named(question, world.sidecar(scene))["name"])
        if question_type != "action_planning"
        else (scene, start, question)
        for scene, start, _, question in asked
    ]
    assert len(pieces) >= 30
    assert len(set(pieces)) == len(pieces)
