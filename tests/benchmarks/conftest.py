"""A small REA data set of the built-in corridor: two scenes, two overlapping clips each, two questions a clip."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.rea.dataset import ReaDataset, Sample
from stllm_edge.benchmarks.reports.runs import Run, runs_of
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


@dataclass(frozen=True)
class Recipe:
    """Rows of `stllm-bench latency` with the noise of a real machine, whatever was asked for.

    Attributes:
        noise: of a stage, relative; one answer in fifty is disturbed beyond it.
        wander: of the machine from round to round, relative; each round keeps nine tenths of the last one's.
        slower: factors by stage.
        machine: factor of all that the machine does.
        about: columns of the first row that differ.
        seed: of the noise of stages.
        weather: seed of how the machine wanders; bundles that take turns have one.
    """

    run: str = "5f2c9a1e"
    bundle: str = "1b7e42d0"
    questions: int = 12
    repetitions: int = 5
    phases: tuple[str, ...] = ("cold", "warm", "repeated")
    new_tokens: int = 12
    noise: float = 0.01
    wander: float = 0.003
    slower: Mapping[str, float] = field(default_factory=dict)
    machine: float = 1.0
    about: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] | None = field(default_factory=dict)
    prompt: Callable[[int], int] = lambda question: 6846 + question % 7
    seed: int = 0
    weather: int = 0


# seconds of an Orin-like device, in the order of a question; the first four in a fresh process only
SECONDS = {
    "process": 0.021, "imports": 0.31, "load_vision": 1.4, "load_llm": 2.2,
    "video": 0.19, "resize": 0.082, "voxels": 0.031, "maps": 0.094, "rays": 0.012, "vision": 3.15,
    "points": 0.42, "aligner": 0.77, "prefill": 4.4, "decode": 0.62, "sampling": 0.0021, "detokenise": 0.0002,
    "other": 0.011,
}  # fmt: skip
UNITS = {"video": "frame", "vision": "frame", "points": "voxel", "prefill": "position", "decode": "token"}
LOADING = ("process", "imports", "load_vision", "load_llm")
HEAD = {"schema": "stllm-edge.latency/1"}
ABOUT = {
    "started": "2026-03-04T10:11:12Z", "command": "stllm-bench latency --bundle small --subset first:12", "seed": 0,
    "version": "0.1.0", "workload": "first:12", "workload_digest": "77aa01", "samples": 12, "frames": 32,
    "new_tokens": 12, "bundle_path": "bundles/small", "bundle_digest": "1b7e42d0", "parity": "passed",
    "verified": True, "precision": "fp16", "quant": "Q4_K_M", "kv": "q8_0", "flash_attention": True, "threads": 6,
    "gpu_layers": 28, "resident": True, "provider": "tensorrt", "device": "NVIDIA Jetson Orin Nano Developer Kit",
    "board": "p3767-0005", "power_mode": "MAXN_SUPER", "governor": "schedutil", "clocks_locked": True,
    "cpu_hertz": 1.728e9, "cpu_hertz_max": 1.728e9, "gpu_hertz": 1.02e9, "gpu_hertz_max": 1.02e9,
    "memory_hertz": 3.199e9, "jetpack": "6.2", "driver": "540.4.0", "kernel": "5.15.148-tegra", "machine": "aarch64",
    "cpu": "Cortex-A78AE", "cores": 6, "memory_bytes": 7990000000, "gpu": "Orin", "python": "3.10.12",
    "idle_watts": 4.9, "rails": "VDD_IN", "seconds_idle": 10.0, "temperature_before": 46.5, "noise": 0.012,
    "version_numpy": "2.2.6", "version_llama_cpp": "0.3.36",
}  # fmt: skip


def rows_of(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """The rows of a run, in the order in which they would be written."""
    generator = np.random.default_rng(recipe.seed)
    common = {**HEAD, "run": recipe.run, "bundle": recipe.bundle}
    yield {**common, "kind": "run", **ABOUT, **recipe.about}
    lengths = np.random.default_rng(0).uniform(0.8, 1.3, (recipe.questions, len(SECONDS)))
    weather, clock, machine = np.random.default_rng(recipe.weather), 0.0, np.log(recipe.machine)
    for phase, repetition in itertools.product(recipe.phases, range(-1, recipe.repetitions)):
        machine = 0.9 * machine + 0.1 * np.log(recipe.machine) + weather.normal(0, recipe.wander)
        for question in range(recipe.questions):
            disturbed = 1.25 if generator.random() < 0.02 else 1.0
            factors = np.exp(machine + generator.normal(0, recipe.noise, len(SECONDS))) * disturbed
            spent = {
                stage: seconds * lengths[question, place] * factors[place] * recipe.slower.get(stage, 1.0)
                for place, (stage, seconds) in enumerate(SECONDS.items())
                if phase == "cold" or stage not in LOADING
            }
            which = {
                "workload": recipe.about.get("workload", "first:12"),
                "workload_digest": recipe.about.get("workload_digest", "77aa01"),
                "sample": f"P01-{question:03d}",
                "phase": phase,
                # the first round warms up; it does not count
                "repetition": max(repetition, 0),
                "warm_up": repetition < 0,
            }
            yield from answered(recipe, {**common, **which}, question, spent)
            clock += sum(spent.values())
            yield from sensed(common, clock, float(np.exp(machine)), generator)
    if recipe.end is not None:
        ended = {"reason": "complete", "message": None, "drift": 0.002, "throttled": False, "temperature_after": 61.5}
        yield {**common, "kind": "end", "seconds": clock, **ended, **recipe.end}


def answered(recipe: Recipe, which: dict[str, Any], question: int, spent: dict[str, float]) -> Iterator[dict[str, Any]]:
    first = sum(seconds for stage, seconds in spent.items() if stage not in ("decode", "sampling", "detokenise"))
    for place, (stage, seconds) in enumerate([*spent.items(), ("first_token", first), ("total", sum(spent.values()))]):
        yield {
            **which, "kind": "stage", "stage": stage, "seconds": seconds, "items": 32 if stage in UNITS else None,
            "unit": UNITS.get(stage), "frames": 32, "voxels": 30_000 + 100 * question,
            "prompt_tokens": recipe.prompt(question), "reused_tokens": 0, "new_tokens": recipe.new_tokens,
            "anonymous_bytes": int(1e9 + 5e7 * place), "file_bytes": 4_400_000_000, "gpu_bytes": None,
            "joules": 96.5 if stage == "total" else None, "finish_reason": "length", "drop": "dropped",
            "verified": True,
        }  # fmt: skip
    each = spent["decode"] / (recipe.new_tokens - 1)
    for index in range(1, recipe.new_tokens):
        depth = recipe.prompt(question) + index
        told = {"kind": "interval", "index": index, "seconds": each, "depth": depth, "verified": True}
        yield {**which, **told}


def sensed(
    common: dict[str, Any], clock: float, machine: float, generator: np.random.Generator
) -> Iterator[dict[str, Any]]:
    heat = 1 - np.exp(-clock / 120)
    for sensor, unit, value in (
        ("cpu-thermal", "celsius", 46 + 14 * heat + generator.normal(0, 0.3)),
        ("gpu-thermal", "celsius", 45 + 17 * heat + generator.normal(0, 0.3)),
        ("cpu", "hertz", 1.728e9),
        ("gpu", "hertz", 1.02e9 if heat < 0.9 else 0.918e9),
        ("anonymous", "byte", 1.1e9 + 4e8 * generator.random()),
        ("file", "byte", 4.4e9),
        ("VDD_IN", "watt", 14 + generator.normal(0, 1)),
        ("spin", "second", 3e-4 * machine * np.exp(generator.normal(0, 0.02))),
    ):
        yield {
            **common,
            "kind": "sensor",
            "seconds": clock,
            "sensor": sensor,
            "unit": unit,
            "value": float(value),
        }


@pytest.fixture(scope="session")
def run_recipe() -> type[Recipe]:
    return Recipe


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Writes rows of some recipes to a file; two recipes of one run take turns."""

    def write(path: Path, *recipes: Recipe) -> Path:
        with path.open("w") as file:
            for row in itertools.chain.from_iterable(map(rows_of, recipes)):
                file.write(json.dumps(row) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def run_of() -> Callable[[Recipe], Run]:
    """The run that a recipe makes, without a file."""
    return lambda recipe: runs_of(Path("run.jsonl"), list(rows_of(recipe)))[0]
