"""This machine as a device."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from stllm_edge.benchmarks.planner import this
from stllm_edge.benchmarks.planner.subject import of_bundle
from stllm_edge.runtime.errors import BadInput


def test_the_machine_is_measured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this, "SECONDS", 0.0)
    monkeypatch.setattr(this, "LARGE", 2**24)
    monkeypatch.setattr(this, "ROUNDS", 2)
    monkeypatch.setattr(this, "PROCESSES", 1)
    subject = of_bundle(tiny_bundle)
    device = this.measure(subject)
    assert 1e8 < device.bandwidth < 1e13
    assert 1e8 < device.flops["fp32"] < 1e15
    assert device.visible > device.usable > 0
    assert set(device.layers) == set(subject.quants)
    assert all(rates.position > 0 and rates.token > 0 for rates in device.layers.values())
    # the libraries alone, with nothing of a model
    assert 3e7 < device.processes.worker < 9e7
    assert 3e7 < device.processes.main < 1.2e8
    assert all(cost.low > 0 for cost in device.host.values())


def test_the_graph_is_one_product() -> None:
    graph = onnx.load(this.GRAPH).graph
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
        for name, axes in (("a", ["m", "k"]), ("b", ["k", "n"]))
    ]
    assert list(graph.node) == [helper.make_node("MatMul", ["a", "b"], ["product"])]
    assert list(graph.input) == inputs


def test_a_machine_that_does_not_tell_its_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this, "PROC", tmp_path)
    with pytest.raises(BadInput, match=r"--device this: /proc/meminfo does not tell this machine's memory"):
        this.memory()
