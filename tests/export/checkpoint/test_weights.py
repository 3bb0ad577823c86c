"""Every layout of weights that a trainer saves leads to the same tensors; damaged ones are refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
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


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been said so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.message for record in caplog.records]


# which of several files is read


@pytest.mark.parametrize("save", LAYOUTS)
def test_nothing_is_said_about_one_layout(
    save: Callable[..., None], folder: Path, tensors: Tensors, told: Callable[[], list[str]]
) -> None:
    save(folder, tensors)
    (folder / "training_args.bin").write_bytes(b"not weights")
    Checkpoint(folder)
    assert told() == []


@pytest.mark.parametrize("older", [save_shards, save_bin, save_bin_shards])
def test_one_file_is_read_before_all_others(
    older: Callable[..., None], saved: Path, tensors: Tensors, told: Callable[[], list[str]]
) -> None:
    older(saved, {name: tensor + 1 for name, tensor in tensors.items()})
    checkpoint = Checkpoint(saved)
    assert checkpoint.files == [saved / "model.safetensors"]
    assert torch.equal(checkpoint.tensor("latent_query.weight"), tensors["latent_query.weight"])
    assert len(told()) == 1
    assert "model.safetensors is read, as transformers does, and" in told()[0]


def test_index_without_its_shards_is_passed_over(saved: Path, tensors: Tensors, told: Callable[[], list[str]]) -> None:
    (saved / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-00001-of-00002.safetensors"}}')
    assert Checkpoint(saved).names() == sorted(tensors)
    assert "model.safetensors.index.json beside it not" in told()[0]


def test_shard_that_no_index_names_is_told(folder: Path, tensors: Tensors, told: Callable[[], list[str]]) -> None:
    save_shards(folder, tensors)
    save_file({"x": torch.ones(2)}, folder / "model-00003-of-00003.safetensors")
    assert Checkpoint(folder).names() == sorted(tensors)
    assert "model-00003-of-00003.safetensors beside it not" in told()[0]


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    file = folder / "model.safetensors.index.json"
    content = json.loads(file.read_text())
    change(content["weight_map"])
    file.write_text(json.dumps(content))


def test_tensor_of_a_shard_that_the_index_does_not_name_is_read_and_told(
    folder: Path, tensors: Tensors, told: Callable[[], list[str]]
) -> None:
    save_shards(folder, tensors)
    change_index(folder, lambda index: index.pop("latent_query.weight"))
    assert "latent_query.weight" in Checkpoint(folder)
    assert "does not name latent_query.weight (1 such tensors)" in told()[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update({"model.norm.weight": "model-00001-of-00002.safetensors"}),
        lambda index: index.update({"latent_query.weight": "model-00001-of-00002.safetensors"}),
    ],
    ids=["absent", "in the other shard"],
)
def test_index_that_contradicts_its_shards_is_refused(
    change: Callable[[dict[str, str]], object], folder: Path, tensors: Tensors
) -> None:
    save_shards(folder, tensors)
    change_index(folder, change)
    with pytest.raises(BadInput, match=r"says that model-00001-of-00002\.safetensors holds .*, which it does not"):
        Checkpoint(folder)


def test_index_that_leads_out_of_the_folder_is_refused(folder: Path, tensors: Tensors) -> None:
    save_shards(folder, tensors)
    change_index(folder, lambda index: index.update({"x": "../model.safetensors"}))
    with pytest.raises(BadInput, match=r"names \.\./model\.safetensors; expected a file beside the index"):
        Checkpoint(folder)


def test_tensor_in_two_shards_is_refused(folder: Path, tensors: Tensors) -> None:
    save_shards(folder, tensors)
    shard = folder / "model-00002-of-00002.safetensors"
    save_file({name: tensors[name] for name in list(tensors)[1:]}, shard)
    with pytest.raises(BadInput, match=rf"{list(tensors)[1]} lies in both model-00001-of-00002.* and {shard.name}"):
        Checkpoint(folder)


@pytest.mark.parametrize("count", [1, 2])
def test_shards_without_their_index_are_told(count: int, folder: Path, tensors: Tensors) -> None:
    for number in range(count):
        save_file(tensors, folder / f"model-{number + 1:05d}-of-{count:05d}.safetensors")
    with pytest.raises(
        BadInput, match=r"found model-00001-of-0000\d\.safetensors without the model\.safetensors\.index"
    ):
        Checkpoint(folder)


def test_states_of_zero_are_told(folder: Path) -> None:
    (folder / "global_step120").mkdir()
    with pytest.raises(BadInput, match=r"no weights; found global_step120.*zero_to_fp32\.py"):
        Checkpoint(folder)


@pytest.mark.parametrize("save", LAYOUTS)
def test_empty_tensors_of_zero_are_told(save: Callable[..., None], folder: Path, tensors: Tensors) -> None:
    save(folder, tensors | {"latent_query.weight": torch.empty(0)})
    with pytest.raises(BadInput, match=r"1 tensors are empty, latent_query\.weight \[0\].*ZeRO-3.*zero_to_fp32\.py"):
        Checkpoint(folder)


def test_case_of_a_stale_index(field_case: Callable[[str], Path], told: Callable[[], list[str]]) -> None:
    folder = field_case("04-stale-index/shards_there") / "checkpoint"
    expected = load_file(folder / "model.safetensors")
    halved = {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in expected.items()}
    save_file(halved, folder / "model-00001-of-00001.safetensors")
    checkpoint = Checkpoint(folder)
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in expected.items())
    assert "model.safetensors is read" in told()[0]


def test_case_of_a_shard_without_its_index(field_case: Callable[[str], Path]) -> None:
    folder = field_case("04-stale-index/shards_there") / "checkpoint"
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with pytest.raises(BadInput, match=r"rename a shard that is the only one to model\.safetensors"):
        Checkpoint(folder)
