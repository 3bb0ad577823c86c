"""What a checkpoint says: base, adapter and point encoder as one; files that cannot be trusted are refused."""

import json
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


# adapters


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """An adapter folder over the saved checkpoint; rank 4, alpha 8 unless told otherwise."""

    def make(
        pairs: Tensors | None = None,
        trained: Tensors | None = None,
        *,
        base: str | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        name = str(saved) if base is None else base
        content = {"peft_type": "LORA", "base_model_name_or_path": name, "r": 4, "lora_alpha": 8} | config
        (folder / "adapter_config.json").write_text(json.dumps(content))
        save_file(pairs or lora(QUERY, (6, 4)), folder / "adapter_model.safetensors")
        if trained is not None:
            torch.save(trained, folder / "non_lora_trainables.bin")
        return folder

    return make


def lora(name: str, shape: tuple[int, int], rank: int = 4, infix: str = "") -> Tensors:
    """The pair of an update, whole numbers."""
    generator = torch.Generator().manual_seed(rank)
    stem = f"base_model.model.{name.removesuffix('.weight')}"
    return {
        f"{stem}.lora_A{infix}.weight": torch.randint(-8, 8, (rank, shape[1]), generator=generator).bfloat16(),
        f"{stem}.lora_B{infix}.weight": torch.randint(-8, 8, (shape[0], rank), generator=generator).bfloat16(),
    }


def product(pairs: Tensors) -> Tensor:
    down, up = (pair.float() for _, pair in sorted(pairs.items()))
    return up @ down


@pytest.mark.parametrize("infix", ["", ".default"])
def test_lora_adds_alpha_over_rank_times_the_product(
    infix: str, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    pairs = lora(QUERY, (6, 4), infix=infix)
    merged = Checkpoint(adapter(pairs)).tensor(QUERY)
    assert same(merged, tensors[QUERY].float() + 2 * product(pairs))


def test_lora_merges_several_weights_and_leaves_the_others(adapter: Callable[..., Path], tensors: Tensors) -> None:
    first, second = lora(QUERY, (6, 4)), lora(DOWN, (4, 8))
    checkpoint = Checkpoint(adapter(first | second))
    assert same(checkpoint.tensor(QUERY), tensors[QUERY].float() + 2 * product(first))
    assert same(checkpoint.tensor(DOWN), tensors[DOWN].float() + 2 * product(second))
    assert checkpoint.dtype(QUERY) == torch.float32
    assert same(checkpoint.tensor(LATENTS), tensors[LATENTS])
    assert checkpoint.names() == sorted(tensors)


def test_rslora_divides_by_the_root_of_the_rank(adapter: Callable[..., Path], tensors: Tensors) -> None:
    pairs = lora(QUERY, (6, 4), rank=16)
    merged = Checkpoint(adapter(pairs, r=16, lora_alpha=8, use_rslora=True)).tensor(QUERY)
    assert same(merged, tensors[QUERY].float() + 2 * product(pairs))


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_trained_tensors_beside_an_adapter_replace_those_of_the_base(
    prefix: str, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    """Under the names that peft gives them, or under the model's own."""
    trained = {DOWN: tensors[DOWN].float() - 3, LATENTS: tensors[LATENTS].float() + 3}
    checkpoint = Checkpoint(adapter(trained={prefix + name: tensor for name, tensor in trained.items()}))
    assert checkpoint.names() == sorted(tensors)
    for name, expected in trained.items():
        assert same(checkpoint.tensor(name), expected)


def test_trained_tensors_may_all_lie_outside_the_language_model(adapter: Callable[..., Path], tensors: Tensors) -> None:
    """A run that trains the aligner alone: no name begins with `base_model.model.model.`."""
    expected = tensors[LATENTS].float() + 3
    checkpoint = Checkpoint(adapter(trained={f"base_model.model.{LATENTS}": expected}))
    assert checkpoint.names() == sorted(tensors)
    assert same(checkpoint.tensor(LATENTS), expected)


def test_base_may_be_a_path_relative_to_the_adapter(adapter: Callable[..., Path], tensors: Tensors) -> None:
    assert same(Checkpoint(adapter(base="../checkpoint")).tensor(LATENTS), tensors[LATENTS])


def test_base_may_be_given(adapter: Callable[..., Path], saved: Path, tensors: Tensors) -> None:
    folder = adapter(base="somebody/on-the-hub")
    checkpoint = Checkpoint(folder, base=saved)
    assert same(checkpoint.tensor(LATENTS), tensors[LATENTS])
    assert checkpoint.config == {"hidden_size": 4}


def test_base_of_a_whole_checkpoint_is_refused(saved: Path) -> None:
    with pytest.raises(BadInput, match=r"--base nope: .* has no adapter_config\.json, so nothing lies below it"):
        Checkpoint(saved, base=Path("nope"))


def test_base_that_is_not_here_is_asked_for(adapter: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=r"somebody/on-the-hub.*--base"):
        Checkpoint(adapter(base="somebody/on-the-hub"))


def test_files_of_the_adapter_win_over_those_of_the_base(adapter: Callable[..., Path], saved: Path) -> None:
    folder = adapter()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    (saved / "tokenizer.json").write_text("{}")
    checkpoint = Checkpoint(folder)
    assert checkpoint.config == {"hidden_size": 8}
    assert checkpoint.find("tokenizer.json") == saved / "tokenizer.json"


def test_digest_changes_with_the_adapter(adapter: Callable[..., Path]) -> None:
    before = Checkpoint(adapter()).digest()
    assert Checkpoint(adapter({name: pair * 2 for name, pair in lora(QUERY, (6, 4)).items()})).digest() != before


@pytest.mark.parametrize(
    "config",
    [{"use_dora": True}, {"fan_in_fan_out": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}}],
)
def test_adapter_that_computes_something_else_is_refused(config: dict[str, Any], adapter: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=next(iter(config))):
        Checkpoint(adapter(**config))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"r": None}, "needs the numbers r and lora_alpha"),
        ({"lora_alpha": "many"}, "needs the numbers r and lora_alpha"),
        ({"r": 0}, "r is 0, expected a positive rank"),
    ],
)
def test_adapter_without_usable_rank_and_alpha_is_refused(
    config: dict[str, Any], named: str, adapter: Callable[..., Path]
) -> None:
    with pytest.raises(BadInput, match=named):
        Checkpoint(adapter(**config))


@pytest.mark.parametrize(
    "pairs",
    [
        lora("model.layers.7.self_attn.q_proj.weight", (6, 4)),
        lora(QUERY, (4, 6)),
        dict(list(lora(QUERY, (6, 4)).items())[:1]),
        {"base_model.model.model.norm.weight": torch.ones(3)},
    ],
    ids=["no such weight", "other shape", "half a pair", "not a pair"],
)
def test_adapter_that_does_not_fit_its_base_is_refused(pairs: Tensors, adapter: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        Checkpoint(adapter(pairs))


def test_pair_whose_ranks_differ_is_refused(adapter: Callable[..., Path]) -> None:
    pairs = lora(QUERY, (6, 4))
    pairs = {name: pair[:3].clone() if "lora_A" in name else pair for name, pair in pairs.items()}
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        Checkpoint(adapter(pairs))


def test_adapter_without_its_weights_is_refused(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors is missing"):
        Checkpoint(folder)


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
