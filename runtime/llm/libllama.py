"""The bindings of libllama: loaded once, their log sent to ours, and models read from files."""

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadBundle, MissingDependency
from ..libraries import load_library

__all__ = ["Flag", "assign", "libllama", "load_model", "offloads"]

LOG = logging.getLogger(__name__)
# libllama keeps the pointer, so the callback has to outlive it
_LOG_CALLBACK: Any = None


class Flag:
    """What libllama asks between two operations whether to go on, set from any thread.

    It asks for every node of a graph, so the function is none of Python's, which would cost a third of the time of a
    small model: `strlen` of two bytes is 0 or 1, and so false or true.
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        self._strlen = ctypes.CDLL(None).strlen

    def set(self) -> None:
        """What runs is to end."""
        self._bytes[0] = b"\1"

    def clear(self) -> None:
        """What comes next may run."""
        self._bytes[0] = b"\0"

    def watch(self, context: Any) -> None:
        """Let a context's evaluations on the CPU end when the flag is set; it must live as long as the context."""
        llama = libllama()
        address = ctypes.cast(self._strlen, ctypes.c_void_p).value
        callback = llama.ggml_abort_callback(address)
        llama.llama_set_abort_callback(context, callback, ctypes.cast(self._bytes, ctypes.c_void_p))


def libllama() -> Any:
    """The bindings, loaded on first use; raises MissingDependency when they are not installed or do not load."""
    llama_cpp = load_library("llama_cpp", "pip install llama-cpp-python")
    global _LOG_CALLBACK
    if _LOG_CALLBACK is None:
        _LOG_CALLBACK = llama_cpp.llama_log_callback(_log)
        llama_cpp.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


def offloads() -> bool:
    """Whether libllama was built for a GPU; raises MissingDependency as `libllama` does."""
    return bool(libllama().llama_supports_gpu_offload())


def load_model(path: Path, metadata: Mapping[str, int | str] | None = None, **options: Any) -> Any:
    """A model, to be freed by the caller.

    Args:
        path: GGUF file.
        metadata: values that take the place of the file's, or are added to them.
        options: fields of `llama_model_params`.

    Raises:
        BadBundle: libllama refuses the file.
        MissingDependency: this libllama has no such option.
    """
    llama = libllama()
    parameters = llama.llama_model_default_params()
    assign(parameters, **options)
    if metadata:
        assign(parameters, kv_overrides=_overrides(llama, metadata))
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise BadBundle(f"{path}: libllama could not load it; the log (-v) has its reason")
    return model


def assign(parameters: ctypes.Structure, **values: Any) -> None:
    """Set fields of a C structure; plain assignment would accept any name and ignore it."""
    known = {entry[0] for entry in parameters._fields_}
    for name, value in values.items():
        if name not in known:
            raise MissingDependency(f"this llama-cpp-python has no {type(parameters).__name__}.{name}; install 0.3.36")
        setattr(parameters, name, value)


def _overrides(llama: Any, metadata: Mapping[str, int | str]) -> ctypes.Array:
    """Metadata as libllama takes it; the array's last entry keeps its empty key, which ends the list."""
    entries = (llama.llama_model_kv_override * (len(metadata) + 1))()
    for entry, (key, value) in zip(entries, metadata.items(), strict=False):
        entry.key = key.encode()
        if isinstance(value, str):
            entry.tag, entry.value.val_str = llama.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
        else:
            entry.tag, entry.value.val_i64 = llama.LLAMA_KV_OVERRIDE_TYPE_INT, value
    return entries


def _log(level: int, text: bytes, _: Any) -> None:
    LOG.debug("libllama: %s", text.decode("utf-8", "replace").rstrip())
