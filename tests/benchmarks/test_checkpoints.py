"""Generated checkpoints: the same bytes for the same seed, any number of layers, complete for the exporter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stllm_edge.benchmarks import checkpoints
from stllm_edge.benchmarks.checkpoints import TINY, TRAINED, write_checkpoint
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_seed_decides_every_byte(tiny_checkpoint: Path, tmp_path: Path) -> None:
    again, other = write_checkpoint(tmp_path / "again"), write_checkpoint(tmp_path / "other", seed=1)
    assert content(again) == content(tiny_checkpoint)
    differing = {name for name, data in content(other).items() if data != content(again)[name]}
    assert differing == {"model-00001-of-00001.safetensors"}


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_may_be_told(layers: int, stllm: Any, tmp_path: Path) -> None:
    result = stllm("bench", "checkpoint", "--out", tmp_path / "c", "--layers", layers, "--seed", 7)
    assert result.exit_code == 0, result.output
    inventory = take_inventory(Checkpoint(tmp_path / "c"))
    inventory.require_complete(tmp_path / "c")
    assert inventory.geometry == replace(TINY, llm=replace(TINY.llm, layers=layers))
    assert inventory.unused


def test_the_trained_one_is_copied(stllm: Any, tmp_path: Path) -> None:
    result = stllm("bench", "checkpoint", "--size", "small", "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "c") == content(TRAINED)
    take_inventory(Checkpoint(tmp_path / "c")).require_complete(tmp_path / "c")


@pytest.mark.parametrize("option", ["--layers", "--seed"])
def test_the_trained_one_is_as_it_is(option: str, stllm: Any, tmp_path: Path) -> None:
    result = stllm("bench", "checkpoint", "--size", "small", "--out", tmp_path / "c", option, 3)
    assert result.exit_code == 2
    assert "--layers and --seed are for random weights" in result.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("size", ["small", "tiny"])
def test_no_folder_can_be_made(size: str, stllm: Any, tmp_path: Path) -> None:
    (tmp_path / "c").touch()
    result = stllm("bench", "checkpoint", "--size", size, "--out", tmp_path / "c/below")
    assert result.exit_code == 2
    assert "no folder can be made there (Not a directory)" in result.stderr


@pytest.mark.parametrize("options", [("checkpoint", "--size", "small"), ("checkpoint",), ("room", "--voxels", 9)])
def test_nothing_is_mixed_with_what_is_there(options: tuple[object, ...], stllm: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    result = stllm("bench", *options, "--out", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"--out {tmp_path}: exists and is not an empty folder; name a new one" in result.stderr
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("checkpoint", "--layers", -1), "--layers -1: expected at least 1"),
        (("checkpoint", "--seed", -1), "--seed -1: expected at least 0"),
        (("room", "--voxels", 0), "--voxels 0: expected at least 1"),
        (("room", "--frames", 0), "--frames 0: expected at least 1"),
        (("room", "--seed", -1), "--seed -1: expected at least 0"),
        (("encoder", "vision", "--frames", 0), "--frames 0: expected at least 1"),
        (("encoder", "maps", "--voxels", -1), "--voxels -1: expected at least 1"),
        (("encoder", "maps", "--runs", 0), "--runs 0: expected at least 1"),
    ],
)
def test_numbers_that_cannot_be(arguments: tuple[object, ...], words: str, stllm: Any, tmp_path: Path) -> None:
    out = () if arguments[0] == "encoder" else ("--out", tmp_path / "out")
    result = stllm("bench", *arguments, *out)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_other_layers_do_not_change_the_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    ours = load_file(write_checkpoint(tmp_path / "c", layers=1) / "model-00001-of-00001.safetensors")
    theirs = load_file(tiny_checkpoint / "model-00001-of-00001.safetensors")
    assert set(ours) < set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_large_checkpoints_are_cut_into_shards(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 2**20)
    monkeypatch.setattr(checkpoints, "VALUES_AT_ONCE", 2**10)
    folder = write_checkpoint(tmp_path / "c")
    assert len(list(folder.glob("*.safetensors"))) > 2
    sharded, whole = Checkpoint(folder), Checkpoint(tiny_checkpoint)
    assert sharded.names() == whole.names()
    for name in whole.names():
        assert sharded.tensor(name).dtype == whole.tensor(name).dtype
        assert torch.equal(sharded.tensor(name), whole.tensor(name)), name


def test_weights_are_ordinary_numbers(tiny_checkpoint: Path) -> None:
    for name, tensor in load_file(tiny_checkpoint / "model-00001-of-00001.safetensors").items():
        values = tensor.float().numpy()
        assert np.isfinite(values).all(), name
        assert np.abs(values).max() < 10, name
        assert not name.endswith("running_var") or values.min() > 0, name
