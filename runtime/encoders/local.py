"""The encoders, on ONNX Runtime or as TensorRT engines: arrays in, arrays out, here or in a process of their own."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ..errors import BadBundle, BadInput, MissingDependency, StllmError
from ..memory.counters import Usage, own_usage

__all__ = ["CPU_PROVIDER", "ChildEncoder", "Encoder", "Kept", "LocalEncoder", "load", "serve"]

CPU_PROVIDER = "CPUExecutionProvider"
ENGINE = ".engine"
# where a provider's memory is, by the name that ONNX Runtime's binding takes; the other providers are on a GPU
MEMORY = {CPU_PROVIDER: "cpu"}
GPU = "cuda"


class Kept(Protocol):
    """An output that stays in the memory where it was computed; numpy copies it when it reads it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray: ...


class Encoder(Protocol):
    """One loaded graph; a context manager."""

    def __enter__(self) -> "Encoder": ...
    def __exit__(self, *exception: object) -> None: ...

    def __call__(self, **inputs: Any) -> Any:
        """Run the graph on arrays by name; one that an encoder in this process kept may be among them."""
        ...

    @property
    def usage(self) -> Usage:
        """Peak memory of the process that runs the graph."""
        ...


def load(
    path: Path,
    threads: int,
    literal: bool = False,
    providers: Sequence[str] = (CPU_PROVIDER,),
    keep: bool = False,
) -> Encoder:
    """A TensorRT engine, or a graph on ONNX Runtime, in this process; arguments as those of `LocalEncoder`."""
    if path.suffix != ENGINE:
        return LocalEncoder(path, threads, literal, providers, keep)
    from .tensorrt import EngineEncoder

    return EngineEncoder(path, path.with_suffix(".json"), keep)


class LocalEncoder:
    """A graph in this process; ONNX Runtime keeps part of its memory after it is closed."""

    def __init__(
        self,
        path: Path,
        threads: int,
        literal: bool = False,
        providers: Sequence[str] = (CPU_PROVIDER,),
        keep: bool = False,
    ):
        """Load a graph.

        Args:
            path: the graph.
            threads: of the CPU.
            literal: keep every cast of the graph, which is slow.
            providers: ONNX Runtime's execution providers, the preferred one first.
            keep: leave outputs in the memory of the first provider, as `Kept`.

        Raises:
            MissingDependency: ONNX Runtime is not installed, or its first provider does not start.
            BadBundle: ONNX Runtime refuses the graph.
        """
        runtime = onnx_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if path.name.startswith("points"):
            # its weights are used in slices, so packed copies would only take memory
            options.add_session_config_entry("session.disable_prepacking", "1")
        # sizes change from scene to scene, so plans for reuse only cost time, which grows as the square of the nodes
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        if literal:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's exceptions have no public base
            raise BadBundle(f"{path}: ONNX Runtime could not load it ({first_line(error)}); export it again") from None
        if providers[0] not in self._session.get_providers():
            raise MissingDependency(f"ONNX Runtime could not start its {providers[0]}; use --device cpu")
        self._path = path
        self._kept_in = MEMORY.get(providers[0], GPU) if keep else None

    def __call__(self, **inputs: Any) -> Any:
        """Run the graph; raises StllmError when ONNX Runtime fails."""
        try:
            if self._kept_in or any(isinstance(values, KeptValue) for values in inputs.values()):
                return self._run_bound(inputs)
            (output,) = self._session.run(None, {name: np.asarray(values) for name, values in inputs.items()})
        except Exception as error:
            raise StllmError(f"{self._path}: failed in ONNX Runtime ({first_line(error)})") from None
        return np.asarray(output)

    def _run_bound(self, inputs: Mapping[str, Any]) -> Any:
        """Run on inputs where they are, and leave the output where it is wanted."""
        binding = self._session.io_binding()
        for name, values in inputs.items():
            if isinstance(values, KeptValue):
                binding.bind_ortvalue_input(name, values.value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(values))
        binding.bind_output(self._session.get_outputs()[0].name, self._kept_in or "cpu")
        self._session.run_with_iobinding(binding)
        (output,) = binding.get_outputs()
        return KeptValue(output) if self._kept_in else output.numpy()

    @property
    def usage(self) -> Usage:
        return own_usage()

    def __enter__(self) -> "LocalEncoder":
        return self

    def __exit__(self, *exception: object) -> None:
        del self._session


class KeptValue:
    """An output of ONNX Runtime in the memory of its provider."""

    def __init__(self, value: Any):
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value.numpy(), dtype)


class ChildEncoder:
    """A graph in a short-lived process, which gives all its memory back at the end.

    Arrays travel over pipes as one line of JSON with names, types and shapes, and then their bytes.
    """

    def __init__(self, path: Path, threads: int, literal: bool = False, providers: Sequence[str] = (CPU_PROVIDER,)):
        """Start the process; it loads the graph or the engine meanwhile.

        Raises:
            MissingDependency: ONNX Runtime is not installed.
        """
        self._path = path
        self._usage = Usage()
        arguments = [str(path), str(threads), str(int(literal)), ",".join(providers)]
        command = [sys.executable, "-m", __package__ + ".worker", *arguments]
        # modules in the current folder must not shadow the installed ones
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Run the graph.

        Raises:
            StllmError: ONNX Runtime failed, or the process was killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            # a process that failed early reads no more; its reply says why
            with contextlib.suppress(BrokenPipeError):
                write_arrays(self._process.stdin, inputs)
            head = read_head(self._process.stdout)
            if "error" in head:
                raise ERRORS[head["error"]](head["message"])
            self._usage = Usage(**head["usage"])
            return read_arrays(self._process.stdout, head)["output"]
        except EOFError:
            status = self._process.wait()
            killed = "killed, most likely for want of memory" if status == -9 else f"gone with status {status}"
            raise StllmError(f"{self._path.name}: its process was {killed}; fewer --frames need less") from None

    @property
    def usage(self) -> Usage:
        return self._usage

    def __enter__(self) -> "ChildEncoder":
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


ERRORS: dict[str, type[StllmError]] = {
    kind.__name__: kind for kind in (StllmError, BadBundle, BadInput, MissingDependency)
}


def serve(
    path: Path,
    threads: int,
    literal: bool,
    requests: IO[bytes],
    replies: IO[bytes],
    providers: Sequence[str] = (CPU_PROVIDER,),
) -> None:
    """Answer requests of a `ChildEncoder` until there are no more."""
    try:
        encoder = load(path, threads, literal, providers)
        while True:
            try:
                head = read_head(requests)
            except EOFError:
                return
            output = encoder(**read_arrays(requests, head))
            write_arrays(replies, {"output": output}, usage=encoder.usage.__dict__)
    except StllmError as error:
        replies.write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")
        replies.flush()


def write_arrays(stream: IO[bytes], arrays: Mapping[str, np.ndarray], **extra: Any) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = {name: [array.dtype.str, array.shape] for name, array in contiguous.items()}
    stream.write(json.dumps({"arrays": described, **extra}).encode() + b"\n")
    for array in contiguous.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_head(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head: dict[str, Any] = json.loads(line)
    return head


def read_arrays(stream: IO[bytes], head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in head["arrays"].items()}
    for array in arrays.values():
        rest = array.reshape(-1).view(np.uint8).data
        while len(rest):
            count = stream.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            rest = rest[count:]
    return arrays


def onnx_runtime() -> Any:
    """The onnxruntime module; raises MissingDependency with both ways to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"ONNX Runtime is not installed ({error}); pip install 'stllm-edge[cpu]', or 'stllm-edge[gpu]' for CUDA "
            "(never both, they overwrite each other)"
        ) from None
    return onnxruntime


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
