"""Importance matrices against llama.cpp's definition, which its own graph is asked for through libllama's callback."""

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from stllm_edge.calib.importance.collector import CLASSES
from stllm_edge.export.gguf.matrix import Matrix
from stllm_edge.runtime.llm.libllama import assign, libllama, load_model
from stllm_edge.runtime.llm.vocabulary import Vocabulary

CHUNK = 64
LEAST_ROWS = 16
TEXT = "In which direction should the person turn to face the table? 12 chairs stand left of the fridge.\n" * 12


class GgmlTensor(ctypes.Structure):
    """`ggml_tensor`, as far as a collector reads it."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


def product_of(address: int) -> tuple[str, GgmlTensor] | None:
    """The weight's name and the activations of a product that llama.cpp's collector counts."""
    tensor = GgmlTensor.from_address(address)
    if not tensor.src[0] or not tensor.src[1]:
        return None
    weight, values = (GgmlTensor.from_address(tensor.src[place]) for place in (0, 1))
    name = weight.name.decode()
    counted = name.startswith("blk.") and name.endswith(".weight") and weight.ne[1] > 1
    # of norms, the weight is the second factor, and a table's rows are chosen by integers
    return (name, values) if counted and values.type == 0 and values.ne[1] >= LEAST_ROWS else None


def llama_cpp_sums(gguf: Path, chunks: list[list[int]]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Sums of squares and rows by tensor, as llama.cpp's collector adds them up, by its own graph."""
    llama = libllama()
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}

    @llama.ggml_backend_sched_eval_callback
    def look(address: int, ask: bool, _: Any) -> bool:
        found = product_of(address)
        if found and not ask:
            name, values = found
            count, columns = values.ne[1], values.ne[0]
            flat = np.ctypeslib.as_array(ctypes.cast(values.data, ctypes.POINTER(ctypes.c_float)), (count, columns))
            sums[name] = sums.get(name, 0) + np.square(flat, dtype=np.float64).sum(axis=0)
            rows[name] = rows.get(name, 0) + count
        return bool(found) if ask else True

    model = load_model(gguf, use_extra_bufts=False)
    parameters = llama.llama_context_default_params()
    assign(parameters, n_ctx=CHUNK, n_batch=CHUNK, n_ubatch=CHUNK, cb_eval=look, flash_attn_type=0, type_k=0, type_v=0)
    context = llama.llama_init_from_model(model, parameters)
    for ids in chunks:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        tokens = np.array(ids, np.int32)
        # a last layer that computes the output rows alone would count fewer: all are asked for
        every = (ctypes.c_int8 * len(ids))(*[1] * len(ids))
        pointer = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token))
        assert llama.llama_decode(context, llama.llama_batch(n_tokens=len(ids), token=pointer, logits=every)) == 0
    llama.llama_free(context)
    llama.llama_model_free(model)
    return sums, rows


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT)
    return file


@pytest.fixture(scope="module")
def matrix(stllm: Any, tiny_checkpoint: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("matrix") / "text.gguf"
    result = stllm("calib", "imatrix", "--ckpt", tiny_checkpoint, "--text", text, "--chunk", CHUNK, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_text_alone_gives_what_llama_cpp_collects(matrix: Path, tiny_bundle: Path) -> None:
    gguf = tiny_bundle / "llm/F32.gguf"
    with Vocabulary(gguf) as vocabulary:
        ids = vocabulary.tokenize(TEXT)
    count = len(ids) // CHUNK
    sums, rows = llama_cpp_sums(gguf, [ids[place * CHUNK : (place + 1) * CHUNK] for place in range(count)])
    found = Matrix.read(matrix)
    assert sorted(sums) == sorted(found.sums)
    assert len(sums) == 14
    assert (found.chunks, found.chunk_size, found.datasets) == (count, CHUNK, ("text.txt",))
    for name, expected in sums.items():
        assert found.counts[name].tolist() == [rows[name]] == [count * CHUNK]
        assert found.sums[name].shape == (1, len(expected))
        assert np.abs(found.sums[name][0] / expected - 1).max() < 1e-3


def test_file_is_as_llama_cpp_writes_it(matrix: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(matrix)
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert keys == ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]
    names = [tensor.name for tensor in reader.tensors]
    assert names[:2] == ["blk.0.attn_k.weight.in_sum2", "blk.0.attn_k.weight.counts"]
    assert names[::2] == sorted(names[::2])
    assert [tensor.shape.tolist() for tensor in reader.tensors[:2]] == [[256, 1], [1, 1]]
    assert list(matrix.parent.iterdir()) == [matrix]


def test_output_matrix_counts_when_asked_for(stllm: Any, tiny_checkpoint: Path, text: Path, tmp_path: Path) -> None:
    options = ["--ckpt", tiny_checkpoint, "--text", text, "--chunk", CHUNK, "--output", "--out", tmp_path / "m.gguf"]
    assert stllm("calib", "imatrix", *options).exit_code == 0
    assert "output.weight" in Matrix.read(tmp_path / "m.gguf").sums


def test_a_run_goes_on_where_it_stopped(
    stllm: Any, tiny_checkpoint: Path, text: Path, matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stllm_edge.calib.importance import collector

    out = tmp_path / "m.gguf"
    options = ["calib", "imatrix", "--ckpt", tiny_checkpoint, "--text", text, "--chunk", CHUNK, "--out", out]
    keep, done = collector.Collector._keep, []

    def stop(self: Any, layer: int, squares: Any) -> None:
        keep(self, layer, squares)
        done.append(layer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collector.Collector, "_keep", stop)
        assert stllm(*options).exit_code != 0
    assert not out.exists()
    # an interrupt in the middle of a prompt leaves a piece of it behind
    other = stllm(*options[:-3], 32, *options[-2:])
    assert other.exit_code == 2
    assert "holds the work of another run" in other.stderr
    assert stllm(*options).exit_code == 0
    assert done == [1]
    assert out.read_bytes() == matrix.read_bytes()
    assert list(tmp_path.iterdir()) == [out]


@pytest.fixture
def broken(tiny_checkpoint: Path, tmp_path: Path) -> Callable[[float], Path]:
    """A checkpoint with another value in one of its weights."""

    def make(value: float) -> Path:
        folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
        for file in folder.glob("*.safetensors"):
            tensors = load_file(file)
            if (weight := tensors.get("model.layers.1.mlp.up_proj.weight")) is not None:
                weight[3, 5] = value
            save_file(tensors, file)
        return folder

    return make


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), r"values of model.layers.1.mlp.up_proj.weight are NaN or infinite"),
        (3e38, r"what enters blk.1.ffn_down.weight (model.layers.1.mlp.down_proj.weight) is NaN or infinite"),
    ],
)
def test_values_that_are_no_numbers_are_named(
    value: float, said: str, broken: Callable[[float], Path], stllm: Any, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.gguf"
    result = stllm("calib", "imatrix", "--ckpt", broken(value), "--text", text, "--chunk", CHUNK, "--out", out)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weight", "sound=1"], "one of text, prefix, video"),
        (["--weight", "text=-1"], "expected CLASS=NUMBER"),
        (["--weight", "text=0", "--weight", "prefix=0", "--weight", "video=0"], "all classes count 0 times"),
        (["--chunk", "8"], "--chunk 8: expected at least 16"),
        (["--chunk", "100000"], "tokens, expected at least --chunk 100000"),
        (["--rea", "x.json"], "expected --rea FILE --root DIR, or --text FILE"),
        (["--subset", "first:1"], "--subset: is for --rea; leave it out"),
        (["--seed", "1"], "--seed: is for --rea; leave it out"),
        (["--frames", "4"], "--frames: is for --rea; leave it out"),
        (["--no-time-instruction"], "--time-instruction: is for --rea; leave it out"),
        (["--weight", "text=0", "--chunk", "64"], "counts none of the positions, all of text"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], said: str, stllm: Any, tiny_checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    base = ["--ckpt", tiny_checkpoint, "--text", text, "--out", tmp_path / "m.gguf"]
    result = stllm("calib", "imatrix", *base, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    # with other options it can be asked again
    assert "--weight" in options or not (tmp_path / "m.gguf.work").exists()


def test_parts_of_a_long_prompt_are_counted_once_each(
    matrix: Path, stllm: Any, tiny_checkpoint: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stllm_edge.export.model.streaming.POSITIONS_AT_ONCE", 24)
    out = tmp_path / "parts.gguf"
    result = stllm("calib", "imatrix", "--ckpt", tiny_checkpoint, "--text", text, "--chunk", CHUNK, "--out", out)
    assert result.exit_code == 0, result.output
    whole, parts = Matrix.read(matrix), Matrix.read(out)
    for name, expected in whole.sums.items():
        assert (parts.counts[name] == whole.counts[name]).all()
        np.testing.assert_allclose(parts.sums[name], expected, rtol=1e-4)


def test_classes_are_those_of_a_prompt() -> None:
    assert CLASSES == ("text", "prefix", "video")
