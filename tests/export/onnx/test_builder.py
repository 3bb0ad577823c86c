"""New nodes: constants made once, loops and what is carried through them."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from stllm_edge.export.onnx.builder import Builder

FLOAT = ir.TensorType(ir.DataType.FLOAT)
Make = Callable[[Builder, ir.Value], ir.Value]


def built(make: Make) -> ir.Model:
    """A model with one input [N, 2] and what is made of it."""
    given = ir.Value(name="given", type=FLOAT, shape=ir.Shape(["N", 2]))
    graph = ir.Graph([given], [], nodes=[], name="graph", opset_imports={"": 18})
    builder = Builder(graph, "portable", None)
    result = make(builder, given)
    graph.extend(builder.take("new"))
    result.name, result.type, result.shape = "result", FLOAT, ir.Shape(["M", 2])
    graph.outputs.append(result)
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, given: np.ndarray) -> np.ndarray:
    """The result, which ONNX Runtime and ONNX's reference evaluator agree on."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (ours,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"given": given})
    (literal,) = ReferenceEvaluator(proto).run(None, {"given": given})
    assert np.array_equal(ours, literal)
    return ours


def test_a_loop_carries_a_value_and_counts_its_steps() -> None:
    def make(builder: Builder, given: ir.Value) -> ir.Value:
        def step(number: ir.Value, carried: ir.Value) -> ir.Value:
            return builder.op("Add", carried, builder.op("Cast", number, to=int(ir.DataType.FLOAT)))

        return builder.loop(4, given, step)

    assert np.array_equal(run(built(make), np.ones((3, 2), np.float32)), np.full((3, 2), 7))


def test_what_a_loop_carries_may_grow() -> None:
    def make(builder: Builder, given: ir.Value) -> ir.Value:
        return builder.loop(3, given, lambda _, carried: builder.op("Concat", carried, given, axis=0))

    assert run(built(make), np.ones((2, 2), np.float32)).shape == (8, 2)


def test_loops_nest_and_read_what_lies_outside_them() -> None:
    def make(builder: Builder, given: ir.Value) -> ir.Value:
        doubled = builder.op("Add", given, given)

        def outer(_: ir.Value, total: ir.Value) -> ir.Value:
            twice = builder.op("Add", doubled, total)
            return builder.loop(2, twice, lambda _, inner: builder.op("Add", inner, twice))

        return builder.loop(2, given, outer)

    # (2 + 1) * 3, then (2 + 9) * 3
    assert np.array_equal(run(built(make), np.ones((1, 2), np.float32)), np.full((1, 2), 33))


def test_names_in_loops_are_the_graph_s_own() -> None:
    def make(builder: Builder, given: ir.Value) -> ir.Value:
        def step(_: ir.Value, carried: ir.Value) -> ir.Value:
            return builder.loop(2, carried, lambda _, inner: builder.op("Neg", inner))

        return builder.op("Add", builder.loop(1, given, step), builder.loop(1, given, step))

    names = [value.name for node in built(make).graph.all_nodes() for value in node.outputs if value.name]
    assert len(names) > 4
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_equal_constants_are_one_initialiser(dtype: type) -> None:
    def make(builder: Builder, given: ir.Value) -> ir.Value:
        first, second, other = (builder.constant(values, dtype) for values in ([1, 2], [1, 2], [2, 1]))
        assert first is second
        assert first is not other
        return builder.op("Identity", given)

    assert len(built(make).graph.initializers) == 2
