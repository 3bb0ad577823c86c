"""A TensorRT engine as an encoder, with its memory on the GPU and its stream.

All that needs a GPU is in this file, and no test of the project runs it.
"""

import ctypes
import importlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadBundle, MissingDependency, StllmError
from ..memory.counters import Usage, own_usage
from .engines import Sidecar, choose_profile
from .gpu import driver

__all__ = ["INSTALL", "EngineEncoder", "installed_versions", "load_library"]

# of CUresult
OUT_OF_MEMORY = 2
# Python packages by the name of the backend
PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "on Jetson it comes with JetPack (apt install python3-libnvinfer), elsewhere: pip install tensorrt",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu12, or stllm-edge with its extra rtx",
}


class EngineEncoder:
    """An engine with its execution context, buffers and stream.

    Inputs are copied to the GPU and the engine runs in the stream that all engines of a process share; buffers are kept
    from call to call and grow to the largest call. Memory for activations is that of the profile in use.
    """

    def __init__(self, engine: Path, sidecar: Path, keep: bool = False):
        """Load an engine that `find_engines` accepted; `keep` leaves outputs on the GPU, as `KeptBuffer`.

        Raises:
            BadBundle: TensorRT refuses it.
            StllmError: TensorRT does not start, or has no memory.
        """
        self._sidecar = Sidecar.read(sidecar)
        library = load_library(self._sidecar.backend)
        self._stream = shared_stream()
        try:
            self._runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        # the binding's only sign that the library returned no object
        except TypeError as error:
            raise StllmError(f"{self._sidecar.backend} does not start on this GPU ({error})") from None
        # mapped: on a board, a copy in memory would lie beside the engine that is made of it
        self._engine = self._runtime.deserialize_cuda_engine(np.memmap(engine, np.uint8, "r"))
        if self._engine is None:
            raise BadBundle(
                f"{engine}: TensorRT {library.__version__} could not load it; if memory is free (fewer --frames need "
                f"less), run stllm-export tensorrt --target {self._sidecar.target} again with --force"
            )
        allocation = library.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        self._context = self._engine.create_execution_context(allocation)
        if self._context is None:
            raise StllmError(f"{engine}: there is no memory for its activations; build it with a smaller --profile")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
        (self._output,) = set(names) - set(self._inputs)
        self._dtype = np.dtype(library.nptype(self._engine.get_tensor_dtype(self._output)))
        self._buffers = {name: Buffer() for name in names}
        self._profile, self._keep = -1, keep

    def __call__(self, **inputs: Any) -> Any:
        """Run the engine; raises BadInput when no profile takes the inputs, StllmError when TensorRT fails."""
        profile = choose_profile(self._sidecar, {name: values.shape for name, values in inputs.items()})
        # each change allocates the activations again
        if profile != self._profile:
            self._require(self._context.set_optimization_profile_async(profile, self._stream.handle.value), "profile")
            self._profile = profile
        # held until the stream has copied them
        held = {name: contiguous(values) for name, values in inputs.items()}
        for name, values in held.items():
            self._require(self._context.set_input_shape(name, values.shape), f"{name} {values.shape}")
            self._require(self._context.set_tensor_address(name, self._address(name, values)), name)
        shape = tuple(self._context.get_tensor_shape(self._output))
        # the next call must not overwrite an output that is kept
        buffer = Buffer() if self._keep else self._buffers[self._output]
        size = math.prod(shape) * self._dtype.itemsize
        # CUDA allocates no buffers of zero bytes
        self._require(self._context.set_tensor_address(self._output, buffer.reserve(max(1, size))), self._output)
        self._require(self._context.execute_async_v3(self._stream.handle.value), "run")
        self._stream.wait()
        output = KeptBuffer(buffer, shape, self._dtype)
        return output if self._keep else np.asarray(output)

    def _require(self, accepted: bool, what: str) -> None:
        """Raise StllmError when TensorRT did not accept something."""
        if not accepted:
            raise StllmError(f"{self._sidecar.encoder}: TensorRT refused its engine's {what}")

    def _address(self, name: str, values: Any) -> int:
        """Where an input lies on the GPU; one that was not kept there is copied."""
        if isinstance(values, KeptBuffer):
            return values.buffer.address.value
        return self._buffers[name].upload(values, self._stream)

    def stop(self) -> None:
        """Nothing ends an engine that runs; what follows it does not begin."""

    def resume(self) -> None:
        """As it was."""

    @property
    def usage(self) -> Usage:
        return own_usage()

    def __enter__(self) -> "EngineEncoder":
        return self

    def __exit__(self, *exception: object) -> None:
        del self._buffers, self._context, self._engine, self._runtime


def call(function: str, *arguments: Any) -> None:
    """Call the driver in the GPU's context, which is current for one thread; raises StllmError with its status."""
    status = driver().cuCtxSetCurrent(primary_context()) or getattr(driver(), function)(*arguments)
    if status == OUT_OF_MEMORY:
        raise StllmError(f"{function} failed: the GPU's memory is full; fewer --frames need less")
    if status:
        raise StllmError(f"{function} failed with CUDA status {status}")


@cache
def primary_context() -> ctypes.c_void_p:
    """The context that TensorRT uses too; raises StllmError when it cannot be made."""
    context = ctypes.c_void_p()
    if status := driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), 0):
        raise StllmError(f"the GPU cannot be used: CUDA status {status}")
    return context


class Stream:
    """A queue of work on the GPU."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(self.handle), 0)

    def wait(self) -> None:
        """Return when all work is done."""
        call("cuStreamSynchronize", self.handle)


@cache
def shared_stream() -> Stream:
    """The one stream of this process: what is queued in it runs in order."""
    return Stream()


class Buffer:
    """Memory on the GPU that grows to the largest array it was asked to hold."""

    def __init__(self) -> None:
        self.address = ctypes.c_uint64()
        self._size = 0

    def reserve(self, size: int) -> int:
        """Address of at least so many bytes."""
        if size > self._size:
            self.free()
            call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(size))
            self._size = size
        return self.address.value

    def upload(self, array: np.ndarray, stream: Stream) -> int:
        """Copy a contiguous array to the GPU; its address there."""
        address = self.reserve(max(1, array.nbytes))
        source = ctypes.c_void_p(array.ctypes.data)
        call("cuMemcpyHtoDAsync_v2", self.address, source, ctypes.c_size_t(array.nbytes), stream.handle)
        return address

    def download(self, array: np.ndarray) -> None:
        """Copy the first bytes back into a contiguous array, once the streams that write them have ended."""
        call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), self.address, ctypes.c_size_t(array.nbytes))

    def free(self) -> None:
        """Give the memory back."""
        if self._size:
            call("cuMemFree_v2", self.address)
            self._size = 0

    def __del__(self) -> None:
        self.free()


@dataclass(frozen=True)
class KeptBuffer:
    """An output on the GPU."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: np.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        self.buffer.download(array)
        return array


def contiguous(values: Any) -> Any:
    """An array that can be copied in one piece; what lies on the GPU stays as it is."""
    return values if isinstance(values, KeptBuffer) else np.ascontiguousarray(values)


def load_library(backend: str) -> Any:
    """TensorRT's Python module; raises MissingDependency when it is not installed."""
    try:
        return importlib.import_module(PACKAGES[backend])
    except Exception as error:  # its loader raises what it meets
        raise MissingDependency(f"{backend} is not installed ({error}); {INSTALL[backend]}") from None


def installed_versions() -> dict[str, str]:
    """Versions of the libraries that load here, by the name of the backend."""
    versions = {}
    for backend, package in PACKAGES.items():
        try:
            versions[backend] = importlib.import_module(package).__version__
        except Exception:  # as above
            continue
    return versions
