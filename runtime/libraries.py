"""Native libraries: loaded when they are needed, and each failure to load is one line with its mend."""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGILL
from types import FrameType
from typing import Any

from .errors import MissingDependency

__all__ = ["being_imported", "does_not_load", "load_library", "tells_of_wrong_cpu"]

OURS = __name__.partition(".")[0]
STDERR = 2
TITLES = {"llama_cpp": "llama-cpp-python", "onnxruntime": "ONNX Runtime", "PIL": "Pillow"}
REINSTALL = "pip install --force-reinstall --no-cache-dir {package}"
# what a loader says, and what mends it; the first that fits counts
MENDS = (
    (
        r"(?P<file>\S+?\.so[.\d]*): cannot allocate memory in static TLS",
        "load it first: set LD_PRELOAD={file}, with its folder if the loader does not find it",
    ),
    (
        r"(?P<file>lib(?:cud|cublas|cufft|cupti|curand|cusolver|cusparse|npp|nccl|nv)[\w.-]*\.so[.\d]*): cannot open",
        "it belongs to CUDA: install the CUDA that {package} was built for, or the build of {package} for the CPU",
    ),
    (
        r"(?P<file>[\w.+-]+\.so[.\d]*): cannot open shared object file",
        "install the system's package that has {file}",
    ),
    (
        r"(?P<file>GLIBC(?:XX)?_[\d.]+|CXXABI_[\d.]+)\W+not found",
        "this system is older than the build: install an older {package}, or pip install --no-binary :all: {package}",
    ),
    (
        r"wrong ELF class|invalid ELF header|exec format|incompatible architecture|illegal instruction|AVX",
        f"it is built for another CPU: {REINSTALL} on this device",
    ),
    (
        r"executable stack|failed to map segment|cannot apply additional memory protection|Operation not permitted",
        "this system does not let it be loaded: its folder must allow programs to run (mount option noexec)",
    ),
    (r"undefined symbol|version `|numpy\.core|NumPy|_ARRAY_API", f"its parts are of different versions: {REINSTALL}"),
)


def load_library(name: str, install: str = "") -> Any:
    """A module that loads native libraries.

    Args:
        name: of the module.
        install: what brings it, `pip install …`; by default stllm-edge itself.

    Raises:
        MissingDependency: it is not installed, or a library of it does not load.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # a binding raises whatever its loader meets: ImportError, OSError, RuntimeError
        raise does_not_load(name, error, install) from None


def does_not_load(name: str, error: Exception, install: str = "") -> MissingDependency:
    """The error for a module that could not be imported; arguments as those of `load_library`."""
    # imported here, since it takes longer than all that a --help needs
    from importlib.metadata import packages_distributions

    module, install = name.partition(".")[0], install or "pip install stllm-edge"
    package, title = packages_distributions().get(module, [module])[0], TITLES.get(module, module)
    said = " ".join(str(cause) for cause in (error, error.__cause__) if cause)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return MissingDependency(f"{title} is not installed ({lines[0]}); {install}")
    for pattern, mend in MENDS:
        for line in lines:
            if found := re.search(pattern, line, re.IGNORECASE):
                return MissingDependency(
                    f"{title} does not load ({line}); {mend.format(package=package, **found.groupdict())}"
                )
    return MissingDependency(f"{title} does not load ({lines[0]}); {install}")


def being_imported(error: BaseException) -> str | None:
    """The package in whose import an error arose; None where it arose elsewhere, or in a module of our own."""
    trace = error.__traceback__
    while trace is not None:
        if (name := module_of(trace.tb_frame)) not in (None, OURS, "__main__"):
            return name
        trace = trace.tb_next
    return None


def module_of(frame: FrameType) -> str | None:
    """The package of a module that is being run for its import."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] if frame.f_code.co_name == "<module>" else None


@contextmanager
def tells_of_wrong_cpu(command: str) -> Iterator[None]:
    """End this process with one line and status 2 where a library uses an instruction that the CPU lacks.

    No handler of Python's own can: it runs after the instruction, which never ends.
    """
    import ctypes

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)

    @kind
    def tell(_: int) -> None:
        reason = "a library is built for another CPU (illegal instruction)"
        mend = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
        os.write(STDERR, f"{command}: {reason}; on this device: {mend}\n".encode())
        os._exit(2)

    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    before = library.signal(SIGILL, ctypes.cast(tell, ctypes.c_void_p))
    try:
        yield
    finally:
        library.signal(SIGILL, before)
