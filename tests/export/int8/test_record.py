"""INT8 encoders in a bundle: what is in the graphs, what the manifest says, what a gate refuses, what runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.int8 import gates
from stllm_edge.export.int8.convert import int8_weights
from stllm_edge.export.int8.recipe import Calibrating
from stllm_edge.export.int8.record import record_calibration
from stllm_edge.export.int8.runs import SetRun
from stllm_edge.export.model.parts import load_part
from stllm_edge.export.onnx.graphs import GRAPHS, transpose_linears
from stllm_edge.runtime.bundle.manifest import MANIFEST, Bundle, Defaults
from stllm_edge.runtime.bundle.writer import BundleWriter
from stllm_edge.runtime.encoders import cpu
from stllm_edge.runtime.errors import BadInput

MIX = "vision=int8,points=fp32,aligner=int8"
FILES = ("vision.int8.onnx", "vision.int8.cpu.onnx", "vision.int8.tensorrt.onnx", "aligner.int8.tensorrt.onnx")


def operators(file: Path) -> list[str]:
    return [node.op_type for node in ir.load(file).graph]


@pytest.mark.parametrize("name", FILES)
def test_graphs_pass_the_full_check(name: str, int8_bundle: Path) -> None:
    onnx.checker.check_model(int8_bundle / "onnx" / name, full_check="cpu" not in name)


def test_products_are_integers_and_what_was_left_out_is_not(int8_bundle: Path) -> None:
    graph = ir.load(int8_bundle / "onnx/vision.int8.cpu.onnx").graph
    products = set(int8_weights(graph))
    assert {"layers.0.attention.query.weight", "layers.0.feed_forward.outer.weight", "project_in.weight"} <= products
    assert "project_out.weight" in graph.initializers
    assert operators(int8_bundle / "onnx/vision.int8.cpu.onnx").count("MatMulInteger") == len(products)
    for name in products:
        held = graph.initializers[f"{name}.int8"].const_value
        assert held is not None
        values = held.numpy()
        assert values.dtype == np.int8
        # by output channel, symmetric: each reaches 127
        assert set(np.abs(values.astype(int)).max(axis=0)) == {127}


def test_tensorrt_gets_symmetric_pairs_and_no_integer_products(int8_bundle: Path) -> None:
    graph = ir.load(int8_bundle / "onnx/vision.int8.tensorrt.onnx").graph
    zeros = [graph.initializers[name].const_value for name in graph.initializers if name.endswith("zero")]
    assert [zero.numpy().item() for zero in zeros if zero is not None] == [0]
    kinds = [node.op_type for node in graph]
    assert "MatMulInteger" not in kinds
    assert kinds.count("DequantizeLinear") > kinds.count("QuantizeLinear") > 0


def test_weights_are_shared_and_take_a_quarter(int8_bundle: Path) -> None:
    bundle = Bundle(int8_bundle)
    graph = ir.load(int8_bundle / "onnx/vision.int8.onnx").graph
    integers = sum(graph.initializers[f"{name}.int8"].const_value.nbytes for name in int8_weights(graph))
    graphs = [bundle.graph("vision", "int8", provider) for provider in ("portable", "cpu", "tensorrt")]
    assert len({graph.weights for graph in graphs}) == 1
    saved = bundle.size(bundle.graph("vision", "fp32").weights) - bundle.size(graphs[0].weights)
    assert saved > 2.8 * integers > 0
    for name in ("points", "aligner"):
        assert bundle.graph(name, "int8") == bundle.graph(name, "fp32")


def test_the_manifest_says_what_was_judged_and_why_products_stay(int8_bundle: Path) -> None:
    record = Bundle(int8_bundle).manifest["calibration"]["int8"]
    assert record["verified"]
    assert record["samples"] == 4
    assert [(gate["stage"], gate["passed"]) for gate in record["gates"]] == [("vision", True)] * 2
    reasons = {choice["weight"]: choice["reason"] for choice in record["products"]["vision"]}
    assert reasons["project_out.weight"] == "last Linear"
    assert {"min-max", "entropy"} & set(reasons.values())


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that INT8 cannot keep: what they refuse is what others would refuse. By rel-rms the mix is chosen."""
    limits = gates.limits() | {"int8": {"cosine": 0.9999999, "rel_rms": 0.05, "norm": 1e-5}}
    monkeypatch.setattr(gates, "limits", lambda: limits)


def test_a_failed_gate_ends_the_export(
    int8_bundle: Path, tiny_checkpoint: Path, calibration: Path, tmp_path: Path, strict: None
) -> None:
    """The bundle's graphs once more before the judge; what an error leaves of a bundle is tested with its writer."""
    checkpoint = Checkpoint(tiny_checkpoint)
    inventory = take_inventory(checkpoint)
    sample = SetRun.open(calibration, checkpoint, inventory.geometry, Defaults())
    for name in ("vision", "points", "aligner"):
        module = GRAPHS[name](load_part(checkpoint, inventory, name))
        transpose_linears(module)
        sample.safe_weights(name, module)
    entry = Bundle(int8_bundle).manifest["encoders"][MIX]
    with pytest.raises(BadInput, match=r"4 of 4 graphs fail their gate, first .* nothing is written"):
        record_calibration(BundleWriter(tmp_path, int8_bundle, {}, False), MIX, entry, sample, {}, Calibrating())


def test_where_it_is_allowed_the_same_set_gives_the_same_bytes(
    int8_bundle: Path, tiny_checkpoint: Path, calibration: Path, stllm: Any, tmp_path: Path, strict: None
) -> None:
    options = ["--precision", "vision=int8", "--calibration", calibration, "--allow-unverified"]
    result = stllm("export", "onnx", "--ckpt", tiny_checkpoint, "--out", tmp_path / "again", *options)
    assert result.exit_code == 0, result.output
    assert "written unverified" in result.output
    again = Bundle(tmp_path / "again")
    assert again.unverified == again.precisions == ["int8"]
    for file in sorted((int8_bundle / "onnx").glob("vision.int8*")):
        assert (tmp_path / "again/onnx" / file.name).read_bytes() == file.read_bytes()


def test_a_bundle_that_failed_says_so_when_it_runs(
    int8_bundle: Path, tmp_path: Path, stllm: Any, world: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["calibration"]["int8"]["verified"] = False
    (copy / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    cpu.CPUINFO.write_text("processor : 0\nflags : sse2 avx2\n")
    options = ["--precision", "int8", "--quant", "Q8_0", "--frames", 1, "-n", 1, "-q", "Where is the cup?"]
    result = stllm("run", "--bundle", copy, *world, *options)
    assert result.exit_code == 0, result.output
    assert "encoders int8 failed their gate at the export, where this was allowed" in result.output
    assert "no dot product of bytes (VNNI): INT8 encoders work, but may be slower" in result.output


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("int4", "known are fp32, fp16, int8, or a mix"),
        ("vision=int4", "known are fp32, fp16, int8, or a mix"),
        ("eyes=int8", "encoder 'eyes' is unknown; known are vision, points, aligner"),
        ("vision=int8,vision=fp32", "encoder 'vision' is named twice"),
    ],
)
def test_what_is_no_precision_is_refused(
    precision: str, words: str, tiny_checkpoint: Path, stllm: Any, tmp_path: Path
) -> None:
    options = ["--ckpt", tiny_checkpoint, "--out", tmp_path / "b", "--precision", precision]
    result = stllm("export", "onnx", *options)
    assert result.exit_code == 2
    assert words in result.output


def test_verify_compares_int8_with_what_it_costs_pytorch(
    int8_bundle: Path, tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    verify: Callable[[], Any] = lambda: stllm(  # noqa: E731
        "export", "verify", "--bundle", copy, "--ckpt", tiny_checkpoint, *world, "--precision", "int8", "--quant", "F32"
    )
    result = verify()
    assert result.exit_code == 0, result.output
    assert "✓ int8   vision" in result.output
