"""Graphs on ONNX Runtime; what is refused is refused alike in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle, MissingDependency, StllmError
from stllm_edge.runtime.encoders.child import ChildEncoder
from stllm_edge.runtime.encoders.local import LocalEncoder
from stllm_edge.runtime.host.maps import KernelMaps


def test_an_output_can_stay_where_it_is_until_another_encoder_takes_it(tiny_bundle: Path) -> None:
    """On the CPU, whose memory is the only one here; a GPU's provider binds in the same way."""
    generator = np.random.default_rng(0)
    coords = np.argwhere(np.ones((6, 5, 4))).astype(np.int32)
    feats = generator.uniform(-1, 1, (len(coords), 3)).astype(np.float32)
    given = {
        name: generator.normal(size=(rows, columns)).astype(np.float32)
        for name, rows, columns in (
            ("pcd_rays", len(coords), 387),
            ("pooled_features", 8, 256),
            ("img_rays", 8, 387),
            ("text_embeds", 3, 256),
        )
    }
    maps = KernelMaps.build(coords).inputs()
    prefixes = []
    for keep in (False, True):
        with LocalEncoder(tiny_bundle / "onnx/points.onnx", 1, keep=keep) as points:
            features = points(voxel_feats=feats, **maps)
        assert isinstance(features, np.ndarray) != keep
        assert features.shape == (len(coords), 128)
        with LocalEncoder(tiny_bundle / "onnx/aligner.onnx", 1) as aligner:
            prefixes.append((np.asarray(features), aligner(pcd_features=features, **given)))
    (features, prefix), (kept_features, kept_prefix) = prefixes
    assert np.array_equal(features, kept_features)
    assert np.allclose(prefix, kept_prefix, rtol=1e-5, atol=1e-6)


def test_literal_graphs_keep_their_casts(tiny_bundle: Path, frames: np.ndarray, rel_rms: Any) -> None:
    file = tiny_bundle / "onnx/vision.fp16.onnx"
    with LocalEncoder(file, 1, literal=True) as literal, ChildEncoder(file, 1, literal=True) as child:
        rounded = literal(frames=frames)
        assert child(frames=frames).tobytes() == rounded.tobytes()
    with LocalEncoder(file, 1) as optimised:
        assert rel_rms(optimised(frames=frames), rounded) > 1e-5


@pytest.mark.parametrize("kind", [LocalEncoder, ChildEncoder])
@pytest.mark.parametrize("content", [b"", b"nonsense"], ids=["empty", "nonsense"])
def test_a_file_that_is_no_graph_is_refused_in_one_line(kind: Any, content: bytes, tmp_path: Path, frames: Any) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(BadBundle, match=r"bad\.onnx: ONNX Runtime could not load it") as caught:
        run_once(kind, tmp_path / "bad.onnx", frames=frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [LocalEncoder, ChildEncoder])
def test_a_graph_without_its_weights_is_refused(kind: Any, vision: Path, tmp_path: Path) -> None:
    """Its process ends before it has read inputs that fill the pipe."""
    (tmp_path / "vision.onnx").write_bytes(vision.read_bytes())
    with pytest.raises(BadBundle, match=r"vision\.onnx: ONNX Runtime could not load it.*vision\.data"):
        run_once(kind, tmp_path / "vision.onnx", frames=np.zeros((200, 3, 56, 56), np.float32))


@pytest.mark.parametrize("kind", [LocalEncoder, ChildEncoder])
def test_inputs_that_do_not_fit_are_one_line(kind: Any, vision: Path) -> None:
    with pytest.raises(StllmError, match=r"vision\.onnx: failed in ONNX Runtime") as caught:
        run_once(kind, vision, frames=np.zeros((1, 3, 8, 8), np.float32))
    assert "\n" not in str(caught.value)


def run_once(kind: Any, path: Path, **arrays: np.ndarray) -> None:
    with kind(path, 1) as encoder:
        encoder(**arrays)


def test_a_runtime_that_is_not_installed_or_does_not_load_is_told_apart(
    vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"ONNX Runtime is not installed .*stllm-edge\[cpu\]"):
        LocalEncoder(vision, 1)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    (tmp_path / "onnxruntime.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"ONNX Runtime does not load \(libgomp\.so\.1: cannot open"):
        LocalEncoder(vision, 1)


RUN = """
import subprocess, sys
from pathlib import Path
import numpy as np
from stllm_edge.runtime.encoders.{module} import {kind}
with {kind}(Path(sys.argv[1]), 1) as encoder:
    encoder(frames=np.zeros((1, 3, 56, 56), np.float32))
subprocess.run([sys.executable, "-c", {then!r}, sys.argv[1]], check=True)
"""
PLAIN = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
PROCESSES = {
    "this process": ("local", "LocalEncoder", ""),
    "an encoder's process": ("child", "ChildEncoder", ""),
    "a program that this one starts": ("local", "LocalEncoder", PLAIN),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_onnx_runtime_leaves_nothing_in_the_user_s_home(name: str, vision: Path, tmp_path: Path) -> None:
    """Its telemetry, which looks up a server too, would keep a number of the device and a store of events there."""
    module, kind, then = PROCESSES[name]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    program = RUN.format(module=module, kind=kind, then=then)
    subprocess.run([sys.executable, "-c", program, vision], env=environment | {"HOME": str(tmp_path)}, check=True)
    assert [str(file) for file in tmp_path.rglob("*")] == []
