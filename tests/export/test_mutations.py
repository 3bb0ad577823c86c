"""Planted errors: each becomes a cross in the row that it belongs to, or a refusal. docs/verify.md has the table."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gguf import GGUFReader
from onnx import numpy_helper
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.comparison import Row
from stllm_edge.export.material import exact_setup, exact_setups
from stllm_edge.export.verify import Verification
from stllm_edge.export.views import opened
from stllm_edge.runtime import Bundle
from stllm_edge.runtime.console import Progress
from stllm_edge.runtime.errors import BadBundle
from stllm_edge.runtime.options import Recording

Plant = Callable[[Path], None]


@pytest.fixture(scope="module")
def verification(tiny_checkpoint: Path, tiny_bundle: Path, block: dict[str, Path]) -> Iterator[Verification]:
    """PyTorch's side, computed once for all planted errors."""
    checkpoint = Checkpoint(tiny_checkpoint)
    with opened(Recording(**block), 0.06) as (scene, clip):
        yield Verification(tiny_bundle, checkpoint, take_inventory(checkpoint), scene, clip, Progress(quiet=True))


# graphs


def edit(bundle: Path, file: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph, whose weights then are inside it."""
    model = onnx.load(str(bundle / "onnx" / file))
    change(model)
    onnx.save(model, str(bundle / "onnx" / file))


def weights(model: onnx.ModelProto, part: str) -> list[onnx.TensorProto]:
    """The initialisers whose name holds a word."""
    found = [tensor for tensor in model.graph.initializer if part in tensor.name]
    assert found, part
    return found


def rewrite(part: str, change: Callable[[np.ndarray], np.ndarray], most: int = 99) -> Callable[..., None]:
    """Change the values of the initialisers whose name holds a word."""

    def apply(model: onnx.ModelProto) -> None:
        for tensor in weights(model, part)[:most]:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))

    return apply


def swap(first: str, second: str) -> Callable[..., None]:
    """Exchange the values of two groups of initialisers."""

    def apply(model: onnx.ModelProto) -> None:
        for a, b in zip(weights(model, first), weights(model, second), strict=True):
            values = numpy_helper.to_array(a), numpy_helper.to_array(b)
            a.CopyFrom(numpy_helper.from_array(values[1], a.name))
            b.CopyFrom(numpy_helper.from_array(values[0], b.name))

    return apply


def attribute(operator: str, name: str, value: Any) -> Callable[..., None]:
    """Change an attribute of all nodes of an operator."""

    def apply(model: onnx.ModelProto) -> None:
        found = [item for node in model.graph.node if node.op_type == operator for item in node.attribute]
        found = [item for item in found if item.name == name]
        assert found, operator
        for item in found:
            item.CopyFrom(onnx.helper.make_attribute(name, value))

    return apply


def rename(old: str, new: str) -> Callable[..., None]:
    """Make another operator of all nodes of one."""

    def apply(model: onnx.ModelProto) -> None:
        found = [node for node in model.graph.node if node.op_type == old]
        assert found, old
        for node in found:
            node.op_type = new

    return apply


def scaled(model: onnx.ModelProto) -> None:
    """Multiply the graph's output by 1.5."""
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["unscaled" if name == output.name else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.5), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["unscaled", "factor"], [output.name]))


def nothing(values: np.ndarray) -> np.ndarray:
    return values * 0


def turned(values: np.ndarray) -> np.ndarray:
    assert values.shape[0] == values.shape[1]
    return values.T


FILES = {
    encoder: [f"{encoder}{precision}{provider}.onnx" for precision in ("", ".fp16") for provider in providers]
    for encoder, providers in {
        "vision": (".cpu", "", ".tensorrt"),
        "points": ("", ".tensorrt"),
        "aligner": (".cpu", "", ".tensorrt"),
    }.items()
}
SCALES = {f"{file}: output x 1.5": (file, scaled) for files in FILES.values() for file in files}
GRAPHS = {
    "newline column of another channel order": ("vision.cpu.onnx", rewrite("newline", np.flip)),
    "newline left out": ("vision.cpu.onnx", rewrite("newline", nothing)),
    "pooling by the nearest patch": ("vision.cpu.onnx", rewrite("pooling", np.round)),
    "a layer of the tower skipped": ("vision.cpu.onnx", rewrite("layers.1.attention.output", nothing)),
    "two layers of the tower swapped": ("vision.cpu.onnx", swap("layers.0.", "layers.1.")),
    "query and key of the tower swapped": (
        "vision.cpu.onnx",
        swap("layers.0.attention.query.weight", "layers.0.attention.keys.0.weight"),
    ),
    "a square matrix of the tower transposed": ("vision.cpu.onnx", rewrite("layers.0.attention.query.weight", turned)),
    "a bias of the tower left out": ("vision.cpu.onnx", rewrite("layers.0.attention.query.bias", nothing)),
    "patches in another order": ("vision.cpu.onnx", rewrite("position", lambda values: values[..., ::-1, :])),
    "eps 1e-3 in the tower": ("vision.cpu.onnx", attribute("LayerNormalization", "epsilon", 1e-3)),
    "eps 1e-5 in the tower": ("vision.cpu.onnx", attribute("LayerNormalization", "epsilon", 1e-5)),
    "half as many heads in the tower": ("vision.cpu.onnx", attribute("MultiHeadAttention", "num_heads", 1)),
    "the exact GELU in the tower": ("vision.cpu.onnx", rename("FastGelu", "Gelu")),
    "the GELU by tanh in the aligner": ("aligner.cpu.onnx", rename("Gelu", "FastGelu")),
    "half as many heads in the aligner": ("aligner.cpu.onnx", attribute("MultiHeadAttention", "num_heads", 1)),
    "eps 1e-3 in the aligner": ("aligner.cpu.onnx", attribute("LayerNormalization", "epsilon", 1e-3)),
    "latents in another order": ("aligner.cpu.onnx", rewrite("latents", np.flipud)),
    "ray frequencies shifted by one": (
        "aligner.cpu.onnx",
        rewrite("point_rays.weight", lambda values: np.concatenate([values[:3], np.roll(values[3:], 1, axis=0)])),
    ),
    "rays of the frames left out": ("aligner.cpu.onnx", rewrite("frame_rays.weight", nothing)),
    "cross-attention left out": ("aligner.cpu.onnx", rewrite("cross_attention.output.weight", nothing)),
    "a layer of the aligner skipped": ("aligner.cpu.onnx", rewrite("layers.1.feed_forward.outer", nothing)),
    "a kernel's offsets reversed": ("points.onnx", rewrite("block1.0.conv1.kernel", np.flipud)),
    "strided and transposed offsets reversed": (
        "points.onnx",
        rewrite("conv1p1s2.kernel", lambda values: np.roll(values, len(values) // 2, axis=0)),
    ),
    "bias of a batch normalisation left out": ("points.onnx", rewrite("block3.0.conv1.bias", nothing)),
    "FP16: a square matrix of the tower transposed": (
        "vision.fp16.tensorrt.onnx",
        rewrite("layers.0.attention.query.weight", turned),
    ),
    "FP16: a layer of the tower skipped": ("vision.fp16.onnx", rewrite("layers.1.attention.output", nothing)),
    "FP16: a bias of the points left out": ("points.fp16.onnx", rewrite("block3.0.conv1.bias", nothing)),
    "FP16: rays of the points left out": ("aligner.fp16.tensorrt.onnx", rewrite("point_rays.weight", nothing)),
    "FP16 attention: query and key swapped": (
        "aligner.tensorrt.onnx",
        swap("layers.1.self_attention.query.weight", "layers.1.self_attention.keys.0.weight"),
    ),
}


def encoder_row(verification: Verification, bundle: Path, file: str) -> Row:
    """The row of a graph; of its provider, no other graph is run than it needs."""
    precision = "fp16" if ".fp16" in file else "fp32"
    provider = {"cpu": "cpu", "tensorrt": "tensorrt"}.get(file.split(".")[-2], "portable")
    (setup,) = [setup for setup in exact_setups(Bundle(bundle), precision, "F32") if setup.provider == provider]
    return next(row for row in verification.encoders.rows([setup]) if row.file == f"onnx/{file}")


@pytest.mark.parametrize("name", SCALES | GRAPHS)
def test_an_error_in_a_graph_becomes_a_cross(name: str, verification: Verification, bundle_copy: Path) -> None:
    file, change = (SCALES | GRAPHS)[name]
    edit(bundle_copy, file, change)
    row = encoder_row(verification, bundle_copy, file)
    print(row)
    assert row.passed is False


# language models


def field(key: str, value: float | str, entry: int = 0) -> Plant:
    """Change a number, or an entry of a list of strings, in a GGUF file's header."""

    def apply(path: Path) -> None:
        found = GGUFReader(path, "r+").fields[key]
        data = found.parts[found.data[entry]]
        data[:] = list(value.encode()) if isinstance(value, str) else value
        data.base.flush()

    return apply


def tensors(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Plant:
    """Change the stored bytes or numbers of tensors; of a quantised one, rows of bytes."""

    def apply(path: Path) -> None:
        reader = GGUFReader(path, "r+")
        for tensor in reader.tensors:
            if tensor.name in names:
                tensor.data[:] = change(np.array(tensor.data))
        reader.data.flush()

    return apply


def exchanged(first: str, second: str) -> Plant:
    """Exchange two tensors of the same shape and type."""

    def apply(path: Path) -> None:
        reader = GGUFReader(path, "r+")
        a, b = ({tensor.name: tensor for tensor in reader.tensors}[name].data for name in (first, second))
        a[:], b[:] = np.array(b), np.array(a)
        reader.data.flush()

    return apply


def both(*plants: Plant) -> Plant:
    def apply(path: Path) -> None:
        for plant in plants:
            plant(path)

    return apply


HEAD = "qwen2."
EPS, BASE = f"{HEAD}attention.layer_norm_rms_epsilon", f"{HEAD}rope.freq_base"
# what is planted: the file, how, and the row that has to fail
LANGUAGE_MODELS: dict[str, tuple[str, Plant, str]] = {
    "RoPE base 10 and eps 0.1": ("Q4_K_M", both(field(BASE, 10.0), field(EPS, 0.1)), "header graph"),
    "RoPE base 1e4": ("Q4_K_M", field(BASE, 1e4), "header"),
    "RoPE base 1e4, F32": ("F32", field(BASE, 1e4), "header prefill"),
    "eps 1e-5": ("Q4_K_M", field(EPS, 1e-5), "header"),
    "eps 1e-5, F32": ("F32", field(EPS, 1e-5), "header"),
    "half as many query heads": ("Q8_0", field(f"{HEAD}attention.head_count", 2), "header"),
    "context of another length": ("Q8_0", field(f"{HEAD}context_length", 1024), "header"),
    "two tokens swapped": (
        "Q8_0",
        both(field("tokenizer.ggml.tokens", "b", 65), field("tokenizer.ggml.tokens", "a", 66)),
        "header",
    ),
    "a control token made a normal one": ("Q8_0", field("tokenizer.ggml.token_type", 1, 1002), "header"),
    "another end token": ("Q8_0", field("tokenizer.ggml.eos_token_id", 5), "header"),
    "another split of words": ("Q8_0", field("tokenizer.ggml.pre", "qwen9"), "header"),
    "two layers' queries swapped": (
        "Q8_0",
        exchanged("blk.0.attn_q.weight", "blk.1.attn_q.weight"),
        "weights loss",
    ),
    "gate and up swapped": ("Q4_K_M", exchanged("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"), "weights"),
    "norms swapped": ("Q4_K_M", exchanged("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"), "weights"),
    "bias left out": ("Q4_K_M", tensors(nothing, "blk.1.attn_q.bias"), "weights"),
    "a square matrix transposed": ("F32", tensors(turned, "blk.0.attn_q.weight"), "weights prefill"),
    "a layer skipped": (
        "F32",
        tensors(nothing, "blk.1.attn_output.weight", "blk.1.ffn_down.weight"),
        "weights prefill",
    ),
    "output x 1.5": ("F32", tensors(lambda values: values * 1.5, "output.weight"), "weights prefill"),
    "embedding rows in another order": ("Q4_K_M", tensors(np.flipud, "token_embd.weight"), "weights words loss"),
    "output rows in another order": ("Q4_K_M", tensors(np.flipud, "output.weight"), "weights loss"),
    "final norm x 1.01": ("Q8_0", tensors(lambda values: values * 1.01, "output_norm.weight"), "weights"),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_an_error_in_a_language_model_becomes_a_cross(name: str, verification: Verification, bundle_copy: Path) -> None:
    quant, plant, stages = LANGUAGE_MODELS[name]
    plant(bundle_copy / f"llm/{quant}.gguf")
    rows = verification.language.rows(exact_setup(Bundle(bundle_copy), "fp32", quant))
    failed = set()
    with suppress(BadBundle):  # what libllama refuses to load is not compared any further
        for row in rows:
            print(row)
            failed |= {row.stage} if row.passed is False else set()
    assert set(stages.split()) <= failed


def test_weights_quantised_to_a_coarser_type_than_the_file_says_become_a_cross(
    verification: Verification, bundle_copy: Path
) -> None:
    shutil.copy(bundle_copy / "llm/Q4_K_M.gguf", bundle_copy / "llm/Q8_0.gguf")
    rows = verification.language.rows(exact_setup(Bundle(bundle_copy), "fp32", "Q8_0"))
    assert {row.stage: row.passed for row in rows}["weights"] is False


# the manifest


def write_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("part", "name"),
    [(part.name, size.name) for part in fields(TINY) for size in fields(getattr(TINY, part.name))],
)
def test_a_size_misread_at_the_export_is_refused(
    part: str, name: str, stllm: Any, bundle_copy: Path, tiny_checkpoint: Path
) -> None:
    def misread(manifest: dict[str, Any]) -> None:
        value = manifest["geometry"][part][name]
        other = (
            [size + 1 for size in value]
            if isinstance(value, list)
            else not value
            if value in (True, False)
            else value * 2
        )
        manifest["geometry"][part][name] = other

    write_manifest(bundle_copy, misread)
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy)
    assert result.exit_code == 2
    assert "other sizes" in result.stderr


@pytest.mark.parametrize("ids", [[1002], [1000, 1002], [5], []])
def test_wrong_stop_ids_become_a_cross(
    ids: list[int], bundle_copy: Path, tiny_checkpoint: Path, block: dict[str, Path]
) -> None:
    write_manifest(bundle_copy, lambda manifest: manifest.update(stop_ids=ids))
    checkpoint = Checkpoint(tiny_checkpoint)
    with opened(Recording(**block), 0.06) as (scene, clip):
        verification = Verification(bundle_copy, checkpoint, take_inventory(checkpoint), scene, clip, Progress(True))
        assert next(verification.run()).passed is False


def test_an_embedding_matrix_described_at_the_wrong_place_becomes_a_cross(
    verification: Verification, bundle_copy: Path
) -> None:
    def shift(manifest: dict[str, Any]) -> None:
        manifest["llm"]["F32"]["embedding"]["offset"] -= 1024

    write_manifest(bundle_copy, shift)
    rows = verification.language.rows(exact_setup(Bundle(bundle_copy), "fp32", "F32"))
    assert {row.stage: row.passed for row in rows}["words"] is False


# what the configuration says


@pytest.mark.parametrize(
    ("config", "tower", "stage"),
    [
        ({}, {"hidden_act": "gelu"}, "vision"),
        ({}, {"layer_norm_eps": 1e-3}, "vision"),
        ({"rope_theta": 1e4}, {}, "header"),
        ({"rms_norm_eps": 1e-5}, {}, "header"),
    ],
)
def test_a_key_of_the_configuration_that_the_export_misread_becomes_a_cross(
    config: dict[str, Any],
    tower: dict[str, Any],
    stage: str,
    alter: Callable[..., Path],
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    block: dict[str, Path],
) -> None:
    """The checkpoint says one thing; the exporter's inventory and its bundle agree on another."""
    checkpoint = Checkpoint(alter(config=config, tower=tower))
    inventory = take_inventory(Checkpoint(tiny_checkpoint))
    with opened(Recording(**block), 0.06) as (scene, clip):
        verification = Verification(tiny_bundle, checkpoint, inventory, scene, clip, Progress(True))
        if stage == "vision":
            rows = verification.encoders.rows(exact_setups(Bundle(tiny_bundle), "fp32", "F32")[:1])
        else:
            rows = verification.language.rows(exact_setup(Bundle(tiny_bundle), "fp32", "F32"))
        assert {row.stage: row.passed for row in rows}[stage] is False


def test_the_page_has_all_planted_errors() -> None:
    page = (Path(__file__).parents[2] / "docs/verify.md").read_text(encoding="utf-8")
    assert [name for name in SCALES | GRAPHS | LANGUAGE_MODELS if f"| {name} |" not in page] == []
