"""Encoders in processes of their own: the same results, ends at once, and reasons for those that were not asked for."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from stllm_edge.runtime import BadBundle, MissingDependency, Options, Session, StllmError, load_clip, load_scene
from stllm_edge.runtime.encoders.child import ChildEncoder
from stllm_edge.runtime.encoders.local import LocalEncoder
from stllm_edge.runtime.memory.counters import own_usage

ENDLESS = np.array(2**62)
SOON = 10.0


def wait_until(reached: Callable[[], bool]) -> None:
    """Look again and again; far below what a graph of these tests would take, far above what an end takes."""
    deadline = time.monotonic() + SOON
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    """No test of this file leaves a process behind, running or not."""
    before = children()
    yield
    wait_until(lambda: children() <= before)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that counts to its input, inside ONNX Runtime."""
    one = helper.make_node("Add", ["sum", "step"], ["sum_out"])
    going = helper.make_node("Identity", ["going"], ["going_out"])
    values = [("turn", TensorProto.INT64, []), ("going", TensorProto.BOOL, []), ("sum", TensorProto.INT64, [])]
    body = helper.make_graph(
        [one, going],
        "body",
        [helper.make_tensor_value_info(*value) for value in values],
        [helper.make_tensor_value_info(f"{name}_out", *rest) for name, *rest in values[1:]],
    )
    loop = helper.make_node("Loop", ["count", "", "start"], ["total"], body=body)
    constants = [helper.make_tensor(name, TensorProto.INT64, [], [at]) for name, at in (("start", 0), ("step", 1))]
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("count", "total")]
    graph = helper.make_graph([loop], "counting", ends[:1], ends[1:], constants)
    file = tmp_path_factory.mktemp("counting") / "counting.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


FAKE = """
import ctypes, os, signal, sys
{imported}
class GraphOptimizationLevel: ...
class SessionOptions: ...
class RunOptions: ...
class InferenceSession:
    def __init__(self, path, options, providers): ...
    def get_providers(self): return ["CPUExecutionProvider"]
    def run(self, names, inputs, running):
        {run}
        return [inputs["frames"]]
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ChildEncoder]:
    """Starts a process with another ONNX Runtime, which does as a test says as it is imported or run."""

    def start(run: str = "pass", imported: str = "") -> ChildEncoder:
        (tmp_path / "onnxruntime.py").write_text(FAKE.format(run=run, imported=imported))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        return ChildEncoder(Path("fake.onnx"), 1)

    return start


def test_both_give_the_same_bits(vision: Path, frames: np.ndarray) -> None:
    local, child = LocalEncoder(vision, 1), ChildEncoder(vision, 1)
    with local, child:
        for part in (frames, frames[:1], frames[::-1, :, ::-1]):
            ours, expected = child(frames=part), local(frames=part)
            assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
            assert ours.tobytes() == expected.tobytes()


def test_a_session_gives_the_same_either_way(tiny_bundle: Path, inputs: Any, rel_rms: Any) -> None:
    """To rounding: ONNX Runtime's products may depend on where buffers lie, so bits are not promised."""
    stages = []
    for resident in (False, True):
        session = Session(tiny_bundle, Options(precision="fp32", quant="F32", threads=1, resident=resident))
        view = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
        prefix = session.stages.aligner(
            view.points, session.stages.host.encode_rays(view.rays), view.pooled_features, np.ones((3, 256), np.float32)
        )
        stages.append({**view.stages(), "prefix": prefix})
    for name, values in stages[0].items():
        assert values.shape == stages[1][name].shape
        assert rel_rms(values, stages[1][name]) <= 1e-6, name


def test_an_output_is_the_callers(vision: Path, frames: np.ndarray) -> None:
    with ChildEncoder(vision, 1) as child:
        first = child(frames=frames)
        before = first.copy()
        child(frames=-frames)
    assert np.array_equal(first, before)


def test_usage_is_that_of_the_process_that_runs_the_graph(vision: Path, frames: np.ndarray) -> None:
    with ChildEncoder(vision, 1) as child:
        assert child.usage.peak == 0
        child(frames=frames)
        assert 2**23 < child.usage.peak < own_usage().peak + 2**30


def test_an_array_counts_once_in_each_process(fake: Any) -> None:
    """The child's copy in the child; nothing that both map in both."""
    size = 2**26
    with fake() as child:
        child(frames=np.zeros(1))
        before, ours = child.usage, own_usage()
        child(frames=np.ones(size, np.uint8))
        child(frames=np.ones(size, np.uint8))
        assert 0.9 * size < child.usage.anonymous - before.anonymous < 1.2 * size
        assert own_usage().anonymous - ours.anonymous < 0.5 * size


class TestPrinting:
    def test_what_libraries_print_reaches_standard_error_and_not_the_results(self, fake: Any, capfd: Any) -> None:
        noise = "print('from Python'); ctypes.CDLL(None).puts(b'from C'); os.write(1, b'{}\\n'); os.write(2, b'E\\n')"
        with fake(noise, "print('imported')") as child:
            for value in range(3):
                assert child(frames=np.full(3, value)).tolist() == [value] * 3
        printed = []

        def all_there() -> bool:
            printed.append(capfd.readouterr())
            return "".join(piece.err for piece in printed).count("from C\n") == 3

        wait_until(all_there)
        err = "".join(piece.err for piece in printed)
        assert (err.count("imported\n"), err.count("from Python\n"), err.count("{}\n"), err.count("E\n")) == (
            1,
            3,
            3,
            3,
        )
        assert not any(piece.out for piece in printed)

    def test_much_that_is_printed_before_the_first_call_holds_nothing_up(self, fake: Any, capfd: Any) -> None:
        with fake(imported="print('x' * 10**6)") as child:
            assert child(frames=np.zeros(1)) == [0]

    def test_standard_output_stays_as_it_was(self, vision: Path) -> None:
        program = (
            "import numpy as np; from pathlib import Path; from stllm_edge.runtime.encoders.child import ChildEncoder\n"
            f"with ChildEncoder(Path({str(vision)!r}), 1) as child:\n"
            "    print(child(frames=np.zeros((1, 3, 56, 56), np.float32)).shape)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert (done.stdout, done.stderr) == (b"(1, 2, 3, 256)\n", b"")


class TestEnd:
    def test_an_unused_process_ends_at_once(self, vision: Path) -> None:
        child = ChildEncoder(vision, 1)
        child.close()
        child.close()
        with pytest.raises(StllmError, match=r"vision\.onnx: its process is not used again: it was closed"):
            child(frames=np.zeros(1))

    def test_leaving_by_an_error_ends_the_process(self, counting: Path) -> None:
        with pytest.raises(ZeroDivisionError), ChildEncoder(counting, 1):
            1 / 0  # noqa: B018

    def test_closing_ends_a_graph_that_runs(self, counting: Path) -> None:
        child = ChildEncoder(counting, 1)
        assert child(count=np.array(5)) == 5
        timer = threading.Timer(0.2, child.close)
        timer.start()
        with pytest.raises(StllmError, match=r"counting\.onnx: closed while its graph ran"):
            child(count=ENDLESS)
        timer.join()

    def test_an_interrupt_ends_a_graph_that_runs(self, counting: Path) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with ChildEncoder(counting, 1) as child:
                child(count=np.array(1))
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(KeyboardInterrupt):
                    child(count=ENDLESS)
                with pytest.raises(StllmError, match=r"not used again: an earlier call failed \(KeyboardInterrupt\)"):
                    child(count=np.array(1))
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_signals_handler_may_close_in_the_midst_of_a_call(self, counting: Path) -> None:
        child = ChildEncoder(counting, 1)
        child(count=np.array(1))
        before = signal.signal(signal.SIGALRM, lambda *_: child.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(StllmError, match="closed while its graph ran"):
                child(count=ENDLESS)
        finally:
            signal.signal(signal.SIGALRM, before)

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_no_graph_outlives_its_parent(self, how: signal.Signals, counting: Path) -> None:
        """SIGINT goes to the whole group, as Ctrl-C does."""
        program = (
            # a shell's background jobs, of which this may be one, ignore it
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "import numpy as np; from pathlib import Path; from stllm_edge.runtime.encoders.child import ChildEncoder\n"
            f"with ChildEncoder(Path({str(counting)!r}), 1) as child:\n"
            "    child(count=np.array(1)); print(child._process.pid, flush=True); child(count=np.array(2**62))"
        )
        command = [sys.executable, "-c", program]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            time.sleep(0.2)
            assert is_running(child)
            os.killpg(parent.pid, how)
            wait_until(lambda: not is_running(child))
            errors = parent.communicate(timeout=SOON)[1]
        assert parent.returncode == -how
        assert errors.count("Traceback") == (how == signal.SIGINT)

    def test_an_interrupt_that_the_program_handles_itself_ends_nothing(self, counting: Path) -> None:
        program = (
            "import numpy as np, os, signal; from pathlib import Path\n"
            "from stllm_edge.runtime.encoders.child import ChildEncoder\n"
            "signal.signal(signal.SIGINT, lambda *_: None)\n"
            f"with ChildEncoder(Path({str(counting)!r}), 1) as child:\n"
            "    for count in range(3): os.killpg(0, signal.SIGINT); print(child(count=np.array(count)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, start_new_session=True)
        assert (done.stdout, done.stderr) == ("0\n1\n2\n", "")

    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_it_ends_when_it_is_forgotten(self, counting: Path) -> None:
        child = ChildEncoder(counting, 1)
        child(count=np.array(1))
        number = child._process.pid
        del child
        gc.collect()
        wait_until(lambda: number not in children())

    def test_it_outlives_the_thread_that_started_it(self, counting: Path) -> None:
        started: list[ChildEncoder] = []
        thread = threading.Thread(target=lambda: started.append(ChildEncoder(counting, 1)))
        thread.start()
        thread.join()
        with started[0] as child:
            assert child(count=np.array(7)) == 7

    def test_nothing_is_left_after_many(self, counting: Path, vision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def held() -> tuple[int, set[int], int, int]:
            descriptors, segments = Path("/proc/self/fd"), Path("/dev/shm")
            return len(list(descriptors.iterdir())), children(), threading.active_count(), len(list(segments.iterdir()))

        before = held()
        for count in range(50):
            with ChildEncoder(counting, 1) as child:
                if count % 10 == 0:
                    child(count=np.array(count))
                if count % 10 == 1:
                    with pytest.raises(StllmError):
                        child(amount=np.array(1))
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        with pytest.raises(StllmError, match=r"vision\.onnx: a process for it could not be started .*nonexistent"):
            ChildEncoder(vision, 1)
        wait_until(lambda: held() == before)


class TestReasons:
    def test_after_an_error_further_calls_are_refused(self, vision: Path, frames: np.ndarray) -> None:
        with ChildEncoder(vision, 1) as child:
            with pytest.raises(StllmError, match="failed in ONNX Runtime"):
                child(frames=np.zeros((1, 3, 8, 8), np.float32))
            wait_until(lambda: not is_running(child._process.pid))
            words = r"vision\.onnx: its process is not used again: an earlier call failed \(.*ONNX Runtime"
            for _ in range(2):
                with pytest.raises(StllmError, match=words):
                    child(frames=frames)

    @pytest.mark.parametrize("served", [0, 1], ids=["before a request", "between requests"])
    def test_a_killed_process_most_likely_lacked_memory(self, served: int, vision: Path, frames: np.ndarray) -> None:
        with ChildEncoder(vision, 1) as child:
            for _ in range(served):
                child(frames=frames)
            os.kill(child._process.pid, signal.SIGKILL)
            words = (
                r"vision\.onnx: its process was killed, most likely because memory ran out; fewer --frames need less"
            )
            with pytest.raises(StllmError, match=words):
                child(frames=np.zeros((200, 3, 56, 56), np.float32))

    @pytest.mark.parametrize(
        ("end", "kind", "words"),
        [
            ("os.kill(os.getpid(), signal.SIGTERM)", StllmError, "was ended by SIGTERM$"),
            ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", StllmError, r"was ended by signal \d+$"),
            ("os.write(2, b'what(): bad\\n'); os.abort()", StllmError, r"was ended by SIGABRT \(what\(\): bad\)$"),
            ("os.kill(os.getpid(), signal.SIGILL)", MissingDependency, "SIGILL: a library is built for another CPU$"),
            ("os.write(1, b'\\x1b[1mno GPU\\n\\n'); os._exit(3)", StllmError, r"ended with status 3 \(.*no GPU\)$"),
            ("raise SystemExit('the licence ended')", StllmError, r"ended with status 1 \(the licence ended\)$"),
        ],
    )
    def test_other_ends_are_told_as_they_are(self, end: str, kind: Any, words: str, fake: Any) -> None:
        with fake(end) as child, pytest.raises(StllmError, match=rf"^fake\.onnx: its process .*{words}") as caught:
            child(frames=np.zeros(3))
        assert type(caught.value) is kind
        assert "memory" not in str(caught.value)

    def test_an_exception_that_nobody_expected_is_told(self, fake: Any) -> None:
        with (
            # past the import, where no failure is a library's
            fake(imported="sys.modules['stllm_edge.runtime.encoders.worker'].load = lambda *_: 1 / 0") as child,
            pytest.raises(StllmError, match=r"ended with status 1 \(ZeroDivisionError: division by zero\)"),
        ):
            child(frames=np.zeros(3))

    @pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError", "AttributeError"])
    def test_a_library_that_does_not_load_is_told_as_it_is(self, kind: str, fake: Any) -> None:
        reason = "libonnxruntime.so.1: cannot open shared object file"
        with (
            fake(imported=f"raise {kind}({reason!r})") as child,
            pytest.raises(MissingDependency, match=rf"ONNX Runtime does not load \({reason}\)"),
        ):
            child(frames=np.zeros((200, 3, 56, 56), np.float32))

    def test_a_graph_that_is_refused_is_refused_by_the_first_call(self, tmp_path: Path) -> None:
        (tmp_path / "bad.onnx").write_bytes(b"nonsense")
        with (
            ChildEncoder(tmp_path / "bad.onnx", 1) as child,
            pytest.raises(BadBundle, match=r"bad\.onnx: ONNX Runtime"),
        ):
            child(frames=np.zeros((200, 3, 56, 56), np.float32))


def test_modules_in_the_current_folder_shadow_nothing(
    vision: Path, frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every Python: nothing here uses the option and the variable that some versions have for it."""
    names = ("numpy", "json", "onnxruntime", "ctypes", "fcntl", "pathlib", "tensorrt", "stllm_edge")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with ChildEncoder(vision, 1) as child:
        assert child(frames=frames).shape == (2, 2, 3, 256)
