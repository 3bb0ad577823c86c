"""An adapter and its base are what PEFT makes of them, and what has another meaning is refused by name."""

import json
import logging
import math
import re
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
Lora = Callable[..., Tensors]
QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
BIAS = "model.layers.0.self_attn.q_proj.bias"
LATENTS = "latent_query.weight"


def same(ours: Tensor, expected: Tensor) -> bool:
    return ours.dtype == expected.dtype and torch.equal(ours, expected)


def name_of(weight: str, part: str) -> str:
    return f"base_model.model.{weight.removesuffix('.weight')}.{part}"


def product(pairs: Tensors) -> Tensor:
    down, up = (pair.float() for _, pair in sorted(pairs.items()))
    return up @ down


@pytest.mark.parametrize("infix", ["", ".default"])
def test_lora_adds_alpha_over_rank_times_the_product(
    infix: str, lora: Lora, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    pairs = lora(QUERY, (6, 4), infix=infix)
    merged = Checkpoint(adapter(pairs)).tensor(QUERY)
    assert same(merged, tensors[QUERY].float() + 2 * product(pairs))


def test_lora_merges_several_weights_and_leaves_the_others(
    lora: Lora, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    first, second = lora(QUERY, (6, 4)), lora(DOWN, (4, 8))
    checkpoint = Checkpoint(adapter(first | second))
    assert same(checkpoint.tensor(QUERY), tensors[QUERY].float() + 2 * product(first))
    assert same(checkpoint.tensor(DOWN), tensors[DOWN].float() + 2 * product(second))
    assert checkpoint.dtype(QUERY) == torch.float32
    assert same(checkpoint.tensor(LATENTS), tensors[LATENTS])
    assert checkpoint.names() == sorted(tensors)


def test_rslora_divides_by_the_root_of_the_rank(lora: Lora, adapter: Callable[..., Path], tensors: Tensors) -> None:
    pairs = lora(QUERY, (6, 4), rank=16)
    merged = Checkpoint(adapter(pairs, r=16, lora_alpha=8, use_rslora=True)).tensor(QUERY)
    assert same(merged, tensors[QUERY].float() + 2 * product(pairs))


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(
    ("ranks", "alphas", "expected"),
    [
        ({"q_proj": 2}, {}, (2, 8)),
        ({"^model.layers.0.self_attn.q_proj": 2, "q_proj": 3}, {}, (2, 8)),
        ({}, {"self_attn.q_proj": 16}, (4, 16)),
        ({"layers.0.*": 2}, {"q_proj": 6, "self_attn.q_proj": 9}, (2, 6)),
        ({"proj": 2}, {"q_pro": 9}, (4, 8)),
    ],
)
def test_patterns_give_a_module_its_own_rank_and_alpha(
    ranks: dict[str, int],
    alphas: dict[str, int],
    expected: tuple[int, float],
    rooted: bool,
    lora: Lora,
    adapter: Callable[..., Path],
    tensors: Tensors,
) -> None:
    """The first expression that fits the end of a module's name, from a dot on."""
    rank, alpha = expected
    pairs = lora(QUERY, (6, 4), rank=rank)
    merged = Checkpoint(adapter(pairs, rank_pattern=ranks, alpha_pattern=alphas, use_rslora=rooted)).tensor(QUERY)
    scale = alpha / (math.sqrt(rank) if rooted else rank)
    torch.testing.assert_close(merged, tensors[QUERY].float() + scale * product(pairs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("suffix", ["", ".weight", ".default.weight", ".default"])
def test_dora_gives_rows_the_trained_norm(
    suffix: str, lora: Lora, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    pairs = lora(QUERY, (6, 4))
    norms = torch.arange(1.0, 7.0)
    stored = pairs | {name_of(QUERY, f"lora_magnitude_vector{suffix}"): norms}
    merged = Checkpoint(adapter(stored, use_dora=True)).tensor(QUERY)
    rows = tensors[QUERY].double() + 2 * product(pairs).double()
    expected = rows / rows.square().sum(1, keepdim=True).sqrt() * norms[:, None]
    torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-6)


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
    folder = adapter(trained={LATENTS: torch.ones(3, 5)})
    (folder / "config.json").write_text('{"hidden_size": 8}')
    (saved / "tokenizer.json").write_text("{}")
    checkpoint = Checkpoint(folder)
    assert checkpoint.config == {"hidden_size": 8}
    assert checkpoint.find("tokenizer.json") == saved / "tokenizer.json"


def test_digest_changes_with_the_adapter(lora: Lora, adapter: Callable[..., Path]) -> None:
    before = Checkpoint(adapter()).digest()
    assert Checkpoint(adapter({name: pair * 2 for name, pair in lora(QUERY, (6, 4)).items()})).digest() != before


REFUSED: dict[str, list[Any]] = {
    "init_lora_weights": ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "something new"],
    "peft_type": ["IA3", "LOHA", "ADALORA", None],
    "layer_replication": [[[0, 2], [1, 2]]],
    "fan_in_fan_out": [True],
    "lora_bias": [True],
    "target_parameters": [["experts.gate_up_proj"]],
    "trainable_token_indices": [[1, 2], {"embed_tokens": [1]}],
    "alora_invocation_tokens": [[3]],
    "use_qalora": [True],
    "megatron_config": [{"sequence_parallel": True}],
    "arrow_config": [{"top_k": 3}],
    "kasa_config": [{"beta": 1e-4}],
    "use_bdlora": [{"nblocks": 2}],
    "ensure_weight_tying": [True],
    "use_something_new": [True, 3, "yes"],
    "bias": ["some"],
    "modules_to_save": ["mm_projector"],
    "rank_pattern": [{"q_proj": 2}, {"q_proj": "2"}, {"q_(proj": 4}],
    "alpha_pattern": [{"q_proj": None}, ["q_proj"]],
    "use_dora": [True, "yes"],
    "use_rslora": ["yes"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_option_that_means_something_else_is_refused_by_name(
    key: str, value: Any, adapter: Callable[..., Path]
) -> None:
    with pytest.raises(BadInput, match=key):
        Checkpoint(adapter(**{key: value}))


IDLE: dict[str, Any] = {
    "init_lora_weights": "gaussian",
    "loftq_config": {},
    "eva_config": None,
    "lora_dropout": 0.05,
    "inference_mode": True,
    "target_modules": ["q_proj"],
    "layers_to_transform": None,
    "task_type": "CAUSAL_LM",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "megatron_core": "megatron.core",
    "layer_replication": None,
    "something_new": None,
    "auto_mapping": {"base_model_class": "LlavaQwenPcdVidLM"},
    "runtime_config": {"ephemeral_gpu_offload": False},
}


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_options_that_leave_the_base_as_it_is_are_accepted(
    start: Any, lora: Lora, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    merged = Checkpoint(adapter(**IDLE | {"init_lora_weights": start})).tensor(QUERY)
    assert same(merged, tensors[QUERY].float() + 2 * product(lora(QUERY, (6, 4))))


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
        lambda lora: lora("model.layers.7.self_attn.q_proj.weight", (6, 4)),
        lambda lora: lora(QUERY, (4, 6)),
        lambda lora: dict(list(lora(QUERY, (6, 4)).items())[:1]),
        lambda lora: {"base_model.model.model.norm.weight": torch.ones(3)},
        lambda lora: {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 6)},
        lambda lora: lora(QUERY, (6, 4)) | {name_of(QUERY, "lora_magnitude_vector"): torch.ones(6)},
    ],
    ids=["no such weight", "other shape", "half a pair", "not a pair", "embedding", "magnitude without dora"],
)
def test_adapter_that_does_not_fit_its_base_is_refused(
    pairs: Callable[[Lora], Tensors], lora: Lora, adapter: Callable[..., Path]
) -> None:
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        Checkpoint(adapter(pairs(lora)))


def test_pair_whose_ranks_differ_is_refused(lora: Lora, adapter: Callable[..., Path]) -> None:
    pairs = lora(QUERY, (6, 4))
    pairs = {name: pair[:3].clone() if "lora_A" in name else pair for name, pair in pairs.items()}
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        Checkpoint(adapter(pairs))


def test_adapter_without_its_weights_is_refused(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors is missing"):
        Checkpoint(folder)


# what was trained whole


@pytest.mark.parametrize(
    "written",
    ["base_model.model.latent_query.weight", "base_model.model.latent_query.modules_to_save.default.weight"],
)
@pytest.mark.parametrize("place", ["adapter", "trained"])
def test_modules_to_save_replace_those_of_the_base(
    written: str, place: str, lora: Lora, adapter: Callable[..., Path], tensors: Tensors
) -> None:
    """As PEFT names them, and as the trainer does, who keeps the wrapper's name."""
    saved = {written: tensors[LATENTS].float() + 3}
    pairs = lora(QUERY, (6, 4))
    folder = adapter(
        pairs | saved if place == "adapter" else pairs,
        saved if place == "trained" else None,
        modules_to_save=["latent_query"],
    )
    checkpoint = Checkpoint(folder)
    assert same(checkpoint.tensor(LATENTS), tensors[LATENTS].float() + 3)
    assert checkpoint.names() == sorted(tensors)


@pytest.mark.parametrize("module", ["latent_query", "mm_projector"])
def test_module_to_save_that_is_missing_is_refused(module: str, adapter: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=rf"modules_to_save {module} .* no file of the adapter holds it"):
        Checkpoint(adapter(modules_to_save=[module]))


@pytest.mark.parametrize("written", ["bias", "base_layer.bias"])
@pytest.mark.parametrize("option", ["all", "lora_only"])
def test_trained_biases_replace_those_of_the_base(
    option: str, written: str, lora: Lora, adapter: Callable[..., Path], saved: Path, tensors: Tensors
) -> None:
    save_file(tensors | {BIAS: torch.zeros(6)}, saved / "model.safetensors")
    with pytest.raises(BadInput, match=rf"bias {option} .*{re.escape(BIAS)} was trained"):
        Checkpoint(adapter(bias=option))
    stored = lora(QUERY, (6, 4)) | {f"base_model.model.{BIAS.removesuffix('bias')}{written}": torch.ones(6)}
    assert same(Checkpoint(adapter(stored, bias=option)).tensor(BIAS), torch.ones(6))


def test_file_that_the_trainer_writes_beside_a_config_must_be_there(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"not non_lora_trainables\.bin"):
        Checkpoint(folder)


def test_adapter_without_other_trained_tensors_is_told(
    adapter: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Checkpoint(adapter())
    assert ["non_lora_trainables.bin" in record.message for record in caplog.records] == [True]
    caplog.clear()
    Checkpoint(adapter(trained={LATENTS: torch.ones(3, 5)}))
    assert not caplog.records


def test_older_adapters_are_pytorch_files(lora: Lora, adapter: Callable[..., Path], tensors: Tensors) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    torch.save(lora(QUERY, (6, 4)), folder / "adapter_model.bin")
    assert same(Checkpoint(folder).tensor(QUERY), tensors[QUERY].float() + 2 * product(lora(QUERY, (6, 4))))


# cases from the field


@pytest.mark.parametrize("option", ["pissa", "corda"])
def test_case_of_an_adapter_that_changed_its_base(option: str, field_case: Callable[[str], Path]) -> None:
    folder = field_case(f"05-lora-that-changed-its-base/{option}")
    with pytest.raises(BadInput, match=rf"adapter_config\.json: init_lora_weights is '{option}'.*merge"):
        Checkpoint(folder / "adapter", base=folder / "checkpoint")


def test_case_of_a_rank_stabilised_adapter(field_case: Callable[[str], Path]) -> None:
    folder = field_case("99-stays-right/rslora")
    ours = Checkpoint(folder / "adapter", base=folder / "checkpoint").tensor(QUERY).double()
    pairs = load_file(folder / "adapter/adapter_model.safetensors")
    down, up = (pairs[name_of(QUERY, f"lora_{side}.weight")].double() for side in "AB")
    stated = json.loads((folder / "adapter/adapter_config.json").read_text())
    weight = load_file(folder / "checkpoint/model.safetensors")[QUERY].double()
    expected = weight + stated["lora_alpha"] / math.sqrt(stated["r"]) * up @ down
    assert torch.linalg.norm(ours - expected) < 1e-6 * torch.linalg.norm(expected)
