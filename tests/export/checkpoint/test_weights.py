"""Every layout of weights that a trainer saves leads to the same tensors; damaged ones are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.runtime.errors import BadInput
from torch import Tensor

Tensors = dict[str, Tensor]


def save_single(folder: Path, tensors: Tensors) -> None:
    save_file(tensors, folder / "model.safetensors")


def save_bin(folder: Path, tensors: Tensors) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")


def save_old_bin(folder: Path, tensors: Tensors) -> None:
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_shards(folder: Path, tensors: Tensors) -> None:
    write_shards(folder, tensors, "model", ".safetensors", save_file)


def save_bin_shards(folder: Path, tensors: Tensors) -> None:
    write_shards(folder, tensors, "pytorch_model", ".bin", torch.save)


def write_shards(folder: Path, tensors: Tensors, stem: str, suffix: str, save: Callable[..., Any]) -> None:
    index = {}
    for number, half in enumerate((list(tensors)[:2], list(tensors)[2:]), start=1):
        name = f"{stem}-{number:05d}-of-00002{suffix}"
        save({key: tensors[key] for key in half}, folder / name)
        index |= dict.fromkeys(half, name)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(content))


LAYOUTS = [save_single, save_bin, save_old_bin, save_shards, save_bin_shards]


@pytest.mark.parametrize("save", LAYOUTS)
def test_layout_gives_the_stored_tensors(save: Callable[..., None], folder: Path, tensors: Tensors) -> None:
    save(folder, tensors)
    checkpoint = Checkpoint(folder)
    assert checkpoint.names() == sorted(tensors)
    assert checkpoint.config == {"hidden_size": 4}
    for name, expected in tensors.items():
        assert name in checkpoint
        assert checkpoint.shape(name) == tuple(expected.shape)
        assert checkpoint.dtype(name) == expected.dtype
        torch.testing.assert_close(checkpoint.tensor(name), expected, rtol=0, atol=0)


def test_safetensors_win_over_pytorch_files(saved: Path, tensors: Tensors) -> None:
    save_bin(saved, {name: tensor + 1 for name, tensor in tensors.items()})
    for name, expected in tensors.items():
        assert torch.equal(Checkpoint(saved).tensor(name), expected)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_stored_type_is_kept(dtype: torch.dtype, folder: Path) -> None:
    save_single(folder, {"x": torch.tensor([[0, 1], [1, 0]]).to(dtype)})
    checkpoint = Checkpoint(folder)
    assert checkpoint.dtype("x") == checkpoint.tensor("x").dtype == dtype


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("save", [save_single, save_bin, save_old_bin])
def test_truncated_weights_are_refused(save: Callable[..., None], share: float, folder: Path, tensors: Tensors) -> None:
    save(folder, tensors)
    file = next(path for path in folder.iterdir() if path.name != "config.json")
    cut(file, share)
    with pytest.raises(BadInput, match=rf"{file.name}: truncated or damaged"):
        Checkpoint(folder)


@pytest.mark.parametrize("save", [save_shards, save_bin_shards])
def test_missing_shard_is_named(save: Callable[..., None], folder: Path, tensors: Tensors) -> None:
    save(folder, tensors)
    shard = next(folder.glob("*-00002-of-00002*"))
    shard.unlink()
    with pytest.raises(BadInput, match=f"{shard.name} is missing"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"x": 3}}']
)
def test_unusable_index_is_refused(content: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadInput, match=r"model\.safetensors\.index\.json"):
        Checkpoint(folder)


def test_folder_without_weights_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="no weights"):
        Checkpoint(folder)


def test_list_of_tensors_is_refused(folder: Path) -> None:
    torch.save([torch.ones(2)], folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="not a file of named tensors"):
        Checkpoint(folder)
