"""Importance matrices in llama.cpp's format, and which model they are of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from stllm_edge.export.gguf.matrix import Matrix
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import BadInput


@pytest.fixture(scope="module")
def matrix(tiny_bundle: Path) -> Matrix:
    """One of the tiny checkpoint, with some columns that count more."""
    generator = np.random.default_rng(0)
    columns = {
        tensor.name: int(tensor.shape[0])
        for tensor in GGUFReader(tiny_bundle / "llm/F32.gguf").tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    }
    drawn = {name: generator.uniform(0.1, 9, (1, count)) ** 4 for name, count in columns.items()}
    sums = {name: values.astype(np.float32) for name, values in drawn.items()}
    return Matrix(sums, {name: np.array([3], np.float32) for name in sums}, ("rea.json", "b"), 2, 300)


def test_what_was_written_is_read(matrix: Matrix, tmp_path: Path) -> None:
    matrix.write(tmp_path / "m.gguf")
    found = Matrix.read(tmp_path / "m.gguf")
    assert (found.datasets, found.chunks, found.chunk_size) == (matrix.datasets, 2, 300)
    assert all(np.array_equal(found.sums[name], sums) for name, sums in matrix.sums.items())
    name = "blk.0.attn_q.weight"
    weights = found.weights({name: sums.shape[1] for name, sums in matrix.sums.items()}, tmp_path)
    assert np.allclose(weights[name], matrix.sums[name][0] / 3)


def test_matrices_add_up(matrix: Matrix, stllm: Any, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf")]
    matrix.write(files[0])
    halved = {name: sums / 2 for name, sums in matrix.sums.items()}
    replace(matrix, sums=halved, datasets=("c", "b"), chunk_size=7).write(files[1])
    result = stllm("calib", "merge", *files[:2], "--out", files[2])
    assert result.exit_code == 0, result.output
    found = Matrix.read(files[2])
    assert (found.datasets, found.chunks, found.chunk_size) == (("rea.json", "b", "c"), 4, 300)
    assert all(np.allclose(found.sums[name], 1.5 * sums) for name, sums in matrix.sums.items())
    assert all(counts == 6 for counts in found.counts.values())
    narrow = {name: sums[:, 1:] for name, sums in matrix.sums.items()}
    replace(matrix, sums=narrow).write(files[1])
    result = stllm("calib", "merge", *files[:2], "--out", files[2])
    assert result.exit_code == 2
    assert f"{files[1]}: is of another model: blk.0.attn_k.weight is (1, 255), expected (1, 256)" in result.stderr


def test_it_changes_the_weights_and_is_recorded(
    matrix: Matrix, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file, bundle = tmp_path / "m.gguf", tmp_path / "bundle"
    matrix.write(file)
    options = ["--quant", "IQ2_XXS", "--quant", "Q2_K", "--imatrix", file]
    result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    reader = GGUFReader(bundle / "llm/Q2_K.gguf")
    stated = {key: field.contents() for key, field in reader.fields.items() if key.startswith("quantize.imatrix")}
    assert stated == {
        "quantize.imatrix.file": "m.gguf",
        "quantize.imatrix.dataset": "rea.json, b",
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 2,
    }
    assert Bundle(bundle).quants == ["IQ2_XXS", "Q2_K"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sums: sums.pop("blk.1.ffn_up.weight"), "lacks blk.1.ffn_up.weight"),
        (lambda sums: sums.update({"blk.7.ffn_up.weight": np.ones((1, 256), np.float32)}), "here it is not there"),
        (lambda sums: sums.update({"blk.0.ffn_up.weight": np.ones((1, 512), np.float32)}), "here it is 256 columns"),
    ],
)
def test_matrix_of_another_model_is_refused_before_anything_is_written(
    change: Callable[[dict[str, Any]], object],
    said: str,
    matrix: Matrix,
    stllm: Any,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    sums = dict(matrix.sums)
    change(sums)
    counts = dict.fromkeys(sums, np.ones(1, np.float32))
    replace(matrix, sums=sums, counts=counts).write(tmp_path / "m.gguf")
    options = ["--out", tmp_path / "b", "--imatrix", tmp_path / "m.gguf", "--quiet"]
    for mode in ([], ["--dry-run"]):
        result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, *options, *mode)
        assert result.exit_code == 2
        assert "is of another model" in result.stderr
        assert said in result.stderr
        assert not (tmp_path / "b").exists()


def test_values_that_are_no_sums_are_refused_by_name(matrix: Matrix, tmp_path: Path) -> None:
    for value in (np.nan, np.inf, -1):
        sums = {name: sums.copy() for name, sums in matrix.sums.items()}
        sums["blk.1.attn_k.weight"][0, 7] = value
        replace(matrix, sums=sums).write(tmp_path / "m.gguf")
        with pytest.raises(BadInput, match=r"blk\.1\.attn_k\.weight has values"):
            Matrix.read(tmp_path / "m.gguf")


def test_files_that_are_no_matrix_are_refused(tiny_bundle: Path, matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    other = GGUFWriter(tmp_path / "other", arch="")
    other.add_type("imatrix")
    other.write_header_to_file()
    other.write_kv_data_to_file()
    other.write_ti_data_to_file()
    other.close()
    for file, said in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "text", "no GGUF file"),
        (tiny_bundle / "llm/F32.gguf", "general.type is None"),
        (tmp_path / "other", "lacks imatrix.datasets"),
    ):
        with pytest.raises(BadInput, match=said):
            Matrix.read(file)
