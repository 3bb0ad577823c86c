"""Positions turn as they do in transformers on the same files, or are refused with the key that scales them."""

import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.checkpoint.rope import read_rope_base
from stllm_edge.export.model.parts import load_part
from stllm_edge.runtime.errors import BadInput
from transformers import Qwen2Config, Qwen2ForCausalLM

SCALED: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 2.0},
    {"factor": 4.0, "rope_type": "yarn", "original_max_position_embeddings": 32768},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
    {"rope_type": "longrope", "short_factor": [1.0]},
    {"type": "linear", "factor": 2.0},
    {"type": "mrope", "mrope_section": [16, 24, 24]},
    {"rope_type": "default", "factor": 2.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
]


@pytest.mark.parametrize("rope", SCALED)
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_scaled_positions_are_refused_with_their_key(key: str, rope: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=rf"config\.json: {key}: \w+ is"):
        read_rope_base("config.json", {"rope_theta": 1e6, key: {"rope_theta": 1e6} | rope})


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000}},
        {"rope_parameters": {"rope_theta": 1e4, "type": "default", "partial_rotary_factor": 1.0}, "rope_theta": 10000},
        {"rope_parameters": None, "rope_scaling": None, "rope_theta": 5000},
        {"rope_parameters": {}, "rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 1e4}},
    ],
)
def test_base_of_positions_is_the_one_that_transformers_reads(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        base = read_rope_base("config.json", config)
    assert base == transformers_base(config)
    assert not caplog.records


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "has no rope_theta; 10000 is taken"),
        ({"rope_parameters": {"rope_type": "default"}}, "has no rope_theta; 10000 is taken"),
        (
            {"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}},
            "rope_parameters.rope_theta is 10000, rope_theta 1e+06; the former",
        ),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "default", "rope_theta": 2e4}},
            "rope_scaling.rope_theta is 20000, rope_theta 1e+06",
        ),
    ],
)
def test_base_that_is_missing_or_stated_twice_is_the_one_of_transformers_and_told(
    config: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        base = read_rope_base("config.json", config)
    assert base == transformers_base(config)
    assert [words in record.message for record in caplog.records] == [True]


def transformers_base(config: dict[str, Any]) -> float:
    return float(Qwen2Config.from_dict(copy.deepcopy(config)).rope_parameters["rope_theta"])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"rope_parameters": {"rope_theta": "10000"}}, "rope_parameters.rope_theta is '10000'"),
        ({"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta is None"),
        ({"rope_theta": None}, "rope_theta is None"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rope_parameters": [1]}, "rope_parameters is [1]"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "default"}}, "rope_scaling and rope_para"),
    ],
)
def test_base_that_is_no_number_is_refused(config: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=re.escape(named)):
        read_rope_base("config.json", config)


def test_base_in_rope_parameters_gives_the_logits_of_transformers(alter: Callable[..., Path]) -> None:
    path = alter(config={"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}, "rope_theta": ...})
    assert relative_error(path) < 1e-5


def test_case_of_a_base_in_rope_parameters(field_case: Callable[[str], Path]) -> None:
    folder = field_case("03-transformers5-rope/theta") / "checkpoint"
    assert take_inventory(Checkpoint(folder)).geometry.llm.rope_base == 1e4
    assert relative_error(folder) < 1e-5


def test_case_of_an_output_matrix_that_is_not_tied(field_case: Callable[[str], Path]) -> None:
    folder = field_case("03-transformers5-rope/theta") / "checkpoint"
    tensors = load_file(folder / "model.safetensors")
    noise = 0.02 * torch.randn(tensors["model.embed_tokens.weight"].shape)
    tensors["lm_head.weight"] = (tensors["model.embed_tokens.weight"] + noise).bfloat16()
    save_file(tensors, folder / "model.safetensors")
    assert relative_error(folder) < 1e-5


def relative_error(path: Path) -> float:
    """Of the logits after a few ids, against transformers on the same folder."""
    checkpoint = Checkpoint(path)
    inventory = take_inventory(checkpoint)
    names = {name: checkpoint.tensor(name).float() for name in inventory.used["llm"]}
    reference = Qwen2ForCausalLM(Qwen2Config.from_dict(checkpoint.config)).eval()
    if inventory.geometry.llm.tied:
        names["lm_head.weight"] = names["model.embed_tokens.weight"]
    else:
        reference.lm_head.weight = torch.nn.Parameter(torch.empty_like(names["lm_head.weight"]))
    reference.load_state_dict(names)
    ids = torch.arange(3, 63)[None]
    with torch.inference_mode():
        model = load_part(checkpoint, inventory, "llm")
        ours, theirs = model(model.model["embed_tokens"](ids)), reference(ids).logits[:, -1]
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))
