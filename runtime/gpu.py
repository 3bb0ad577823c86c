"""The CUDA driver, through ctypes: is there a GPU, and memory on it. What needs a GPU here is not covered by tests."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .errors import StllmError

__all__ = ["Buffer", "Gpu", "Stream", "find_gpu", "shared_stream"]

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


def call(function: str, *arguments: Any) -> None:
    """Call the driver; raises StllmError with its status."""
    if status := getattr(driver(), function)(*arguments):
        raise StllmError(f"{function} failed with CUDA status {status}; is the GPU's memory full?")


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
