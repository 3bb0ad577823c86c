"""Engines are built ahead of time, without a GPU, and every reason not to is one line."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.export.tensorrt.builder import Builder
from stllm_edge.export.tensorrt.profiles import plan_profiles
from stllm_edge.export.tensorrt.targets import TARGETS
from stllm_edge.runtime import BadInput, Bundle
from stllm_edge.runtime.bundle.manifest import ENCODERS, TENSORRT
from stllm_edge.runtime.console import Progress
from stllm_edge.runtime.encoders.engines import Sidecar, find_engines
from stllm_edge.runtime.encoders.gpu import find_gpu

rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'stllm-edge[rtx]'")
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="what happens where there is no GPU")


def builder(capability: tuple[int, int] = (8, 6)) -> Builder:
    return Builder("tensorrt-rtx", capability, 2**30, Progress(quiet=True))


def test_all_graphs_are_parsed_and_compiled_without_a_gpu(stllm: Any, tiny_bundle: Path, small: Any) -> None:
    before = (tiny_bundle / "manifest.json").read_bytes()
    result = stllm("export", "tensorrt", "--bundle", tiny_bundle, "--check", "--json", "--quiet", *small)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["target"], report["capability"]) == ("orin", "8.6")
    assert report["matrix"].endswith("TensorRT 10.3 itself was not run")
    assert len(report["profiles"]) == 2
    findings = report["graphs"]
    assert [(found["precision"], found["encoder"]) for found in findings] == [
        (precision, encoder) for precision in ("fp32", "fp16") for encoder in ENCODERS
    ]
    for found in findings:
        assert found["refused"] == found["unsupported"] == []
        assert found["engine_bytes"] > 10_000
        assert found["activation_bytes"] > 0
        assert "MatMul" in found["operators"]
    assert (tiny_bundle / "manifest.json").read_bytes() == before
    assert not (tiny_bundle / "engines").exists()


def test_a_check_says_what_stands_in_for_what(stllm: Any, tiny_bundle: Path, small: Any) -> None:
    result = stllm(
        "export", "tensorrt", "--bundle", tiny_bundle, "--check", "--target", "rtx-ada", "--precision", "fp16", *small
    )
    assert f"tensorrt-rtx {rtx.__version__}, compute capability 8.9" in result.stderr
    assert "TensorRT 10.3 itself was not run" in result.stderr
    assert "profile: batch 1:2:4, frames 1:2:4, voxels 1:200:400, text 1:64:512" in result.stderr
    assert re.findall(r"^✓ fp16 (\w+)", result.stdout, re.M) == list(ENCODERS)


@pytest.fixture(scope="module")
def built(stllm: Any, tiny_bundle: Path, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle with engines for an Ampere card."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    options = ["--target", "rtx-ampere", "--precision", "fp16", *small]
    result = stllm("export", "tensorrt", "--bundle", bundle, *options)
    assert result.exit_code == 0, result.output
    return bundle


def test_engines_lie_in_the_bundle_with_sidecars(built: Path, stllm: Any) -> None:
    bundle = Bundle(built)
    bundle.check([name for name in bundle.manifest["files"] if name.startswith("engines/")])
    found = find_engines(bundle, "fp16", "8.6", {"tensorrt-rtx": rtx.__version__})
    for name, engine in found.items():
        assert engine.file == built / f"engines/rtx-ampere/{name}.fp16.engine"
        assert engine.sidecar.activation_bytes > 0
        entry = bundle.engines["rtx-ampere"]["fp16"][name]
        assert entry["activation_bytes"] == engine.sidecar.activation_bytes
    assert len(found["vision"].sidecar.profiles) == 1
    assert len(found["points"].sidecar.profiles) == len(found["aligner"].sidecar.profiles) == 2
    assert found["points"].sidecar == Sidecar.read(built / "engines/rtx-ampere/points.fp16.json")

    message = refused(stllm, built, "--target", "rtx-ampere", "--precision", "fp16")
    assert "already holds engines rtx-ampere fp16; --force replaces" in message


def test_a_graph_that_is_exported_again_makes_its_engines_stale(built: Path, tmp_path: Path) -> None:
    stale = Path(shutil.copytree(built, tmp_path / "bundle"))
    manifest = json.loads((stale / "manifest.json").read_text())
    manifest["files"]["onnx/points.fp16.tensorrt.onnx"]["sha256"] = "0" * 64
    (stale / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match="the graph of points was changed after its engine was built; run stllm-export"):
        find_engines(Bundle(stale), "fp16", "8.6", {"tensorrt-rtx": rtx.__version__})


@pytest.mark.parametrize(("cut", "mark"), [(0, "✓"), (100, "✗")], ids=["whole", "truncated"])
def test_engines_are_verified_with_the_bundle(
    cut: int, mark: str, built: Path, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(built, tmp_path / "bundle"))
    engine = bundle / "engines/rtx-ampere/points.fp16.engine"
    os.truncate(engine, engine.stat().st_size - cut)
    options = ["--precision", "fp16", "--quant", "F32"]
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle, *options)
    assert re.search(rf"^{mark} fp16   engines +rtx-ampere: whole, and built from these graphs$", result.stdout, re.M)
    assert (result.exit_code == 0) == (cut == 0)
    assert (f"{engine}: has" in result.stderr) == (cut > 0)


def test_a_symmetric_int8_form_of_the_tower_compiles_and_an_asymmetric_one_does_not(
    tiny_bundle: Path, bundle_copy: Path, quantise: Any
) -> None:
    bundle = Bundle(tiny_bundle)
    source, graph = tiny_bundle / "onnx/vision.tensorrt.onnx", bundle_copy / "onnx/vision.tensorrt.onnx"
    (profile,) = plan_profiles(bundle, ["batch=1:1:2", "voxels=1:2:3"], None)
    shapes = [profile.shapes("vision", bundle.geometry)]
    quantise(source, graph, np.int8(0))
    for capability in ((8, 6), (8, 9)):
        assert builder(capability).compile(graph, shapes).activation_bytes > 0
    quantise(source, graph, np.uint8(128))
    with pytest.raises(BadInput, match=r"vision\.tensorrt\.onnx: tensorrt-rtx 1\.\S+ refuses it: .*QuantizeLinear"):
        builder().compile(graph, shapes)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if "tensorrt-rtx" in target.backends])
def test_every_card_compiles_ahead_of_time(name: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    (profile,) = plan_profiles(bundle, ["voxels=1:200:400"], None)
    graph = bundle.file(bundle.graph("vision", "fp32", TENSORRT).file)
    compiled = builder(TARGETS[name].capability).compile(graph, [profile.shapes("vision", bundle.geometry)])
    assert memoryview(compiled.engine).nbytes > 10_000


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["build", "check"])
def test_an_interrupt_stops_a_build_and_leaves_nothing(
    options: list[str], stllm: Any, bundle_copy: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupting(self: Progress, title: str) -> Iterator[Callable[[str], None]]:
        yield lambda step: signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "stage", interrupting)
    result = stllm("export", "tensorrt", "--bundle", bundle_copy, "--target", "rtx-ampere", *small, *options)
    assert result.exit_code == 1
    assert result.stderr.endswith("Aborted!\n")
    assert not result.stdout
    assert not list(bundle_copy.glob("engines/**/*.engine"))
    assert not Bundle(bundle_copy).engines


def test_refused_operators_are_listed_with_the_reason(one_node: Callable[..., Path]) -> None:
    constants = {"indices": np.array([[0]]), "updates": np.ones((1, 3), np.float32)}
    (line,) = builder().refusals(one_node("ScatterND", constants, reduction="add"))
    assert line.startswith("ScatterND")
    assert len(line) > len("ScatterND: ")


# errors


def test_an_unknown_target_is_answered_with_the_known_ones(stllm: Any, tiny_bundle: Path) -> None:
    message = refused(stllm, tiny_bundle, "--target", "xavier")
    assert "--target xavier: unknown; known are orin-nano, orin-nx, orin, thor, rtx-ampere" in message


def test_an_unknown_backend_is_answered_with_the_known_ones(stllm: Any, tiny_bundle: Path) -> None:
    message = refused(stllm, tiny_bundle, "--check", "--backend", "trt")
    assert "--backend trt: unknown; known are tensorrt, tensorrt-rtx" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--check", "--force"], "--check: builds nothing, with tensorrt-rtx; leave --force and --backend out"),
        (["--check", "--backend", "tensorrt-rtx"], "leave --force and --backend out"),
        (["--target", "rtx-ada", "--json"], "--json: is the form of a --check"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: list[str], words: str, stllm: Any, tiny_bundle: Path
) -> None:
    assert words in refused(stllm, tiny_bundle, *options)


@without_gpu
def test_jetson_engines_are_built_on_a_jetson(stllm: Any, tiny_bundle: Path) -> None:
    message = refused(stllm, tiny_bundle, "--target", "orin-nano")
    assert "TensorRT builds on the device itself, compute capability 8.7, and here there is no GPU" in message


@without_gpu
def test_without_a_gpu_a_target_has_to_be_named(stllm: Any, tiny_bundle: Path) -> None:
    assert "there is no GPU here to build for; name one of orin-nano" in refused(stllm, tiny_bundle)


def test_a_missing_library_is_named(stllm: Any, tiny_bundle: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    message = refused(stllm, tiny_bundle, "--target", "rtx-ada", "--check")
    assert "tensorrt-rtx is not installed" in message
    assert "pip install tensorrt-rtx-cu12" in message


def test_a_library_that_does_not_load_is_named(
    stllm: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text('raise OSError("libnvinfer.so: cannot open shared object file")')
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(stllm, tiny_bundle, "--target", "rtx-ada", "--check")
    assert "tensorrt-rtx is not installed (libnvinfer.so: cannot open shared object file)" in message


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="TensorRT takes paths in UTF-8 only; rename the bundle"):
        builder().refusals(tmp_path / "b\udcff" / "vision.onnx")


def test_a_bundle_from_before_tensorrt_says_what_to_run(stllm: Any, bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    del manifest["encoders"]["fp32"]["vision"]["tensorrt"]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    message = refused(stllm, bundle_copy, "--check")
    assert "has no graph of vision for TensorRT; run stllm-export onnx again with --force" in message


def test_a_damaged_graph_is_noticed(stllm: Any, bundle_copy: Path) -> None:
    graph = bundle_copy / "onnx/vision.tensorrt.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "vision.tensorrt.onnx: has" in refused(stllm, bundle_copy, "--check")


def refused(stllm: Any, bundle: Path, *options: str) -> str:
    """The only line that a command prints, with status 2."""
    result = stllm("export", "tensorrt", "--bundle", bundle, *options)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return str(result.stderr)
