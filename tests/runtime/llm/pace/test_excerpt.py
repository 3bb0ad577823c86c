from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle
from stllm_edge.runtime.llm.model import LanguageModel
from stllm_edge.runtime.llm.pace.excerpt import ROWS, Gguf, Tensor, layer_file

QUANTS = ("F32", "Q8_0", "Q4_K_M")


@pytest.mark.parametrize("quant", QUANTS)
def test_the_head_is_read_as_gguf_reads_it(tiny_bundle: Path, quant: str) -> None:
    gguf = pytest.importorskip("gguf")
    file = tiny_bundle / "llm" / f"{quant}.gguf"
    stored = gguf.GGUFReader(file)
    head = Gguf.read(file)
    assert set(head.metadata) == {name for name in stored.fields if not name.startswith(("GGUF.", "tokenizer."))}
    assert [(tensor.name, tensor.sizes, tensor.kind, tensor.offset) for tensor in head.tensors] == [
        (tensor.name, tuple(map(int, tensor.shape)), tensor.tensor_type, tensor.data_offset)
        for tensor in stored.tensors
    ]
    assert all(
        0 <= ours.length - theirs.n_bytes < 32 for ours, theirs in zip(head.tensors, stored.tensors, strict=True)
    )


@pytest.mark.parametrize("quant", QUANTS)
def test_the_excerpt_is_a_layer_of_the_file(tiny_bundle: Path, tmp_path: Path, quant: str) -> None:
    gguf = pytest.importorskip("gguf")
    file = tiny_bundle / "llm" / f"{quant}.gguf"
    whole = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    block = Gguf.read(file).typical_layer()[0].name.split(".")[1]
    with layer_file(file) as excerpt:
        (tmp_path / "copy.gguf").write_bytes(excerpt.read_bytes())
    read = gguf.GGUFReader(tmp_path / "copy.gguf")
    (count,) = read.fields["qwen2.block_count"].parts[-1]
    assert count == 1
    layer = {name.replace(f"blk.{block}.", "blk.0.") for name in whole if name.startswith(f"blk.{block}.")}
    assert {tensor.name for tensor in read.tensors} == {*layer, "output_norm.weight", "token_embd.weight"}
    for tensor in read.tensors:
        if tensor.name == "token_embd.weight":
            assert tensor.data.shape == (ROWS, 256)
            assert not tensor.data.any()
        else:
            original = whole[tensor.name.replace("blk.0.", f"blk.{block}.")]
            assert tensor.tensor_type == original.tensor_type
            assert np.array_equal(tensor.data, original.data)


@pytest.mark.parametrize("repack", [False, True])
@pytest.mark.parametrize("quant", QUANTS)
def test_libllama_runs_the_excerpt(tiny_bundle: Path, quant: str, repack: bool) -> None:
    choice = {"vocabulary": ROWS, "context": 256, "kv": "f16", "flash_attention": None, "threads": 1}
    with layer_file(tiny_bundle / "llm" / f"{quant}.gguf") as excerpt:
        with LanguageModel(excerpt, **choice, repack=repack) as model:
            model.decode_embeddings(np.ones((20, 256), np.float32))
            assert model.logits().shape == (ROWS,)
        assert excerpt.exists()
    assert not excerpt.exists()


def test_the_typical_layer_has_the_most_frequent_types() -> None:
    kinds = {0: (14, 12), 1: (12, 12), 2: (14, 12), 3: (12, 14), 10: (12, 12), 11: (12, 12)}
    tensors = [
        Tensor(f"blk.{block}.{name}.weight", (256, 256), kind, 0, 0)
        for block, pair in kinds.items()
        for name, kind in zip(("attn_q", "ffn_up"), pair, strict=True)
    ]
    others = [Tensor(name, (256,), 0, 0, 0) for name in ("output.weight", "token_embd.weight")]
    layer = Gguf({}, (*others, *tensors)).typical_layer()
    assert [tensor.name for tensor in layer] == ["blk.1.attn_q.weight", "blk.1.ffn_up.weight"]


@pytest.mark.parametrize("cut", [0, 3, 20, 100, 5000, 30000])
def test_files_that_end_early_are_refused(gguf: Path, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "short.gguf"
    file.write_bytes(gguf.read_bytes()[:cut])
    with pytest.raises(BadBundle, match=r"short\.gguf: is no GGUF file that this program reads"), layer_file(file):
        pass


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(BadBundle, match="its first bytes are others"), layer_file(file):
        pass


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(32))
    with pytest.raises(BadBundle, match="ends before its tensors"), layer_file(file):
        pass
