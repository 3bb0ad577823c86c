"""The CUDA driver, through ctypes: is there a GPU, and which one."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["Gpu", "driver", "find_gpu"]

LIBRARY = "libcuda.so.1"
INTEGRATED, MAJOR, MINOR = 18, 75, 76
NAME_BYTES = 100


@dataclass(frozen=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: as the driver calls it.
        capability: CUDA compute capability, `8.7`.
        memory: bytes.
        shared: whether the memory is the system's.
    """

    name: str
    capability: str
    memory: int
    shared: bool


@cache
def driver() -> Any:
    """The driver library with a context on the first GPU; OSError when there is none."""
    library = ctypes.CDLL(LIBRARY)
    context = ctypes.c_void_p()
    if library.cuInit(0) or library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0):
        raise OSError("the CUDA driver finds no GPU")
    library.cuCtxSetCurrent(context)
    return library


def find_gpu() -> Gpu | None:
    """The first GPU; None where there is none, or no driver."""
    try:
        library = driver()
    except OSError:
        return None
    name = ctypes.create_string_buffer(NAME_BYTES)
    library.cuDeviceGetName(name, NAME_BYTES, 0)
    memory = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), 0)
    shared, major, minor = (read_attribute(library, attribute) for attribute in (INTEGRATED, MAJOR, MINOR))
    return Gpu(name.value.decode(), f"{major}.{minor}", memory.value, bool(shared))


def read_attribute(library: Any, attribute: int) -> int:
    """An attribute of the first GPU."""
    number = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    return number.value
