"""What a checkpoint says: base, adapter and point encoder as one; files that cannot be trusted are refused."""

import os
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
QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
LATENTS = "latent_query.weight"
POINTS = "pcd_encoder.net3d.final.kernel"


def same(ours: Tensor, expected: Tensor) -> bool:
    return ours.dtype == expected.dtype and torch.equal(ours, expected)


def test_unknown_name_is_reported(saved: Path) -> None:
    with pytest.raises(BadInput, match=r"model\.norm\.weight is missing"):
        Checkpoint(saved).tensor("model.norm.weight")


def test_digest_is_the_same_for_the_same_files_elsewhere(saved: Path, tensors: Tensors, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((saved / "config.json").read_bytes())
    save_file(tensors, copy / "model.safetensors")
    assert Checkpoint(saved).digest() == Checkpoint(copy).digest()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
def test_digest_changes_with_each_file(file: str, saved: Path, tensors: Tensors) -> None:
    before = Checkpoint(saved).digest()
    if file.endswith(".json"):
        (saved / file).write_text('{"hidden_size": 5}')
    else:
        save_file(tensors | {QUERY: tensors[QUERY] + 1}, saved / "model.safetensors")
    assert Checkpoint(saved).digest() != before


# OpenScene's point encoder


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("key", ["state_dict", None])
def test_openscene_weights_replace_the_point_encoder(
    prefix: str, key: str | None, saved: Path, tensors: Tensors, tmp_path: Path
) -> None:
    stored = {f"{prefix}net3d.final.kernel".replace("net3d.", ""): tensors[POINTS] - 1}
    torch.save({key: stored, "epoch": 3} if key else stored, tmp_path / "openseg.pth.tar")
    checkpoint = Checkpoint(saved, point_encoder=tmp_path / "openseg.pth.tar")
    assert same(checkpoint.tensor(POINTS), tensors[POINTS] - 1)
    assert same(checkpoint.tensor(QUERY), tensors[QUERY])
    assert checkpoint.names() == sorted(tensors)
    assert checkpoint.digest() != Checkpoint(saved).digest()


@pytest.mark.parametrize("prefix", ["module.net3d.", "net3d."])
def test_openscene_weights_may_name_the_network(prefix: str, saved: Path, tensors: Tensors, tmp_path: Path) -> None:
    """OpenScene's own module holds the network as `net3d`."""
    torch.save({"state_dict": {f"{prefix}final.kernel": tensors[POINTS] - 1}}, tmp_path / "openseg.pth.tar")
    checkpoint = Checkpoint(saved, point_encoder=tmp_path / "openseg.pth.tar")
    assert same(checkpoint.tensor(POINTS), tensors[POINTS] - 1)
    assert checkpoint.names() == sorted(tensors)


def test_missing_point_encoder_is_reported(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"openseg\.pth\.tar is missing"):
        Checkpoint(saved, point_encoder=tmp_path / "openseg.pth.tar")


def test_point_encoder_that_is_not_tensors_is_refused(saved: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {"final.kernel": 3}}, tmp_path / "openseg.pth.tar")
    with pytest.raises(BadInput, match="not a file of named tensors"):
        Checkpoint(saved, point_encoder=tmp_path / "openseg.pth.tar")


# what is refused


class Malicious:
    """Pickles into a call that creates a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "non_lora_trainables.bin", "openseg.pth.tar"])
def test_pickled_objects_are_refused_and_never_run(
    file: str, new_format: bool, folder: Path, saved: Path, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    place = {"pytorch_model.bin": folder, "non_lora_trainables.bin": adapter(), "openseg.pth.tar": tmp_path}[file]
    torch.save({"x": Malicious(marker)}, place / file, _use_new_zipfile_serialization=new_format)
    if file == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=rf"{file}: holds pickled objects"):
        Checkpoint(
            adapter() if place.name == "adapter" else folder,
            point_encoder=place / file if file.endswith(".tar") else None,
        )
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe{}"])
def test_unreadable_config_is_refused(content: bytes, saved: Path) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"config\.json"):
        Checkpoint(saved)


def test_missing_config_is_reported(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        Checkpoint(saved)


def test_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a directory"):
        Checkpoint(tmp_path / "absent")
