"""Training of the small model: a few steps, stopped and taken up, to a checkpoint that exports and answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stllm_edge.benchmarks.demo import SETTINGS
from stllm_edge.benchmarks.training import answer, train
from stllm_edge.benchmarks.training.language import hidden_after
from stllm_edge.benchmarks.training.model import SMALL, SmallModel, low_rays
from stllm_edge.benchmarks.training.train import Steps
from stllm_edge.benchmarks.world.synth import Recipe, write_synth
from stllm_edge.export.model.aligner import encode_all
from stllm_edge.export.model.points import MapTensors
from stllm_edge.runtime import BadInput


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """The commands choose PyTorch's threads for their process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "rea"
    write_synth(folder, Recipe(3, 5, clips=1, questions=1, val_share=0.34), processes=1)
    return folder


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train.train(world, out, 0, Steps(2, 2, 2), blind=False)
    return out


def test_specialised_modules_compute_what_they_replace(rel_rms: Any) -> None:
    plain, special = SmallModel(seed=1).eval(), SmallModel(seed=1).eval()
    special.specialise()
    coords = torch.tensor([[0, 0, 0], [1, 0, 0], [4, 2, 1], [5, 5, 5]]).numpy().astype("int32")
    feats, maps = torch.rand(4, 3), MapTensors.build(coords)
    directions = torch.nn.functional.normalize(torch.randn(4, 3)).bfloat16().float()
    frames, text = torch.randn(2, SMALL.llm.width), torch.randn(3, SMALL.llm.width)
    with torch.inference_mode():
        assert rel_rms(special.points(feats, maps), plain.points(feats, maps)) < 3e-6
        points = plain.points(feats, maps)
        ours = special.aligner(points, low_rays(directions), frames, low_rays(directions[:2]), text)
        reference = plain.aligner(points, encode_all(directions), frames, encode_all(directions[:2]), text)
        assert rel_rms(ours, reference) < 3e-6


def test_a_shared_beginning_is_computed_once_with_the_same_result(rel_rms: Any) -> None:
    llm = SmallModel(seed=1).llm.eval()
    head, rest = torch.randn(1, 7, SMALL.llm.width), torch.randn(3, 5, SMALL.llm.width)
    with torch.inference_mode():
        whole = llm.hidden(torch.cat([head.expand(3, -1, -1), rest], dim=1))
        assert rel_rms(hidden_after(llm, head, rest), whole[:, 7:]) < 1e-6


def test_a_stopped_training_takes_up_and_ends_the_same(world: Path, trained: Path, tmp_path: Path) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_language", stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(world, tmp_path, 0, Steps(2, 2, 2), blind=False)
    assert {file.stem for file in (tmp_path / "state").iterdir()} == {"points", "vision"}
    train.train(world, tmp_path, 0, Steps(2, 2, 2), blind=False)
    ours, first = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (tmp_path, trained))
    assert ours.keys() == first.keys()
    assert all(torch.equal(ours[name], first[name]) for name in ours)


@pytest.mark.parametrize(
    ("seed", "steps", "words"),
    [(1, Steps(2, 2, 2), "another --seed or --rea"), (0, Steps(3, 2, 2), "belongs to a run of 2 steps, this has 3")],
)
def test_a_state_of_another_run_is_not_taken_up(
    seed: int, steps: Steps, words: str, world: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "state", tmp_path / "state")
    with pytest.raises(BadInput, match=words):
        train.train(world, tmp_path, seed, steps, blind=False)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train.main, ["--rea", "nope", "--out", "out"]),
        (answer.main, ["--ckpt", "nope", "--rea", "nope.json", "--root", ".", "--out", "out"]),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    main: Any, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["training", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "nope" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_exports_and_both_forms_answer(
    world: Path, trained: Path, stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    options = [*SETTINGS, "--quant", "F32"]
    result = stllm("export", "all", "--ckpt", trained / "checkpoint", "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    places = ["--rea", world / "val.json", "--root", world]
    run = stllm("bench", "rea", "run", "--bundle", bundle, *places, "--out", tmp_path / "run", "-n", 32)
    assert run.exit_code == 0, run.output
    arguments = ["answer", "--ckpt", trained / "checkpoint", *places, "--out", tmp_path / "pytorch"]
    monkeypatch.setattr("sys.argv", list(map(str, arguments)))
    answer.main()
    compared = stllm(
        "bench", "rea", "compare", tmp_path / "run/results.jsonl", tmp_path / "pytorch/results.jsonl", "--json"
    )
    assert json.loads(compared.stdout)["questions"] == 5
