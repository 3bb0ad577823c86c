"""A small REA data set of the built-in corridor: two scenes, two overlapping clips each, two questions a clip."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stllm_edge.benchmarks.rea.dataset import ReaDataset

CLIPS = ((1, 20), (11, 30))
SCENES = {"P01_11": 40, "P02_101": 60}
QUESTIONS = {
    "relative_direction": ("In which direction is the table?", "To the left."),
    "find_my_item": ("Where did the person put the mug?", "On the table."),
}


@dataclass
class Rea:
    """The JSON file and the root of a data set that a test may change."""

    root: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.root / "val.json"

    def write(self) -> None:
        self.file.write_text(json.dumps(self.entries))

    def open(self, **options: Any) -> ReaDataset:
        return ReaDataset(self.file, self.root, **options)

    def frame(self, scene: str, number: int) -> Path:
        return self.root / f"test/{scene[:3]}/{scene}/frame_{number:010d}.jpg"

    def pose(self, scene: str, number: int) -> Path:
        return self.root / f"poses/{scene}/frame_{number:010d}.txt"

    def cloud(self, scene: str) -> Path:
        return self.root / f"pointclouds/{scene}.npy"


def write_scene(rea: Rea, scene: str, step: int, sample: tuple[Path, Path]) -> None:
    """The corridor with every so many points, and entries about its clips."""
    source, video = sample
    for folder in (rea.frame(scene, 0).parent, rea.pose(scene, 0).parent, rea.cloud(scene).parent):
        folder.mkdir(parents=True, exist_ok=True)
    np.save(rea.cloud(scene), np.load(source / "points.npy")[::step])
    shutil.copy(source / "K.txt", rea.root / f"{scene}.txt")
    for frame in video.glob("*.png"):
        Image.open(frame).save(rea.frame(scene, int(frame.stem[-10:])))
        shutil.copy(source / f"poses/{frame.stem}.txt", rea.pose(scene, 0).parent)
    for start, stop in CLIPS:
        for kind, (question, answer) in QUESTIONS.items():
            rea.entries.append(
                {
                    "id": f"{scene}-{start}-{kind}",
                    "video": f"test/{scene[:3]}/{scene}",
                    "pointcloud": f"pointclouds/{scene}.npy",
                    "c2ws": f"poses/{scene}",
                    "K": f"{scene}.txt",
                    "conversations": [
                        {"from": "human", "value": f"<pointcloud><image>{question}"},
                        {"from": "gpt", "value": answer},
                    ],
                    "metadata": {
                        "dataset": "REA",
                        "question_type": kind,
                        "query_start_frame": start,
                        "query_stop_frame": stop,
                    },
                    "scene_id": scene,
                }
            )


@pytest.fixture(scope="session")
def pristine(sample: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Rea:
    """Frames 3, 11, 18 and 26 of each scene are there and have a pose, so every clip has three."""
    rea = Rea(tmp_path_factory.mktemp("rea"))
    for scene, step in SCENES.items():
        write_scene(rea, scene, step, sample)
    rea.write()
    return rea


@pytest.fixture
def rea(pristine: Rea, tmp_path: Path) -> Rea:
    root = shutil.copytree(pristine.root, tmp_path / "rea")
    return Rea(root, json.loads((root / "val.json").read_text()))
