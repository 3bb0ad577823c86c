"""The bindings of libllama: loaded once, their log sent to ours, and models read from files."""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadBundle, BadInput, MissingDependency, StllmError
from ..libraries import load_library

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Context",
    "Flag",
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

    @property
    def is_set(self) -> bool:
        """Whether what runs is to end."""
        return self._bytes[0] != b"\0"

    def watch(self, context: Any) -> None:
        """Let a context's evaluations on the CPU end when the flag is set; it must live as long as the context."""
        llama = libllama()
        address = ctypes.cast(self._strlen, ctypes.c_void_p).value
        callback = llama.ggml_abort_callback(address)
        llama.llama_set_abort_callback(context, callback, ctypes.cast(self._bytes, ctypes.c_void_p))


class Context:
    """Room for the keys and values of one sequence; the caller frees it.

    Attributes:
        pointer: libllama's own.
        capacity: positions that it has room for.
        batch: positions that one call may decode: libllama aborts the process on more, and lowers it to the capacity.
    """

    def __init__(self, model: Any, **parameters: Any):
        """Allocate it with fields of `llama_context_params`; raises MemoryError where libllama cannot."""
        self._llama = libllama()
        chosen = self._llama.llama_context_default_params()
        assign(chosen, **parameters)
        self.pointer = self._llama.llama_init_from_model(model, chosen)
        if not self.pointer:
            raise MemoryError
        self.capacity = int(self._llama.llama_n_ctx(self.pointer))
        self.batch = int(self._llama.llama_n_batch(self.pointer))

    def decode(self, rows: "np.ndarray", *, outputs: bool) -> None:
        """Append positions given by embeddings.

        Args:
            rows: [L, width] float32, contiguous, at most `batch` of them.
            outputs: whether each position has an output, or the last alone.

        Raises:
            StllmError: libllama failed, or was told to stop.
        """
        every = {"logits": (ctypes.c_int8 * len(rows))(*[1] * len(rows))} if outputs else {}
        pointer = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch = self._llama.llama_batch(n_tokens=len(rows), embd=pointer, **every)
        if code := self._llama.llama_decode(self.pointer, batch):
            raise StllmError(f"llama_decode returned {code}")

    def forget(self, position: int) -> None:
        """Forget positions from one on."""
        memory = self._llama.llama_get_memory(self.pointer)
        if position:
            self._llama.llama_memory_seq_rm(memory, 0, position, -1)
        else:
            self._llama.llama_memory_clear(memory, True)

    def state(self) -> "ctypes.Array[ctypes.c_uint8]":
        """Keys and values of all positions, as libllama stores them; raises StllmError where it does not."""
        size = int(self._llama.llama_state_seq_get_size(self.pointer, 0))
        held = (ctypes.c_uint8 * size)()
        if self._llama.llama_state_seq_get_data(self.pointer, held, size, 0) != size:
            raise StllmError("libllama could not copy its keys and values")
        return held

    def restore(self, state: Any, positions: int) -> None:
        """Take what `state` gave for so many positions; raises BadInput, and forgets all, where it does not fit."""
        held = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        done = int(self._llama.llama_state_seq_set_data(self.pointer, held, len(held), 0))
        last = int(self._llama.llama_memory_seq_pos_max(self._llama.llama_get_memory(self.pointer), 0))
        if done != len(held) or last + 1 != positions:
            self.forget(0)
            raise BadInput("the keys and values that were kept are not of this model and --kv; ask without them")

    def close(self) -> None:
        """Free it."""
        self._llama.llama_free(self.pointer)


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


def load_model(
    path: Path, metadata: Mapping[str, int | str] | None = None, flag: Flag | None = None, **options: Any
) -> Any:
    """A model, to be freed by the caller.

    Args:
        path: GGUF file.
        metadata: values that take the place of the file's, or are added to them.
        flag: ends the loading when it is set.
        options: fields of `llama_model_params`.

    Raises:
        BadBundle: libllama refuses the file, or the flag was set.
        MissingDependency: this libllama has no such option.
    """
    llama = libllama()
    parameters = llama.llama_model_default_params()
    assign(parameters, **options)
    if metadata:
        assign(parameters, kv_overrides=overrides(llama, metadata))
    # asked before each tensor; libllama keeps it no longer than it loads
    goes_on = llama.llama_progress_callback(lambda done, _: flag is None or not flag.is_set)
    assign(parameters, progress_callback=goes_on)
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise BadBundle(f"{path}: libllama could not load it; the log (-v) has its reason")
    return model


def apply_adapter(model: Any, context: Any, path: Path) -> None:
    """Let a context add a LoRA adapter to the weights as they are used; it is freed with the model.

    Raises:
        BadInput: there is no such file, or it is of another model.
    """
    llama, said = libllama(), "is no LoRA adapter of this model; the log (-v) has libllama's reason"
    if not path.is_file():
        said = "no such file; write one with stllm-export gguf --lora-as-adapter"
    elif adapter := llama.llama_adapter_lora_init(model, str(path).encode()):
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if not llama.llama_set_adapters_lora(context, adapters, 1, scales):
            return
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
