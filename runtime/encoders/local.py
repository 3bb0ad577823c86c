"""A graph on ONNX Runtime in this process: arrays in, an array out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadBundle, MissingDependency, StllmError
from ..libraries import load_library
from ..memory.counters import Usage, own_usage

__all__ = ["CPU_PROVIDER", "LocalEncoder", "onnx_runtime"]

CPU_PROVIDER = "CPUExecutionProvider"
# where a provider's memory is, by the name that ONNX Runtime's binding takes; the other providers are on a GPU
MEMORY = {CPU_PROVIDER: "cpu"}
GPU = "cuda"
INSTALL = "pip install 'stllm-edge[cpu]', or 'stllm-edge[gpu]' for CUDA (never both, they overwrite each other)"


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
            # the optimiser removes casts to FP16 and back where they meet, and with them the rounding
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's exceptions have no public base
            raise BadBundle(f"{path}: ONNX Runtime could not load it ({first_line(error)}); export it again") from None
        # a provider that does not start is only logged, and the next one takes its place
        if providers[0] not in self._session.get_providers():
            raise MissingDependency(f"ONNX Runtime could not start its {providers[0]}; use --device cpu")
        self._path = path
        self._running = runtime.RunOptions()
        self._kept_in = MEMORY.get(providers[0], GPU) if keep else None

    def __call__(self, **inputs: Any) -> Any:
        """Run the graph; raises StllmError when ONNX Runtime fails."""
        try:
            if self._kept_in or any(isinstance(values, KeptValue) for values in inputs.values()):
                return self._run_bound(inputs)
            (output,) = self._session.run(
                None, {name: np.asarray(values) for name, values in inputs.items()}, self._running
            )
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
        self._session.run_with_iobinding(binding, self._running)
        (output,) = binding.get_outputs()
        return KeptValue(output) if self._kept_in else output.numpy()

    def stop(self) -> None:
        """End the call that is running, from another thread, and refuse others until `resume`."""
        self._running.terminate = True

    def resume(self) -> None:
        """Take calls again after `stop`."""
        self._running.terminate = False

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


def onnx_runtime() -> Any:
    """The onnxruntime module; raises MissingDependency when it is not installed, or a library of it does not load."""
    return load_library("onnxruntime", INSTALL)


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
