"""A small REA data set of the built-in corridor: two scenes, two overlapping clips each, two questions a clip."""

import itertools
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.rea.dataset import ReaDataset, Sample
from stllm_edge.runtime import load_clip
from stllm_edge.runtime.inputs.writing import write_frames

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


def add_scene(rea: Rea, scene: str, step: int, sample: tuple[Path, Path]) -> None:
    """The corridor with every so many points, and entries about its clips."""
    source, video = sample
    for folder in (rea.pose(scene, 0).parent, rea.cloud(scene).parent):
        folder.mkdir(parents=True, exist_ok=True)
    np.save(rea.cloud(scene), np.load(source / "points.npy")[::step])
    shutil.copy(source / "K.txt", rea.root / f"{scene}.txt")
    frames = load_clip(video)
    stems = sorted(file.stem for file in video.glob("*.png"))
    write_frames(rea.frame(scene, 0).parent, zip(stems, frames.read(range(len(stems))), strict=True), ".jpg")
    for stem in stems:
        shutil.copy(source / f"poses/{stem}.txt", rea.pose(scene, 0).parent)
    for (start, stop), (kind, (question, answer)) in itertools.product(CLIPS, QUESTIONS.items()):
        asked = Sample(
            id=f"{scene}-{start}-{kind}",
            question=question,
            answer=answer,
            question_type=kind,
            scene_id=scene,
            start=start,
            stop=stop,
            video=rea.frame(scene, 0).parent,
            pointcloud=rea.cloud(scene),
            c2ws=rea.pose(scene, 0).parent,
            intrinsics=rea.root / f"{scene}.txt",
            fps=60.0,
        )
        entry = asked.to_entry(rea.root)
        del entry["metadata"]["fps"]  # the release has none
        rea.entries.append(entry)


@pytest.fixture(scope="session")
def pristine(sample: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Rea:
    """Frames 3, 11, 18 and 26 of each scene are there and have a pose, so every clip has three."""
    rea = Rea(tmp_path_factory.mktemp("rea"))
    for scene, step in SCENES.items():
        add_scene(rea, scene, step, sample)
    rea.write()
    return rea


@pytest.fixture
def rea(pristine: Rea, tmp_path: Path) -> Rea:
    root = shutil.copytree(pristine.root, tmp_path / "rea")
    return Rea(root, json.loads((root / "val.json").read_text()))
