"""The encoders on ONNX Runtime: arrays in, arrays out."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadBundle, MissingDependency, StllmError

__all__ = ["Encoder"]

LOG = logging.getLogger(__name__)


class Encoder:
    """One ONNX graph, loaded; a context manager that gives its memory back."""

    def __init__(self, path: Path, threads: int):
        """Load a graph on the CPU.

        Raises:
            MissingDependency: ONNX Runtime is not installed.
            BadBundle: ONNX Runtime refuses the graph.
        """
        runtime = onnx_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no public base
            raise BadBundle(f"{path}: ONNX Runtime could not load it ({first_line(error)}); export it again") from None
        self._path = path

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Run the graph; raises StllmError when ONNX Runtime fails."""
        try:
            (output,) = self._session.run(None, inputs)
        except Exception as error:
            raise StllmError(f"{self._path}: failed in ONNX Runtime ({first_line(error)})") from None
        return np.asarray(output)

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *exception: object) -> None:
        del self._session


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
