"""Sizes come from the checkpoint; every tensor is needed, known to be unused, or reported."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stllm_edge.benchmarks.checkpoints import FULL, TINY, write_checkpoint
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import Inventory, take_inventory
from stllm_edge.runtime.bundle.geometry import Geometry
from stllm_edge.runtime.errors import BadInput
from torch import Tensor

Tensors = dict[str, Tensor]
PUBLIC_TOWER = "google/siglip-so400m-patch14-384"


def inventory_of(path: Path) -> Inventory:
    return take_inventory(Checkpoint(path))


def refusal(path: Path) -> str:
    """The message with which a checkpoint is refused."""
    checkpoint = Checkpoint(path)
    with pytest.raises(BadInput) as caught:
        take_inventory(checkpoint).require_complete(path)
    return str(caught.value)


def with_llm(**sizes: Any) -> Geometry:
    return replace(TINY, llm=replace(TINY.llm, **sizes))


def test_sizes_are_those_that_the_checkpoint_was_made_with(tiny_checkpoint: Path) -> None:
    inventory = inventory_of(tiny_checkpoint)
    assert inventory.geometry == TINY
    assert inventory.missing == inventory.unknown == inventory.misfits == []
    inventory.require_complete(tiny_checkpoint)


@pytest.mark.parametrize(
    "geometry",
    [
        with_llm(tied=True),
        with_llm(heads=8, kv_heads=1, layers=1, rope_base=1e4, rms_eps=1e-5, context=512),
        replace(TINY, vision=replace(TINY.vision, image_size=70, grid=3, layers=3, heads=4)),
        replace(TINY, vision=replace(TINY.vision, image_size=45, patch_size=15, grid=2)),
        replace(TINY, aligner=replace(TINY.aligner, layers=4, cross_layers=(1, 3), latents=5, ffn=96)),
        replace(TINY, points=replace(TINY.points, blocks=(2, 3, 1, 1, 2, 1, 1, 1), upsampled=(16, 8, 12, 4))),
    ],
    ids=["tied", "one key-value head", "odd grid", "other patches", "other cross layers", "other u-net"],
)
def test_other_sizes_are_read_back(geometry: Geometry, tmp_path: Path) -> None:
    inventory = inventory_of(write_checkpoint(tmp_path / "checkpoint", geometry))
    assert inventory.geometry == geometry
    inventory.require_complete(tmp_path)


def test_unused_tensors_are_told_from_used_ones(tiny_checkpoint: Path) -> None:
    inventory = inventory_of(tiny_checkpoint)
    assert "model.vision_tower.vision_tower.vision_model.post_layernorm.weight" in inventory.unused
    assert "qformer.encoder.layer.1.intermediate.dense.weight" in inventory.unused
    assert "qformer.encoder.layer.1.output.dense.weight" in inventory.unused
    used = [name for names in inventory.used.values() for name in names]
    assert sorted(used + inventory.unused) == Checkpoint(tiny_checkpoint).names()
    for kept in ("attention.output.dense", "crossattention.output.dense", "intermediate_query.dense"):
        assert f"qformer.encoder.layer.0.{kept}.weight" in used


@pytest.mark.parametrize(
    "name",
    [
        "qformer.embeddings.word_embeddings.weight",
        "qformer.embeddings.position_embeddings.weight",
        "qformer.encoder.layer.1.output.LayerNorm.bias",
        "qformer.encoder.layer.0.intermediate.dense.bias",
        "mlp_module.0.weight",
        "model.vision_tower.vision_tower.vision_model.post_layernorm.bias",
        "pcd_encoder.net3d.bn0.bn.num_batches_tracked",
        "pcd_encoder.net3d.block8.1.norm2.bn.num_batches_tracked",
    ],
)
def test_tensors_that_the_trainer_saves_for_nothing_are_accepted(name: str, alter: Callable[..., Path]) -> None:
    path = alter(lambda tensors: tensors.update({name: torch.zeros(3)}))
    inventory = inventory_of(path)
    assert name in inventory.unused
    inventory.require_complete(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.image_newline",
        "model.norm.weight",
        "lm_head.weight",
        "model.mm_projector.2.bias",
        "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc2.bias",
        "pcd_encoder.net3d.bntr6.bn.running_mean",
        "pcd_encoder.net3d.final.kernel",
        "pcd_encoder.net3d.block3.0.conv1.kernel",
        "latent_query.weight",
        "qformer.embeddings.layernorm.weight",
        "qformer.encoder.layer.2.crossattention.output.LayerNorm.bias",
        "pcd_ray_encoder.pcd_ray_projection_to_qformer.weight",
    ],
)
def test_missing_tensor_is_named(name: str, alter: Callable[..., Path]) -> None:
    assert name in refusal(alter(lambda tensors: tensors.pop(name)))


def test_all_missing_tensors_are_listed(alter: Callable[..., Path]) -> None:
    names = ["model.norm.weight", "model.image_newline", "lm_head.weight"]
    path = alter(lambda tensors: [tensors.pop(name) for name in names])
    assert inventory_of(path).missing == sorted(names)
    assert f"3 missing tensors: {', '.join(sorted(names))}" in refusal(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_norm.weight",
        "model.vision_resampler.weight",
        "qformer.encoder.layer.0.attention.attention.extra.weight",
        "detector.weight",
        "pcd_encoder.net3d.block1.0.conv3.kernel",
    ],
)
def test_unknown_tensor_is_named(name: str, alter: Callable[..., Path]) -> None:
    path = alter(lambda tensors: tensors.update({name: torch.zeros(3)}))
    assert inventory_of(path).unknown == [name]
    assert f"1 unknown tensor: {name}" in refusal(path)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"hidden_size": 128}, "model.embed_tokens.weight"),
        ({"intermediate_size": 384}, "model.layers.0.mlp.up_proj.weight"),
        ({"vocab_size": 1025}, "lm_head.weight"),
        ({"num_key_value_heads": 4}, "model.layers.0.self_attn.k_proj.weight"),
        ({"num_hidden_layers": 3}, "model.layers.2.mlp.up_proj.weight"),
        ({"num_hidden_layers": 1}, "model.layers.1.mlp.up_proj.weight"),
        ({"num_attention_heads": 3}, "3 attention heads"),
        ({"num_key_value_heads": 3}, "3 key-value heads"),
        ({"hidden_size": "256"}, "hidden_size is '256'"),
        ({"hidden_size": ...}, "hidden_size is None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "config.json states 1000000000 layers, the weights hold 2"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"rope_theta": "large"}, "rope_theta"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"mm_projector_type": "linear"}, "mm_projector_type"),
        ({"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode"),
        ({"mm_newline_position": "one_token"}, "mm_newline_position"),
    ],
)
def test_config_that_disagrees_with_the_model_is_refused(
    config: dict[str, Any], named: str, alter: Callable[..., Path]
) -> None:
    assert named in refusal(alter(config=config))


@pytest.mark.parametrize("change", [0.0, 0.02])
def test_stored_output_matrix_counts_unless_it_is_the_embedding(
    change: float, alter: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    def copy(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["lm_head.weight"][1000, 3] += change

    path = alter(copy, config={"tie_word_embeddings": True})
    with caplog.at_level(logging.WARNING):
        inventory = inventory_of(path)
    assert inventory.geometry.llm.tied == (change == 0)
    assert ("lm_head.weight" in inventory.unused) == (change == 0)
    assert ["lm_head.weight is not the embedding" in record.message for record in caplog.records] == [True] * (
        change > 0
    )


def test_disagreement_tells_both_shapes(alter: Callable[..., Path]) -> None:
    message = refusal(alter(config={"vocab_size": 2000}))
    assert "config.json disagrees with the weights" in message
    assert "lm_head.weight is [1024, 256], expected [2000, 256]" in message


@pytest.mark.parametrize(
    ("tower", "named"),
    [
        ({"image_size": 70}, "position_embedding"),
        ({"patch_size": 7}, "patch_embedding"),
        ({"hidden_size": 96}, "fc1.weight"),
        ({"num_hidden_layers": 4}, r"layers\.2\."),
        ({"num_hidden_layers": 2}, r"layers\.1\."),
        ({"num_attention_heads": 3}, "3"),
        ({"patch_size": 0}, "vision_tower"),
        ({"image_size": ...}, "image_size"),
        ({"hidden_size": "wide"}, "wide"),
    ],
)
def test_tower_config_that_disagrees_with_the_tower_is_refused(
    tower: dict[str, Any], named: str, alter: Callable[..., Path]
) -> None:
    assert re.search(named, refusal(alter(tower=tower)))


def test_tower_config_may_be_the_vision_part_of_a_whole_siglip(
    alter: Callable[..., Path], tiny_checkpoint: Path
) -> None:
    vision = json.loads((tiny_checkpoint / "vision_tower/config.json").read_text())
    whole = dict.fromkeys(vision, ...) | {"vision_config": vision, "model_type": "siglip"}
    assert inventory_of(alter(tower=whole)).geometry == TINY


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14-336", "", "absent"])
def test_unknown_tower_is_named_with_what_is_known(name: str, alter: Callable[..., Path]) -> None:
    message = refusal(alter(config={"mm_vision_tower": name}))
    assert repr(name) in message
    assert PUBLIC_TOWER in message


def test_public_tower_stands_for_its_published_sizes(alter: Callable[..., Path]) -> None:
    path = alter(config={"mm_vision_tower": PUBLIC_TOWER})
    inventory = inventory_of(path)
    assert inventory.geometry.vision == FULL.vision
    assert any("patch_embedding" in misfit for misfit in inventory.misfits)


@pytest.mark.parametrize(("stride", "grid"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_pooled_grid_is_the_patch_grid_over_the_stride_rounded_up(
    stride: int, grid: int, alter: Callable[..., Path]
) -> None:
    assert inventory_of(alter(config={"mm_spatial_pool_stride": stride})).geometry.vision.grid == grid


@pytest.mark.parametrize(
    "name",
    [
        "latent_query.weight",
        "pcd_encoder.net3d.final.kernel",
        "pcd_encoder.net3d.conv0p1s1.kernel",
        "pcd_encoder.net3d.block2.0.conv1.kernel",
        "qformer.encoder.layer.0.crossattention.attention.key.weight",
    ],
)
def test_tensor_with_another_number_of_dimensions_is_named(name: str, alter: Callable[..., Path]) -> None:
    """Sizes are read from these tensors, so that a wrong one cannot wait for the comparison of shapes."""
    assert name in refusal(alter(lambda tensors: tensors.update({name: tensors[name].flatten()})))


def test_point_features_of_another_width_than_the_aligner_takes_are_refused(alter: Callable[..., Path]) -> None:
    """OpenScene publishes encoders of 512 and of 768 features under the same names."""
    name = "pcd_encoder.net3d.final.kernel"
    message = refusal(alter(lambda tensors: tensors.update({name: torch.cat([tensors[name]] * 2, dim=1)})))
    assert "point features are 256 wide, the Q-Former reads 128" in message


def test_qformer_whose_width_is_no_multiple_of_its_head_width_is_refused(alter: Callable[..., Path]) -> None:
    def narrow(tensors: Tensors) -> None:
        tensors["latent_query.weight"] = tensors["latent_query.weight"][:, :100]

    assert "divisible by 64" in refusal(alter(narrow))


def test_qformer_without_cross_attention_is_refused(alter: Callable[..., Path]) -> None:
    def blind(tensors: Tensors) -> None:
        for name in [name for name in tensors if "crossattention" in name]:
            del tensors[name]

    assert "cross-attention" in refusal(alter(blind))
