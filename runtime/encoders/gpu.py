"""The CUDA driver, through ctypes: is there a GPU, and which one."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["Gpu", "driver", "find_gpu"]

LIBRARY = "libcuda.so.1"
# of CUdevice_attribute
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
    """The driver library, ready for use; OSError when there is none, or no GPU."""
    library = ctypes.CDLL(LIBRARY)
    device = ctypes.c_int()
    if library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), 0):
        raise OSError("the CUDA driver finds no GPU")
    return library


def find_gpu() -> Gpu | None:
    """The first GPU; None where there is none, or no driver. No memory on it is taken."""
    try:
        library = driver()
        name, memory = ctypes.create_string_buffer(NAME_BYTES), ctypes.c_size_t()
        # the driver keeps names without _v2 for old programs, with 32-bit sizes
        if library.cuDeviceGetName(name, NAME_BYTES, 0) or library.cuDeviceTotalMem_v2(ctypes.byref(memory), 0):
            raise OSError("the CUDA driver does not know the GPU")
        shared, major, minor = (read_attribute(library, attribute) for attribute in (INTEGRATED, MAJOR, MINOR))
    except OSError:
        return None
    return Gpu(name.value.decode(), f"{major}.{minor}", memory.value, bool(shared))


def read_attribute(library: Any, attribute: int) -> int:
    """An attribute of the first GPU; OSError when the driver refuses."""
    number = ctypes.c_int()
    if library.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0):
        raise OSError("the CUDA driver does not know the GPU")
    return number.value
