"""The choice of a device: announced when it is not the first choice, refused when that is forbidden."""

import logging
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, Bundle, MissingDependency, Options, Session, StllmError, load_clip, load_scene
from stllm_edge.runtime.encoders.gpu import find_gpu
from stllm_edge.runtime.encoders.providers import place

pytestmark = pytest.mark.skipif(find_gpu() is not None, reason="what happens where there is no GPU")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_the_cpu_is_no_surprise(device: str, tiny_bundle: Path, caplog: Any) -> None:
    placement = place(device, True, Bundle(tiny_bundle), "fp32")
    assert placement.providers == ("CPUExecutionProvider",)
    assert placement.name == {"auto": "the CPU: there is no GPU", "cpu": "the CPU"}[device]
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "reason"), [("tensorrt", "TensorRT engines need a GPU"), ("cuda", "this ONNX Runtime has no CUDAExec")]
)
def test_a_fallback_is_announced_or_forbidden(device: str, reason: str, tiny_bundle: Path, caplog: Any) -> None:
    bundle = Bundle(tiny_bundle)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert place(device, False, bundle, "fp32").name == "the CPU"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"--device {device}: encoders run on the CPU instead: {reason}")
    with pytest.raises(MissingDependency, match=f"--device {device} --strict: {reason}"):
        place(device, True, bundle, "fp32")


def test_an_unknown_device_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BadInput, match="--device gpu: unknown; known are auto, cpu, cuda, tensorrt"):
        Session(tiny_bundle, Options(device="gpu"))


def test_what_was_chosen_is_logged(tiny_bundle: Path, inputs: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        Session(tiny_bundle).look(load_scene(inputs.scene), load_clip(inputs.video), frames=1)
    assert "encoders run on the CPU: there is no GPU" in caplog.text


def test_engines_that_stay_unused_for_want_of_a_gpu_are_named(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    bundle.engines = {"orin": {}, "rtx-ada": {}}
    name = place("auto", False, bundle, "fp32").name
    assert name == "the CPU: there is no GPU for the bundle's engines (orin, rtx-ada)"


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(tiny_bundle: Path) -> None:
    from stllm_edge.runtime.encoders.local import LocalEncoder

    with pytest.raises(StllmError, match="CUDAExecutionProvider"):
        LocalEncoder(tiny_bundle / "onnx/vision.onnx", 1, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
