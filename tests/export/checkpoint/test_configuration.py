"""Every key of a configuration is known, or refused by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.export.checkpoint import configuration
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.configuration import CONFIG_KEYS, GENERATION_KEYS, TOWER_KEYS, Keys
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.runtime.errors import BadInput
from transformers import GenerationConfig, Qwen2Config, SiglipVisionConfig

RECIPE = Path(__file__).resolve().parents[2] / "data/recipe/files"
TABLES = {name: keys for name, keys in vars(configuration).items() if isinstance(keys, Keys)}


def known(keys: Keys) -> list[str]:
    return [*keys.read.split(), *keys.held, *keys.told, *(key for names in keys.idle.values() for key in names.split())]


@pytest.mark.parametrize("keys", TABLES.values(), ids=TABLES)
def test_no_key_has_two_meanings(keys: Keys) -> None:
    names = known(keys)
    assert sorted(names) == sorted(set(names))
    assert all(reason.strip() for reason in keys.idle)


@pytest.mark.parametrize(
    ("keys", "written"),
    [
        (CONFIG_KEYS, Qwen2Config(num_hidden_layers=2).to_dict()),
        (TOWER_KEYS, SiglipVisionConfig().to_dict()),
        (GENERATION_KEYS, GenerationConfig(eos_token_id=1, do_sample=True, temperature=0.7, top_k=20).to_dict()),
    ],
    ids=["config", "tower", "generation"],
)
def test_what_transformers_writes_is_known(keys: Keys, written: dict[str, Any]) -> None:
    keys.check("file", written)
    assert {key for key in written if not key.startswith("_")} <= set(known(keys))


def test_what_the_trainer_writes_is_known() -> None:
    CONFIG_KEYS.check("config.json", json.loads((RECIPE / "config.json").read_text()))
    GENERATION_KEYS.check("generation_config.json", json.loads((RECIPE / "generation_config.json").read_text()))


@pytest.mark.parametrize(
    "config",
    [
        {"image_aspect_ratio": "anyres", "pcd_n_points": 5, "use_height": False, "max_window_layers": 1},
        {"_name_or_path": "somewhere", "something_new": None, "dtype": "bfloat16"},
        {"head_dim": 64, "layer_types": ["full_attention"] * 2, "attention_dropout": 0.1},
        {"mm_resampler_type": None, "quantization_config": None, "do_sample": True, "temperature": 0.7},
    ],
)
def test_keys_without_effect_are_accepted(config: dict[str, Any], alter: Callable[..., Path]) -> None:
    assert take_inventory(Checkpoint(alter(config=config))).missing == []


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "use_qk_norm", True),
        ("config.json", "attention_multiplier", 0.5),
        ("config.json", "mm_resampler_type", "perceiver"),
        ("config.json", "add_faster_video", True),
        ("config.json", "quantization_config", {"load_in_4bit": True}),
        ("config.json", "head_dim", 32),
        ("config.json", "layer_types", ["full_attention", "sliding_attention"]),
        ("config.json", "partial_rotary_factor", 0.5),
        ("config.json", "min_length", 5),
        ("config.json", "mm_projector_type", None),
        ("vision_tower/config.json", "hidden_act", "gelu"),
        ("vision_tower/config.json", "layer_norm_eps", 1e-5),
        ("vision_tower/config.json", "num_channels", 1),
        ("vision_tower/config.json", "num_registers", 4),
        ("vision_tower/config.json", "model_type", "clip_vision_model"),
        ("generation_config.json", "suppress_tokens", [3]),
        ("generation_config.json", "no_repeat_ngram_size", 3),
        ("generation_config.json", "stop_strings", ["."]),
        ("generation_config.json", "something_new", 3),
    ],
)
def test_key_that_asks_for_another_model_is_refused_by_name(
    file: str, key: str, value: Any, alter: Callable[..., Path]
) -> None:
    path = alter()
    content = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(content | {key: value}))
    with pytest.raises(BadInput, match=rf"{file}: {key} is"):
        take_inventory(Checkpoint(path))


@pytest.mark.parametrize(("penalty", "lines"), [(1.05, 1), (1.0, 0), (None, 0)])
def test_penalty_that_is_not_applied_is_told(
    penalty: float | None, lines: int, alter: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = alter()
    generation = {"eos_token_id": 1002, "repetition_penalty": penalty, "top_p": 0.8}
    (path / "generation_config.json").write_text(json.dumps(generation))
    with caplog.at_level(logging.WARNING):
        take_inventory(Checkpoint(path))
    assert ["repetition_penalty is 1.05" in record.message for record in caplog.records] == [True] * lines
