"""Types of keys and values; layers on a GPU: announced when there is none for them, refused when that is forbidden."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, MissingDependency, Options, Session
from stllm_edge.runtime.encoders.gpu import Gpu, find_gpu
from stllm_edge.runtime.llm.libllama import offloads
from stllm_edge.runtime.llm.placement import KV_TYPES, check_kv, gpu_layers

pytestmark = pytest.mark.skipif(find_gpu() is not None, reason="what happens where there is no GPU")


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
    monkeypatch.setattr("stllm_edge.runtime.setup.LanguageModel", lambda *_, **values: asked.update(values))
    monkeypatch.setattr("stllm_edge.runtime.llm.placement.offloads", lambda: True)
    monkeypatch.setattr("stllm_edge.runtime.session.find_gpu", lambda: Gpu("Orin", "8.7", 2**33, True))
    Session(tiny_bundle, Options(**options, precision="fp32")).stages.speaker.load(16)
    assert asked["gpu_layers"] == layers


@pytest.mark.skipif(offloads(), reason="what happens where libllama has no GPU")
@pytest.mark.parametrize(("device", "asked"), [("cuda", None), ("tensorrt", None), ("cpu", 5), ("auto", None)])
def test_layers_that_no_gpu_takes_are_announced_or_forbidden(device: str, asked: int | None, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert gpu_layers(device, False, asked, has_gpu=True) == 0
    (record,) = caplog.records
    message = "the language model runs on the CPU instead: llama-cpp-python was built for the CPU"
    assert record.getMessage().startswith(f"--device {device}: {message}")
    with pytest.raises(MissingDependency, match=f"--device {device} --strict: llama-cpp-python was built for the CPU"):
        gpu_layers(device, True, asked, has_gpu=True)


def test_layers_need_a_gpu_even_where_libllama_has_the_code(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr("stllm_edge.runtime.llm.placement.offloads", lambda: True)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert gpu_layers("auto", False, None, has_gpu=False) == gpu_layers("auto", False, 7, has_gpu=False) == 0
    (record,) = caplog.records
    assert "the language model runs on the CPU instead: the CUDA driver finds no GPU" in record.getMessage()


@pytest.mark.parametrize("flash_attention", [True, None])
@pytest.mark.parametrize("kv", KV_TYPES)
def test_known_types(kv: str, flash_attention: bool | None) -> None:
    check_kv(kv, flash_attention)


def test_unknown_types_are_named_with_the_known() -> None:
    with pytest.raises(BadInput, match="--kv q4_0: unknown; known are f32, f16, q8_0"):
        check_kv("q4_0", None)


def test_quantised_keys_need_flash_attention() -> None:
    with pytest.raises(BadInput, match="--kv q8_0 needs flash attention"):
        check_kv("q8_0", False)


def test_checking_a_choice_loads_nothing_heavy() -> None:
    program = "import sys, stllm_edge.runtime.llm.placement; print(*sorted({'numpy', 'llama_cpp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "\n"
