"""A TensorRT engine as an encoder. It needs a GPU, so no test of the project runs it."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from .engines import Sidecar, choose_profile
from .errors import BadBundle, MissingDependency, StllmError
from .gpu import Buffer, Stream
from .memory import Usage, own_usage

__all__ = ["PACKAGES", "EngineEncoder", "installed_versions"]

# Python packages by the name of the backend
PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class EngineEncoder:
    """An engine with its execution context, buffers and stream.

    Inputs are copied to the GPU, the engine runs, and the output is copied back, all in one stream; buffers are kept
    from call to call and grow to the largest call.
    """

    def __init__(self, engine: Path, sidecar: Path):
        """Load an engine that `find_engines` accepted.

        Raises:
            BadBundle: TensorRT refuses it.
        """
        self._sidecar = Sidecar.read(sidecar)
        library = load_library(self._sidecar.backend)
        self._stream = Stream()
        self._runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise BadBundle(
                f"{engine}: TensorRT {library.__version__} could not load it; "
                f"run stllm-export tensorrt --target {self._sidecar.target} again with --force"
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
        (self._output,) = set(names) - set(self._inputs)
        self._dtype = np.dtype(library.nptype(self._engine.get_tensor_dtype(self._output)))
        self._buffers = {name: Buffer() for name in names}
        self._profile = -1

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Run the engine; raises BadInput when no profile takes the inputs, StllmError when TensorRT fails."""
        arrays = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        profile = choose_profile(self._sidecar, arrays)
        if profile != self._profile:
            self._context.set_optimization_profile_async(profile, self._stream.handle.value)
            self._profile = profile
        for name, array in arrays.items():
            self._context.set_input_shape(name, array.shape)
            self._context.set_tensor_address(name, self._buffers[name].upload(array, self._stream))
        output = np.empty(tuple(self._context.get_tensor_shape(self._output)), self._dtype)
        self._context.set_tensor_address(self._output, self._buffers[self._output].reserve(output.nbytes))
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise StllmError(f"{self._sidecar.encoder}: TensorRT could not run its engine; is the GPU's memory full?")
        self._buffers[self._output].download(output, self._stream)
        self._stream.wait()
        return output

    @property
    def usage(self) -> Usage:
        return own_usage()

    def __enter__(self) -> "EngineEncoder":
        return self

    def __exit__(self, *exception: object) -> None:
        for buffer in self._buffers.values():
            buffer.close()
        self._stream.close()
        del self._context, self._engine, self._runtime


def load_library(backend: str) -> Any:
    """TensorRT's Python module; raises MissingDependency when it is not installed."""
    try:
        return importlib.import_module(PACKAGES[backend])
    except ImportError as error:
        raise MissingDependency(f"{backend} is not installed ({error}); see docs/jetson.md") from None


def installed_versions() -> dict[str, str]:
    """Versions of the libraries that load here, by the name of the backend."""
    versions = {}
    for backend, package in PACKAGES.items():
        try:
            versions[backend] = importlib.import_module(package).__version__
        except ImportError:
            continue
    return versions
