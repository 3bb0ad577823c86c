"""What an encoder is, wherever it runs, and the loading of one in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..memory.counters import Usage
from .local import CPU_PROVIDER, LocalEncoder, onnx_runtime

__all__ = ["Encoder", "Kept", "load", "prepare"]

ENGINE = ".engine"


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

    def stop(self) -> None:
        """End the call that is running, from another thread, where the library can; it raises StllmError."""
        ...

    def resume(self) -> None:
        """Take calls again."""
        ...

    @property
    def usage(self) -> Usage:
        """Peak memory of the process that runs the graph."""
        ...


def prepare(path: Path) -> None:
    """Import the library that runs a graph or an engine; raises MissingDependency when it does not load."""
    if path.suffix != ENGINE:
        onnx_runtime()


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
