"""A LoRA adapter merged, and as a file of its own: both are the merged PyTorch model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.model.parts import load_part
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.setup import Setup

IDS = [1001, 872, 198, 3, 1, 4, 1, 5, 92, 65, 1002, 198]
SHAPES = {
    "model.layers.0.self_attn.q_proj": (256, 256),
    "model.layers.1.mlp.down_proj": (256, 512),
    "lm_head": (1024, 256),
}
LIMIT = 1e-5


@pytest.fixture(scope="module")
def lora(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An adapter over the tiny checkpoint, with another alpha for one of its weights."""

    def make(names: tuple[str, ...] = tuple(SHAPES), *, dora: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for name in names:
            out, into = SHAPES[name]
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, into, generator=generator) * 0.1
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.1
            if dora:
                tensors[f"base_model.model.{name}.lora_magnitude_vector"] = torch.ones(out)
        config = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_checkpoint), "r": 4, "lora_alpha": 8}
        config |= {"alpha_pattern": {"down_proj": 16}, "use_dora": dora}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return make


def logits(bundle: Path, adapter: Path | None) -> np.ndarray:
    setup = Setup(
        Bundle(bundle), "fp32", "F32", threads=1, kv="f32", flash_attention=False, repack=False, adapter=adapter
    )
    with setup.load_llm(256) as model:
        model.decode_tokens(IDS)
        first = model.logits()
        # a context that takes the place of another keeps the adapter
        model.restart(512)
        model.decode_tokens(IDS)
        assert np.array_equal(model.logits(), first)
        return first


def test_both_forms_are_the_merged_model(
    lora: Callable[..., Path], stllm: Any, tmp_path: Path, rel_rms: Callable[..., float]
) -> None:
    folder = lora()
    for name, options in (("merged", []), ("apart", ["--lora-as-adapter"])):
        result = stllm("export", "gguf", "--ckpt", folder, "--out", tmp_path / name, "--quant", "F32", *options)
        assert result.exit_code == 0, result.output
    source = Checkpoint(folder)
    model = load_part(source, take_inventory(source), "llm")
    with torch.inference_mode():
        expected = model(model.model["embed_tokens"](torch.tensor([IDS])))[0]
    apart = tmp_path / "apart"
    file = apart / Bundle(apart).manifest["llm"]["F32"]["adapter"]
    assert rel_rms(logits(tmp_path / "merged", None), expected) < LIMIT
    assert rel_rms(logits(apart, file), expected) < LIMIT
    assert rel_rms(logits(apart, None), expected) > 0.01
    deep = stllm("export", "verify", "--bundle", apart, "--ckpt", folder, "--deep")
    assert deep.exit_code == 0, deep.output
    assert stllm("export", "verify", "--bundle", apart, "--ckpt", folder, "--quant", "F32").exit_code != 1


@pytest.mark.parametrize("content", [None, b"GGUF", b""])
def test_file_that_is_no_adapter_is_refused(content: bytes | None, tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=r"--adapter .*x\.gguf"):
        logits(tiny_bundle, file)


def test_adapter_that_libllama_cannot_add_is_refused(
    lora: Callable[..., Path], stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for folder, said in (
        (tiny_checkpoint, "is no LoRA adapter"),
        (lora(("model.layers.1.mlp.down_proj",), dora=True), "trained with DoRA"),
    ):
        result = stllm("export", "gguf", "--ckpt", folder, "--out", tmp_path / "b", "--lora-as-adapter", "--quiet")
        assert result.exit_code == 2
        assert said in result.stderr
        assert not (tmp_path / "b").exists()
