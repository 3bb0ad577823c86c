"""The choice of a device: announced when it is not the first choice, refused when that is forbidden."""

import logging
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, Bundle, MissingDependency, Options, Session, StllmError, load_clip, load_scene
from stllm_edge.runtime.encoders.gpu import Gpu, find_gpu
from stllm_edge.runtime.encoders.providers import gpu_layers, place
from stllm_edge.runtime.llm.libllama import offloads

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


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"device": "cpu"}, 0),
        ({}, -1),
        ({"device": "cuda"}, -1),
        ({"device": "cpu", "gpu_layers": 3}, 3),
        ({"device": "cuda", "gpu_layers": 0}, 0),
    ],
)
def test_the_language_model_follows_the_device(options: Any, layers: int, tiny_bundle: Path, monkeypatch: Any) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("stllm_edge.runtime.stages.LanguageModel", lambda *_, **values: asked.update(values))
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.offloads", lambda: True)
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.find_gpu", lambda: Gpu("Orin", "8.7", 2**33, True))
    Session(tiny_bundle, Options(**options, precision="fp32")).load_llm(16)
    assert asked["gpu_layers"] == layers


@pytest.mark.skipif(offloads(), reason="what happens where libllama has no GPU")
@pytest.mark.parametrize(("device", "asked"), [("cuda", None), ("tensorrt", None), ("cpu", 5), ("auto", -1)])
def test_layers_that_no_gpu_takes_are_announced_or_forbidden(device: str, asked: int | None, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert gpu_layers(device, False, asked) == 0
    (record,) = caplog.records
    message = "the language model runs on the CPU instead: llama-cpp-python was built for the CPU"
    assert record.getMessage().startswith(f"--device {device}: {message}")
    with pytest.raises(MissingDependency, match=f"--device {device} --strict: llama-cpp-python was built for the CPU"):
        gpu_layers(device, True, asked)


def test_layers_need_a_gpu_even_where_libllama_has_the_code(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr("stllm_edge.runtime.encoders.providers.offloads", lambda: True)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert gpu_layers("auto", False, None) == gpu_layers("auto", False, 7) == 0
    (record,) = caplog.records
    assert "the language model runs on the CPU instead: the CUDA driver finds no GPU" in record.getMessage()


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(tiny_bundle: Path) -> None:
    from stllm_edge.runtime.encoders.local import LocalEncoder

    with pytest.raises(StllmError, match="CUDAExecutionProvider"):
        LocalEncoder(tiny_bundle / "onnx/vision.onnx", 1, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
