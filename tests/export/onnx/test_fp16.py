"""FP16 graphs keep in float32 what half precision cannot hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.model.parts import load_part
from stllm_edge.export.model.points import MapTensors
from stllm_edge.export.onnx.fp16 import record_ranges, safe_weights
from stllm_edge.export.onnx.graphs import AlignerGraph
from stllm_edge.runtime.host.maps import KernelMaps
from stllm_edge.runtime.host.rays import encode_directions
from torch import Tensor

ENCODERS = ("vision", "points", "aligner")
# what picks the kernels and the bias of a slab, and the row of zeros behind them
SLAB_OPERATORS = {"Gather", "Mul", "Add", "Loop", "SequenceInsert"}
HALF = onnx.TensorProto.FLOAT16


def half_precision_errors(checkpoint: Path, bundle: Path, rel_rms: Any) -> dict[str, float]:
    """Error of each FP16 graph against the plain module, computed literally by ONNX's reference evaluator."""
    source = Checkpoint(checkpoint)
    inventory = take_inventory(source)
    sizes = inventory.geometry
    coords = np.argwhere(np.ones((8, 5, 6))).astype(np.int32)
    maps = KernelMaps.build(coords)
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    colours, pixels = generator.uniform(-1, 1, (len(coords), 3)), generator.uniform(-1, 1, (1, 3, 56, 56))
    feats, frames = colours.astype(np.float32), pixels.astype(np.float32)
    points, pooled, text = normal(40, sizes.aligner.width), normal(4, sizes.llm.width), normal(12, sizes.llm.width)
    rays = [
        encode_directions(rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (normal(40, 3), normal(4, 3))
    ]

    with torch.inference_mode():
        vision = load_part(source, inventory, "vision")
        encoder = load_part(source, inventory, "points")
        aligner = AlignerGraph(load_part(source, inventory, "aligner"))
        given = dict(
            zip(
                ("pcd_features", "pcd_rays", "pooled_features", "img_rays", "text_embeds"),
                (points, rays[0], pooled, rays[1], text),
                strict=True,
            )
        )
        expected = {
            "vision": vision.video_tokens(vision(torch.from_numpy(frames))),
            "points": encoder(torch.from_numpy(feats), MapTensors.build(coords)),
            "aligner": aligner(**{name: torch.from_numpy(values) for name, values in given.items()}),
        }
    inputs = {"vision": {"frames": frames}, "points": {"voxel_feats": feats, **maps.inputs()}, "aligner": given}
    errors = {}
    for stage in ENCODERS:
        evaluator = ReferenceEvaluator(str(bundle / f"onnx/{stage}.fp16.onnx"))
        with np.errstate(over="ignore", invalid="ignore"):
            (ours,) = evaluator.run(None, inputs[stage])
        errors[stage] = rel_rms(ours.reshape(expected[stage].shape), expected[stage])
    return errors


def half_weights(bundle: Path, encoder: str) -> tuple[int, int]:
    """Parameters in half precision, and all of them."""
    graph = onnx.load(str(bundle / f"onnx/{encoder}.fp16.onnx"), load_external_data=False).graph
    sizes = [(tensor.data_type == HALF, int(np.prod(tensor.dims))) for tensor in graph.initializer]
    return sum(size for half, size in sizes if half), sum(size for _, size in sizes)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_products_run_in_half_precision_and_the_rest_does_not(encoder: str, tiny_bundle: Path) -> None:
    half, total = half_weights(tiny_bundle, encoder)
    assert half > 0.8 * total
    graph = ir.load(tiny_bundle / f"onnx/{encoder}.fp16.onnx").graph
    for value in (*graph.inputs, *graph.outputs):
        assert value.dtype != ir.DataType.FLOAT16
    weights = {value for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT16}
    readers = {node.op_type for node in graph.all_nodes() if weights.intersection(node.inputs)}
    assert readers <= {"MatMul", "Gemm", "Conv"} | (SLAB_OPERATORS if encoder == "points" else set())


def test_error_is_that_of_half_precision(tiny_checkpoint: Path, tiny_bundle: Path, rel_rms: Any) -> None:
    errors = half_precision_errors(tiny_checkpoint, tiny_bundle, rel_rms)
    assert all(1e-5 < error < 1e-2 for error in errors.values()), errors


def overflow(tensors: dict[str, Tensor]) -> None:
    """Scale hidden values beyond what FP16 holds and scale them back; what the model computes stays ordinary."""

    def scale(name: str, factor: float) -> None:
        tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)

    for first, second in (
        ("model.mm_projector.0", "model.mm_projector.2"),
        (
            "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1",
            "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc2",
        ),
        ("qformer.encoder.layer.0.intermediate_query.dense", "qformer.encoder.layer.0.output_query.dense"),
    ):
        for suffix in ("weight", "bias"):
            scale(f"{first}.{suffix}", 2.0**18)
        scale(f"{second}.weight", 2.0**-18)
    block = "pcd_encoder.net3d.block6.0"
    for name in (f"{block}.norm1.bn.weight", f"{block}.norm1.bn.bias"):
        scale(name, 2.0**18)
    scale(f"{block}.conv2.kernel", 2.0**-18)
    scale("qformer.encoder.layer.1.attention.attention.query.weight", 2.0**-12)
    scale("qformer.encoder.layer.1.attention.attention.key.weight", 2.0**12)


@pytest.fixture(scope="module")
def overflowing(alter: Callable[..., Path], stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint whose hidden values overflow FP16, and its FP16 bundle."""
    checkpoint, bundle = alter(overflow), tmp_path_factory.mktemp("fp16") / "bundle"
    options = ["--precision", "fp16"]
    result = stllm("export", "onnx", "--ckpt", checkpoint, "--out", bundle, *options)
    assert result.exit_code == 0, result.output
    return checkpoint, bundle


@pytest.mark.slow
@pytest.mark.parametrize("stage", ENCODERS)
def test_products_that_would_overflow_stay_in_float32(
    stage: str, overflowing: tuple[Path, Path], tiny_bundle: Path
) -> None:
    half, total = half_weights(overflowing[1], stage)
    assert 0 < half < half_weights(tiny_bundle, stage)[0] < total


@pytest.mark.slow
def test_stages_that_would_overflow_stay_accurate(overflowing: tuple[Path, Path], rel_rms: Any) -> None:
    errors = half_precision_errors(*overflowing, rel_rms)
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.slow
def test_comparison_shows_the_error_of_half_precision(
    tiny_checkpoint: Path, bundle_copy: Path, rel_rms: Any, stllm: Any
) -> None:
    """The record states what FP16 costs, not what float32 arithmetic on rounded weights costs."""
    literal = half_precision_errors(tiny_checkpoint, bundle_copy, rel_rms)
    options = ["--precision", "fp16", "--quant", "F32"]
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *options)
    assert result.exit_code == 0, result.output
    rows = json.loads((bundle_copy / "manifest.json").read_text())["parity"]["fp16"]["rows"]
    assert len(rows) == 8
    for row in rows:
        assert literal[row["stage"]] / 10 < row["rel_rms"] < literal[row["stage"]] * 10, row["file"]


@pytest.mark.parametrize(
    ("seen", "weight", "safe"),
    [
        (1000.0, 1.0, True),
        (16000.0, 1.0, True),
        (17000.0, 1.0, False),
        (float("inf"), 1.0, False),
        (1.0, 1e-8, False),
        (1.0, 70_000.0, False),
    ],
    ids=["ordinary", "a factor of four below overflow", "nearer", "overflow", "vanishing weight", "huge weight"],
)
def test_weight_is_safe_if_its_products_and_itself_fit(seen: float, weight: float, safe: bool) -> None:
    module = torch.nn.ModuleDict({"linear": torch.nn.Linear(8, 8)})
    module.linear.weight.data.uniform_(0.5, 1).mul_(weight)
    with torch.no_grad():
        found = safe_weights(module, {"linear.weight": seen})
    assert found == ({"linear.weight"} if safe else set())


def test_ranges_are_the_largest_seen_on_either_side() -> None:
    linear = torch.nn.Linear(2, 1, bias=False)
    linear.weight.data[:] = 3
    module = torch.nn.ModuleDict({"linear": linear})
    with torch.no_grad(), record_ranges(module) as ranges:
        linear(torch.tensor([[1.0, -2.0]]))
        linear(torch.tensor([[5.0, 6.0]]))
        linear(torch.tensor([[-50.0, 50.0]]))
    linear(torch.full((1, 2), 1e6))
    assert ranges == {"linear.weight": 50.0}
