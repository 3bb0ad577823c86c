"""The bindings of libllama: loaded once, their log sent to ours, and models read from files."""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BadBundle, BadInput, MissingDependency
from ..libraries import load_library

__all__ = [
    "apply_adapter",
    "assign",
    "libllama",
    "load_model",
    "logged",
    "metadata",
    "offloads",
    "overrides",
]

LOG = logging.getLogger(__name__)
# libllama keeps the pointer, so the callback has to outlive it
_LOG_CALLBACK: Any = None
_LISTENERS: list[list[str]] = []


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
        assign(parameters, kv_overrides=overrides(llama, metadata))
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise BadBundle(f"{path}: libllama could not load it; the log (-v) has its reason")
    return model


def apply_adapter(model: Any, context: Any, path: Path) -> None:
    """Let a context add a LoRA adapter to the weights as they are used; it is freed with the model.

    Raises:
        BadInput: there is no such file, or it is of another model; the context is freed.
    """
    llama, said = libllama(), "is no LoRA adapter of this model; the log (-v) has libllama's reason"
    if not path.is_file():
        said = "no such file; write one with stllm-export gguf --lora-as-adapter"
    elif adapter := llama.llama_adapter_lora_init(model, str(path).encode()):
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if not llama.llama_set_adapters_lora(context, adapters, 1, scales):
            return
    llama.llama_free(context)
    raise BadInput(f"--adapter {path}: {said}")


def metadata(model: Any, key: str) -> str | None:
    """A text or number of a model's metadata; None where the file has no such key."""
    llama = libllama()
    buffer = ctypes.create_string_buffer(1)
    length = llama.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    if length < 0:
        return None
    buffer = ctypes.create_string_buffer(length + 1)
    llama.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")


def assign(parameters: ctypes.Structure, **values: Any) -> None:
    """Set fields of a C structure; plain assignment would accept any name and ignore it."""
    known = {entry[0] for entry in parameters._fields_}
    for name, value in values.items():
        if name not in known:
            raise MissingDependency(f"this llama-cpp-python has no {type(parameters).__name__}.{name}; install 0.3.36")
        setattr(parameters, name, value)


def overrides(llama: Any, metadata: Mapping[str, int | str]) -> ctypes.Array:
    """Metadata as libllama takes it; the array's last entry keeps its empty key, which ends the list."""
    entries = (llama.llama_model_kv_override * (len(metadata) + 1))()
    for entry, (key, value) in zip(entries, metadata.items(), strict=False):
        entry.key = key.encode()
        if isinstance(value, str):
            entry.tag, entry.value.val_str = llama.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
        else:
            entry.tag, entry.value.val_i64 = llama.LLAMA_KV_OVERRIDE_TYPE_INT, value
    return entries


@contextmanager
def logged() -> Iterator[list[str]]:
    """What libllama logs meanwhile, piece by piece."""
    libllama()
    lines: list[str] = []
    _LISTENERS.append(lines)
    try:
        yield lines
    finally:
        # by identity: two empty lists are equal
        _LISTENERS[:] = [other for other in _LISTENERS if other is not lines]


def _log(level: int, text: bytes, _: Any) -> None:
    said = text.decode("utf-8", "replace")
    for lines in _LISTENERS:
        lines.append(said)
    LOG.debug("libllama: %s", said.rstrip())
