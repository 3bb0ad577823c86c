"""What libllama will make of each tensor, and makes."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.gguf.quantiser import quantise
from stllm_edge.export.gguf.recipe import Recipe
from stllm_edge.export.gguf.types import dequantise_fast
from stllm_edge.export.gguf.writer import as_bytes
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import DoesNotFit

QUANTS = ("Q4_K_M", "Q2_K", "TQ1_0", "Q1_0")


def export(stllm: Any, checkpoint: Path, bundle: Path, *options: Any) -> Any:
    result = stllm("export", "gguf", "--ckpt", checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    return result


def test_a_dry_run_tells_what_is_made(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = [word for quant in QUANTS for word in ("--quant", quant)]
    options += ["--tensor", "attn_v=Q8_0", "--tensor", "^output=Q6_K"]
    told = export(stllm, tiny_checkpoint, tmp_path / "none", *options, "--dry-run", "--json", "--quiet")
    assert not (tmp_path / "none").exists()
    plans = {plan["name"]: plan for plan in json.loads(told.stdout)["plans"]}
    assert list(plans) == list(QUANTS)
    export(stllm, tiny_checkpoint, tmp_path / "bundle", *options)
    for quant, plan in plans.items():
        file = tmp_path / f"bundle/llm/{quant}.gguf"
        assert plan["bytes"] == file.stat().st_size
        kinds = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
        assert kinds["blk.1.attn_v.weight"] == "Q8_0"
        assert kinds["output.weight"] == "Q6_K"
        assert set(plan["classes"]["ffn_down"]["types"]) == {kinds[f"blk.{n}.ffn_down.weight"] for n in (0, 1)}
    assert Bundle(tmp_path / "bundle").llm("Q2_K").overrides == {"attn_v": "Q8_0", "^output": "Q6_K"}
    for tensor in GGUFReader(tmp_path / "bundle/llm/Q4_K_M.gguf").tensors:
        data = np.asarray(tensor.data)
        assert np.allclose(dequantise_fast(data, tensor.tensor_type), dequantize(data, tensor.tensor_type), atol=1e-6)


def test_fallbacks_are_told_by_tensor(stllm: Any, tmp_path: Path) -> None:
    llm = replace(TINY.llm, width=96, heads=6, kv_heads=1, ffn=160, layers=1)
    aligner = replace(TINY.aligner, layers=1, cross_layers=(0,))
    checkpoint = write_checkpoint(tmp_path / "c", replace(TINY, llm=llm, aligner=aligner))
    told = export(stllm, checkpoint, tmp_path / "b", "--dry-run")
    assert "blk.0.ffn_up.weight becomes Q5_0: no block of Q4_K divides its rows" in told.stdout
    made = export(stllm, checkpoint, tmp_path / "b")
    assert "Q4_K_M: blk.0.ffn_up.weight becomes Q5_0: no block of Q4_K divides its rows of 96" in made.stderr


def test_type_that_needs_a_matrix_is_refused_without(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ["--ckpt", tiny_checkpoint, "--out", tmp_path / "b", "--quant", "IQ2_XXS", "--quiet"]
    result = stllm("export", "gguf", *options)
    assert result.exit_code == 2
    assert "takes an importance matrix; make one with stllm-calib imatrix" in result.stderr
    assert not (tmp_path / "b").exists()


@contextmanager
def full_after(count: int) -> Iterator[None]:
    """No file can be longer meanwhile: the kernel refuses what is written behind so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_that_is_full_midway_leaves_the_source_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "F32.gguf"
    shutil.copyfile(tiny_bundle / "llm/F32.gguf", source)
    before = source.read_bytes()
    with (
        full_after(400_000),
        pytest.raises(DoesNotFit, match=r"Q4_0: the disk is full; free some, or write to another"),
    ):
        quantise(source, tmp_path / "Q4_0.gguf", Recipe("Q4_0", "Q4_0"))
    assert list(tmp_path.iterdir()) == [source]
    assert source.read_bytes() == before
    quantise(source, tmp_path / "Q4_0.gguf", Recipe("Q4_0", "Q4_0"))
    assert (tmp_path / "Q4_0.gguf").stat().st_size > 400_000


def test_export_to_a_disk_that_is_full_leaves_nothing(
    stllm: Any, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def convert(*given: Any) -> memoryview:
        written.append(as_bytes(*given))
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "b"))
        return written[-1]

    monkeypatch.setattr("stllm_edge.export.gguf.writer.as_bytes", convert)
    before = {file: file.read_bytes() for file in tiny_checkpoint.glob("*.*")}
    result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", tmp_path / "b", "--quiet")
    assert (result.exit_code, len(written)) == (2, 6)
    (line,) = result.stderr.splitlines()
    assert "No space left on device" in line
    assert not [file for file in tmp_path.rglob("*") if file.stat().st_size]
    assert all(file.read_bytes() == content for file, content in before.items())
