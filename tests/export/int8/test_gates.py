"""Errors that are planted into an INT8 graph are refused by its gate, and the graph without them is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from stllm_edge.export.int8 import convert as converting
from stllm_edge.export.int8.convert import INTEGERS, SCALE, STEP, convert
from stllm_edge.export.int8.gates import Judgement, judge
from stllm_edge.export.int8.numerics import MOST
from stllm_edge.export.int8.products import LEFT_OUT
from stllm_edge.runtime.bundle.manifest import CPU, PORTABLE, TENSORRT, Bundle
from stllm_edge.runtime.encoders.local import LocalEncoder

Change = Callable[[ir.Graph], None]
INNER, OUTER = (f"layers.0.feed_forward.{part}.weight" for part in ("inner", "outer"))
VALUES, OUTPUT = "layers.0.attention.values.0.weight", "layers.0.attention.output.weight"
LOUDER = 100
# of inputs, which norms keep near one
RANGE = 5.0


def scaled(graph: ir.Graph, name: str, factors: np.ndarray | float) -> None:
    """Multiply an initialiser."""
    held = graph.initializers[name].const_value
    assert held is not None
    graph.initializers[name].const_value = ir.tensor((held.numpy() * factors).astype(np.float32), name=name)


def wrong_scale(graph: ir.Graph) -> None:
    scaled(graph, f"{OUTER}{SCALE}", 2)


def wrong_range(graph: ir.Graph) -> None:
    scaled(graph, f"{OUTER}{INTEGERS}{STEP}", 0.25)


def swapped_zeros(graph: ir.Graph) -> None:
    """Each of the two linears of a feed-forward takes the zero of the other's input."""
    first, second = (graph.initializers[f"{name}{INTEGERS}"].consumers()[0] for name in (INNER, OUTER))
    zero = first.inputs[2]
    # the later one is not there yet where the earlier is computed: what stands for it is a zero of zero
    graph.initializers["planted"] = ir.Value(
        name="planted", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([]), const_value=ir.tensor(np.uint8(0))
    )
    first.replace_input_with(2, graph.initializers["planted"])
    second.replace_input_with(2, zero)


def one_infinite_channel(graph: ir.Graph) -> None:
    held = graph.initializers[f"{OUTER}{SCALE}"].const_value
    assert held is not None
    factors = np.ones(held.shape.numpy())
    factors[1] = np.inf
    scaled(graph, f"{OUTER}{SCALE}", factors)


def by_tensor(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One scale for a whole weight [in, out], as many times as it has channels."""
    scale = (weight.abs().max() / MOST).expand(weight.shape[1])
    return (weight / scale).round().to(torch.int8), scale


@pytest.fixture
def judged(tiny_bundle: Path, tmp_path: Path) -> Callable[[str, Change | None], Judgement]:
    """What the gate says of the tower in INT8 with an error planted into it; a channel of it is loud."""
    bundle = Bundle(tiny_bundle)
    size = bundle.geometry.vision.image_size
    frames = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)

    def computed(model: ir.Model, name: str) -> np.ndarray:
        ir.save(model, tmp_path / name)
        with LocalEncoder(tmp_path / name, 1) as encode:
            return np.asarray(encode(frames=frames))

    def run(provider: str, change: Change | None) -> Judgement:
        graph = bundle.graph("vision", "fp32", provider if provider == TENSORRT else PORTABLE)
        model = ir.load(tiny_bundle / graph.file)
        ir.external_data.load_to_model(model)
        values = model.graph.initializers[VALUES].const_value
        assert values is not None
        factors = np.ones(values.shape.numpy()[1], np.float32)
        factors[1] = LOUDER
        scaled(model.graph, VALUES, factors)
        scaled(model.graph, OUTPUT, 1 / factors[:, None])
        exact = computed(model, "exact.onnx")
        weights = {
            str(value.name)
            for node in model.graph
            if node.op_type in ("MatMul", "Gemm") and (value := node.inputs[1]) is not None
        }
        # what reads the loud channel stays float32: its input would be as loud
        left_out = {OUTPUT, *LEFT_OUT}
        convert(model, dict.fromkeys(weights.intersection(model.graph.initializers) - left_out, RANGE), provider)
        if change is not None:
            change(model.graph)
        return judge("int8", "vision", "planted", [(computed(model, "int8.onnx"), exact)])

    return run


@pytest.mark.parametrize("provider", [CPU, TENSORRT])
def test_without_an_error_it_passes(provider: str, judged: Callable[..., Judgement]) -> None:
    found = judged(provider, None)
    assert found.passed, found


@pytest.mark.parametrize(
    ("provider", "change"),
    [
        (CPU, wrong_scale),
        (CPU, swapped_zeros),
        (CPU, one_infinite_channel),
        (TENSORRT, wrong_scale),
        (TENSORRT, wrong_range),
        (TENSORRT, one_infinite_channel),
    ],
)
def test_an_error_is_refused(provider: str, change: Change, judged: Callable[..., Judgement]) -> None:
    found = judged(provider, change)
    assert not found.passed, found
    # with ranges that were set before, what follows cuts it off
    assert (found.overflows > 0) == (change is one_infinite_channel and provider == CPU)


@pytest.mark.parametrize("provider", [CPU, TENSORRT])
def test_one_scale_for_all_channels_is_refused_where_one_is_loud(
    provider: str, judged: Callable[..., Judgement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "quantise_weight", by_tensor)
    found = judged(provider, None)
    assert not found.passed, found
