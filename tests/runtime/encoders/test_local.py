"""Encoders in this process and in one of their own."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle, Options, Session, StllmError, View, load_clip, load_scene
from stllm_edge.runtime.encoders.local import ChildEncoder, LocalEncoder, read_arrays, read_head, serve, write_arrays
from stllm_edge.runtime.host.maps import KernelMaps
from stllm_edge.runtime.memory.counters import own_usage


@pytest.fixture(scope="module")
def vision(tiny_bundle: Path) -> Path:
    """A graph."""
    return tiny_bundle / "onnx/vision.onnx"


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 56, 56)).astype(np.float32)


def children() -> set[int]:
    """Processes that this one started and has not waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        if int(rest.rpartition(")")[2].split()[1]) == os.getpid():
            found.add(int(number))
    return found


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    """No test of this file leaves a process behind."""
    before = children()
    yield
    assert children() <= before


def test_both_give_the_same_bits(vision: Path, frames: np.ndarray) -> None:
    local, child = LocalEncoder(vision, 1), ChildEncoder(vision, 1)
    with local, child:
        for part in (frames, frames[:1], frames[::-1, :, ::-1]):
            ours, expected = child(frames=part), local(frames=part)
            assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
            assert ours.tobytes() == expected.tobytes()


def align(session: Session, view: View, text: np.ndarray) -> np.ndarray:
    rays = session.stages.host.encode_rays(view.rays)
    return session.stages.aligner(view.points, rays, view.pooled_features, text)


def test_a_session_gives_the_same_either_way(tiny_bundle: Path, inputs: Any, rel_rms: Any) -> None:
    """To rounding: ONNX Runtime's products may depend on where buffers lie, so bits are not promised."""
    stages = []
    for resident in (False, True):
        session = Session(tiny_bundle, Options(precision="fp32", quant="F32", threads=1, resident=resident))
        view = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
        prefix = align(session, view, np.ones((3, 256), np.float32))
        stages.append({**view.stages(), "prefix": prefix})
    for name, values in stages[0].items():
        assert values.shape == stages[1][name].shape
        assert rel_rms(values, stages[1][name]) <= 1e-6, name


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


def test_usage_is_that_of_the_process_that_runs_the_graph(vision: Path, frames: np.ndarray) -> None:
    with ChildEncoder(vision, 1) as child:
        assert child.usage.peak == 0
        child(frames=frames)
        assert 2**23 < child.usage.peak < own_usage().peak + 2**30
    with LocalEncoder(vision, 1) as local:
        assert local.usage.peak > 0


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


@pytest.mark.parametrize("served", [0, 1], ids=["before a request", "between requests"])
def test_a_killed_process_is_one_line(served: int, vision: Path, frames: np.ndarray) -> None:
    with ChildEncoder(vision, 1) as child:
        for _ in range(served):
            child(frames=frames)
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(StllmError, match=r"vision\.onnx: its process was killed, most likely for want of memory"):
            child(frames=np.zeros((200, 3, 56, 56), np.float32))


def test_a_process_that_ends_by_itself_is_one_line(vision: Path, frames: np.ndarray) -> None:
    with ChildEncoder(vision, 1) as child:
        os.kill(child._process.pid, signal.SIGTERM)
        with pytest.raises(StllmError, match="its process was gone with status -15"):
            child(frames=frames)


def test_leaving_by_an_error_ends_the_process(vision: Path) -> None:
    with pytest.raises(ZeroDivisionError), ChildEncoder(vision, 1) as child:
        1 / 0  # noqa: B018
    assert child._process.returncode == 0


def test_a_process_does_not_outlive_a_killed_parent(vision: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from stllm_edge.runtime.encoders.local import ChildEncoder\n"
        f"print(ChildEncoder(Path({str(vision)!r}), 1)._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ARRAYS = {
    "none": {},
    "several": {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.float32([[[1.5]]])},
    "empty": {"a": np.zeros((0, 4), np.float32), "b": np.zeros(3, np.int64)},
    "strided": {"a": np.arange(24).reshape(4, 6)[::2, ::-3].T},
    "half": {"a": np.arange(5, dtype=np.float16)},
}


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_arrays_travel_unchanged(arrays: dict[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    write_arrays(stream, arrays, usage={"peak": 3})
    stream.seek(0)
    head = read_head(stream)
    read = read_arrays(stream, head)
    assert head["usage"] == {"peak": 3}
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array)
    with pytest.raises(EOFError):
        read_head(stream)


def test_a_stream_that_ends_within_an_array_is_noticed() -> None:
    stream = io.BytesIO()
    write_arrays(stream, {"a": np.zeros(10)})
    short = io.BytesIO(stream.getvalue()[:-1])
    with pytest.raises(EOFError):
        read_arrays(short, read_head(short))


def test_serving_answers_each_request_and_then_ends(vision: Path, frames: np.ndarray) -> None:
    requests, replies = io.BytesIO(), io.BytesIO()
    for part in (frames, frames[:1]):
        write_arrays(requests, {"frames": part})
    requests.seek(0)
    serve(vision, 1, False, requests, replies)
    replies.seek(0)
    shapes = [read_arrays(replies, read_head(replies))["output"].shape for _ in range(2)]
    assert shapes == [(2, 2, 3, 256), (1, 2, 3, 256)]
    assert replies.read() == b""
