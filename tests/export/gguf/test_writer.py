"""The language model in GGUF: every type, the metadata, and logits against the plain module."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.gguf import writer
from stllm_edge.export.gguf.types import KNOWN, QUANTS
from stllm_edge.export.model.parts import load_part
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.llm.embeddings import embedding_rows
from stllm_edge.runtime.setup import Setup

# 4-bit and lower: far below what an exchanged tensor or a wrong scale would give
LIMITS = {"F32": 1e-5, "F16": 2e-3, "BF16": 3e-2, "Q8_0": 0.08}
LOOSEST = 0.8
EMBEDDING_LIMIT = 0.012
IDS = [1001, 872, 198, 3, 1, 4, 1, 5, 92, 65, 1002, 198]


def plain_logits(checkpoint: Path, ids: list[int]) -> torch.Tensor:
    source = Checkpoint(checkpoint)
    model = load_part(source, take_inventory(source), "llm")
    with torch.inference_mode():
        return model(model.model["embed_tokens"](torch.tensor([ids])))[0]


def llama_logits(bundle: Path, quant: str, ids: list[int]) -> np.ndarray:
    setup = Setup(Bundle(bundle), "fp32", quant, threads=2, kv="f32", flash_attention=False, repack=True)
    with setup.load_llm(256) as model:
        model.decode_tokens(ids)
        return model.logits()


def export(stllm: Any, checkpoint: Path, bundle: Path, *quants: str) -> Path:
    options = [word for quant in quants for word in ("--quant", quant)]
    result = stllm("export", "gguf", "--ckpt", checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="module")
def bundle(stllm: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type in one bundle."""
    return export(stllm, tiny_checkpoint, tmp_path_factory.mktemp("gguf") / "bundle", *QUANTS)


def test_types_are_those_that_users_know() -> None:
    for quant in (
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K_M",
        "Q5_K_S",
        "Q4_K_M",
        "Q4_K_S",
        "Q4_0",
        "Q3_K_M",
        "Q2_K",
    ):
        assert quant in QUANTS


@pytest.mark.parametrize("quant", QUANTS)
def test_logits_are_those_of_the_plain_module(quant: str, bundle: Path, tiny_checkpoint: Path, rel_rms: Any) -> None:
    error = rel_rms(llama_logits(bundle, quant, IDS), plain_logits(tiny_checkpoint, IDS))
    assert error < LIMITS.get(quant, LOOSEST)


@pytest.mark.parametrize("quant", QUANTS)
def test_embedding_matrix_is_kept_at_eight_bits_or_better(
    quant: str, bundle: Path, tiny_tensors: dict[str, torch.Tensor], rel_rms: Any
) -> None:
    llm = Bundle(bundle).llm(quant)
    assert llm.embedding.type in ("F32", "F16", "BF16", "Q8_0")
    assert (llm.embedding.rows, llm.embedding.columns) == (1024, 256)
    expected = tiny_tensors["model.embed_tokens.weight"].float()
    rows = embedding_rows(bundle / llm.file, llm.embedding, np.arange(1024))
    assert rel_rms(rows, expected) < EMBEDDING_LIMIT
    if llm.embedding.type in ("F32", "BF16"):
        assert np.array_equal(rows, expected.numpy())


@pytest.mark.parametrize("quant", ["F32", "BF16"])
def test_weights_are_stored_without_loss(quant: str, bundle: Path, tiny_tensors: dict[str, torch.Tensor]) -> None:
    """The checkpoint's weights are BF16 numbers."""
    stored = {tensor.name: tensor for tensor in GGUFReader(bundle / f"llm/{quant}.gguf").tensors}
    ours = stored["blk.1.ffn_down.weight"]
    expected = tiny_tensors["model.layers.1.mlp.down_proj.weight"].to(
        getattr(torch, {"F32": "float32"}.get(quant, "bfloat16"))
    )
    assert ours.tensor_type.name == quant
    assert np.ascontiguousarray(ours.data).tobytes() == expected.contiguous().view(torch.uint8).numpy().tobytes()
    assert stored["blk.0.attn_q.bias"].tensor_type.name == stored["output_norm.weight"].tensor_type.name == "F32"


def test_smaller_types_give_smaller_files(bundle: Path) -> None:
    sizes = [
        (bundle / f"llm/{quant}.gguf").stat().st_size for quant in ("F32", "F16", "Q8_0", "Q5_K_M", "Q4_K_M", "Q2_K")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


@pytest.fixture
def plain_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Types of the plain files, as they are written."""
    written: list[str] = []
    write = writer.write_gguf

    def count(*arguments: Any) -> None:
        written.append(arguments[4])
        write(*arguments)

    monkeypatch.setattr(writer, "write_gguf", count)
    return written


@pytest.mark.parametrize(
    ("quants", "plain"),
    [
        (["Q8_0", "Q6_K", "Q4_K_M", "Q2_K"], ["BF16"]),
        (["Q8_0", "BF16", "Q4_0"], ["BF16"]),
        (["Q8_0", "F16"], ["F16", "BF16"]),
        (["F32"], ["F32"]),
    ],
    ids=["only quantised types", "the plain type too", "another plain type", "nothing quantised"],
)
def test_plain_file_is_written_once_for_all_types(
    quants: list[str], plain: list[str], plain_files: list[str], stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    bundle = export(stllm, tiny_checkpoint, tmp_path / "bundle", *quants)
    assert plain_files == plain
    assert Bundle(bundle).quants == quants
    assert {file.stem for file in bundle.rglob("*.gguf")} == set(quants)


def test_plain_file_is_gone_after_an_error(
    stllm: Any, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, *arguments: Any) -> None:
        assert source.stat().st_size > 1_000_000
        raise StllmError("no room")

    bundle = export(stllm, tiny_checkpoint, tmp_path / "bundle", "F32")
    monkeypatch.setattr(writer, "quantise", refuse)
    result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", bundle, "--quant", "Q8_0", "--quiet")
    assert (result.exit_code, result.stderr.count("no room")) == (2, 1)
    assert {file.name for file in bundle.rglob("*") if file.is_file()} == {".lock", "manifest.json", "F32.gguf"}


def test_nothing_but_the_named_files_remains(bundle: Path) -> None:
    assert sorted(path.stem for path in (bundle / "llm").iterdir()) == sorted(QUANTS)


@pytest.mark.parametrize("quant", ["F32", "F16", "Q4_K_M"])
def test_metadata_describes_the_model(quant: str, bundle: Path) -> None:
    fields = GGUFReader(bundle / f"llm/{quant}.gguf").fields
    expected = {
        "general.architecture": "qwen2",
        "qwen2.block_count": 2,
        "qwen2.context_length": 32768,
        "qwen2.embedding_length": 256,
        "qwen2.feed_forward_length": 512,
        "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2,
        "qwen2.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": 1002,
        "tokenizer.ggml.padding_token_id": 1000,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: fields[key].contents() for key in expected} == expected
    assert fields["qwen2.attention.layer_norm_rms_epsilon"].contents() == pytest.approx(1e-6)
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 1024
    assert "<|im_start|>" in fields["tokenizer.chat_template"].contents()
    assert "tokenizer.ggml.bos_token_id" not in fields


def small(**sizes: Any) -> Any:
    aligner = replace(TINY.aligner, layers=1, cross_layers=(0,))
    return replace(TINY, aligner=aligner, llm=replace(TINY.llm, **{"layers": 1, **sizes}))


@pytest.mark.parametrize("quant", ["F32", "Q4_K_M"])
@pytest.mark.parametrize(
    "geometry",
    [
        small(tied=True),
        small(width=96, heads=6, kv_heads=1, ffn=160, layers=3),
        small(width=80, heads=2, kv_heads=2, ffn=96, rope_base=1e4, rms_eps=1e-5),
        small(width=128, heads=2, kv_heads=2, ffn=64, vocabulary=1003),
    ],
    ids=["tied embeddings", "one key head", "width that no block divides", "odd vocabulary"],
)
def test_other_sizes_work(geometry: Any, quant: str, stllm: Any, tmp_path: Path, rel_rms: Any) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", geometry)
    bundle = export(stllm, checkpoint, tmp_path / "bundle", quant)
    error = rel_rms(llama_logits(bundle, quant, IDS), plain_logits(checkpoint, IDS))
    assert error < {**LIMITS, "Q4_K_M": 0.4}[quant]
    llm = Bundle(bundle).llm(quant)
    rows = embedding_rows(bundle / llm.file, llm.embedding, IDS)
    assert rel_rms(rows, Checkpoint(checkpoint).tensor("model.embed_tokens.weight")[IDS].float()) < EMBEDDING_LIMIT


@pytest.mark.parametrize("same", [True, False])
def test_output_matrix_is_left_out_where_it_is_the_embedding(
    same: bool, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    def tie(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * (1 if same else 2)

    bundle = export(stllm, alter(tie, config={"tie_word_embeddings": True}), tmp_path / "bundle", "F32")
    assert ("output.weight" in {tensor.name for tensor in GGUFReader(bundle / "llm/F32.gguf").tensors}) != same


def with_value(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        weight = tensors["model.layers.1.mlp.up_proj.weight"].clone()
        weight[3, 5] = value
        tensors["model.layers.1.mlp.up_proj.weight"] = weight

    return change


def test_value_beyond_f16_is_refused_there_and_kept_in_bf16(
    stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = alter(with_value(70_000.0))
    result = stllm("export", "gguf", "--ckpt", checkpoint, "--out", tmp_path / "f16", "--quant", "F16", "--quiet")
    assert result.exit_code == 2
    assert "model.layers.1.mlp.up_proj.weight are too large for F16; use BF16" in result.stderr
    assert not (tmp_path / "f16").exists()
    export(stllm, checkpoint, tmp_path / "bf16", "BF16")


@pytest.mark.parametrize("quant", ["F32", "Q4_K_M"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_no_number_is_refused(
    value: float, quant: str, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    result = stllm("export", "gguf", "--ckpt", alter(with_value(value)), "--out", tmp_path / "b", "--quant", quant)
    assert result.exit_code == 2
    assert "NaN or infinite" in result.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("command", ["gguf", "all"])
@pytest.mark.parametrize("quant", ["Q9_9", ""])
def test_unknown_type_is_refused_with_the_known_ones(
    quant: str, command: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    result = stllm("export", command, "--ckpt", tiny_checkpoint, "--out", tmp_path / "b", "--quant", quant)
    assert result.exit_code == 2
    assert all(known in result.stderr for known in KNOWN)
    assert not (tmp_path / "b").exists()
