"""The trained checkpoint that the package carries: exported, it answers about rooms that it has never seen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.checkpoints import TRAINED
from stllm_edge.benchmarks.demo import SETTINGS
from stllm_edge.benchmarks.rea.dataset import ReaDataset
from stllm_edge.benchmarks.rea.results import read_results
from stllm_edge.benchmarks.scoring.compare import compare
from stllm_edge.benchmarks.training import answer
from stllm_edge.benchmarks.world.picture import draw_clip
from stllm_edge.benchmarks.world.synth import Recipe, write_synth

ROOMS, UNSEEN_SEED = 5, 4_000_000
NEEDS_CLOUD = ("relative_direction", "relative_distance", "action_planning")
NEEDS_CLIP = ("find_my_item", "furniture_affordance")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms") / "rea"
    write_synth(folder, Recipe(ROOMS, UNSEEN_SEED, clips=2, questions=1, val_share=1.0), processes=2)
    return folder


@pytest.fixture(scope="module")
def bundle(stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "bundle"
    options = [*SETTINGS, "--quant", "F32", "--quant", "Q8_0"]
    result = stllm("export", "all", "--ckpt", TRAINED, "--out", out, "--no-verify", *options)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def results(rooms: Path, bundle: Path, stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Answers of the bundle: as it is, quantised, and with what belongs to another room."""
    out = tmp_path_factory.mktemp("answers")
    runs = {
        "F32": ["--quant", "F32"],
        "Q8_0": ["--quant", "Q8_0"],
        "cloud": ["--quant", "Q8_0", "--swap", "cloud"],
        "clip": ["--quant", "Q8_0", "--swap", "clip"],
    }
    places = ["--bundle", bundle, "--rea", rooms / "val.json", "--root", rooms, "--threads", 1, "-n", 32]
    for name, options in runs.items():
        run = stllm("bench", "rea", "run", *places, *options, "--out", out / name)
        assert run.exit_code == 0, run.output
    return {name: out / name / "results.jsonl" for name in runs}


def share_right(results: Path, types: tuple[str, ...]) -> float:
    _, records = read_results(results)
    asked = [record for record in records if record["question_type"] in types]
    assert len(asked) == 2 * ROOMS * len(types)
    return sum(record["pred"] == record["gt"] for record in asked) / len(asked)


def test_it_is_small_and_has_a_card() -> None:
    assert sum(file.stat().st_size for file in TRAINED.rglob("*")) < 12e6
    card = (TRAINED / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("Data", "Seed", "Training", "Accuracy"))


@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_it_answers_about_unseen_rooms(quant: str, results: Mapping[str, Path]) -> None:
    assert share_right(results[quant], NEEDS_CLOUD + NEEDS_CLIP) > 0.75


def test_it_looks_at_the_point_cloud(results: Mapping[str, Path]) -> None:
    assert share_right(results["cloud"], NEEDS_CLOUD) < share_right(results["Q8_0"], NEEDS_CLOUD) - 0.2


def test_it_looks_at_the_clip(results: Mapping[str, Path]) -> None:
    assert share_right(results["clip"], NEEDS_CLIP) < share_right(results["Q8_0"], NEEDS_CLIP) - 0.2


def test_the_bundle_answers_as_the_pytorch_model(
    rooms: Path, results: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--rea", rooms / "val.json", "--root", rooms]
    arguments = ["answer", "--ckpt", TRAINED, *places, "--out", tmp_path]
    monkeypatch.setattr("sys.argv", list(map(str, arguments)))
    answer.main()
    assert compare(results["F32"], tmp_path / "results.jsonl").identical > 98
    assert compare(results["Q8_0"], tmp_path / "results.jsonl").identical > 93


def test_a_picture_shows_room_path_and_item(rooms: Path, tmp_path: Path) -> None:
    from PIL import Image

    sample = ReaDataset(rooms / "val.json", rooms).samples[0]
    truth = rooms / "world" / f"{sample.scene_id}.json"
    draw_clip(sample, truth, tmp_path / "room.png")
    size = json.loads(truth.read_text())["size"]
    with Image.open(tmp_path / "room.png") as picture:
        assert picture.width == pytest.approx(90 * size[0] + 48, abs=1)
        assert len(picture.getcolors(2**24) or ()) > 50
