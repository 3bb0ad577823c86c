"""Kinds of devices: what builds for them, and which one a GPU is."""

import pytest
from stllm_edge.export.tensorrt import targets
from stllm_edge.export.tensorrt.targets import TARGETS, choose_backend, find_target, target_of
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.encoders.gpu import Gpu

GIB = 2**30


@pytest.mark.parametrize(
    ("capability", "memory", "name"),
    [
        ("8.7", 7.4, "orin-nano"),
        ("8.7", 4.0, "orin-nano"),
        ("8.7", 15.3, "orin-nx"),
        ("8.7", 61.4, "orin"),
        ("11.0", 122.8, "thor"),
        ("8.6", 24.0, "rtx-ampere"),
    ],
)
def test_a_gpu_is_the_largest_kind_that_it_holds(capability: str, memory: float, name: str) -> None:
    assert target_of(Gpu("GPU", capability, int(memory * GIB), shared=True)) == TARGETS[name]


def test_an_unknown_gpu_is_a_kind_of_its_own() -> None:
    target = target_of(Gpu("H100", "9.0", 80 * GIB, shared=False))
    assert (target.name, target.capability, target.backends) == ("sm90", (9, 0), ("tensorrt",))
    assert target.workspace == 40 * GIB
    assert target.nearest == (8, 9)


@pytest.mark.parametrize(("name", "nearest"), [("orin", (8, 6)), ("thor", (12, 0)), ("rtx-ada", (8, 9))])
def test_checks_are_for_the_nearest_capability(name: str, nearest: tuple[int, int]) -> None:
    assert find_target(name).nearest == nearest


@pytest.mark.parametrize("installed", [("tensorrt-rtx",), ("tensorrt", "tensorrt-rtx"), ()], ids=" ".join)
def test_cards_are_built_for_ahead_of_time(installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed_versions", lambda: dict.fromkeys(installed, "1"))
    assert choose_backend(TARGETS["rtx-ada"], None) == "tensorrt-rtx"


def test_a_card_builds_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed_versions", lambda: {"tensorrt": "10.16"})
    monkeypatch.setattr(targets, "find_gpu", lambda: Gpu("RTX 4090", "8.9", 24 * GIB, shared=False))
    assert choose_backend(TARGETS["rtx-ada"], None) == "tensorrt"


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "trt"])
def test_what_does_not_build_for_a_target_is_refused(backend: str) -> None:
    with pytest.raises(BadInput, match=f"--backend {backend}: does not build for orin; tensorrt does"):
        choose_backend(TARGETS["orin"], backend)


def test_tensorrt_builds_on_the_device_only() -> None:
    with pytest.raises(BadInput, match="--target thor: TensorRT builds on the device itself, compute capability"):
        choose_backend(TARGETS["thor"], None)
