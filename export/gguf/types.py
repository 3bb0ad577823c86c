"""The types of GGUF files and tensors that libllama makes, and values read back from them."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from ...runtime.errors import BadInput
from ...runtime.llm.libllama import libllama

__all__ = [
    "EMBEDDING",
    "EMBEDDING_TYPES",
    "KNOWN",
    "PLAIN",
    "QUANTISED",
    "QUANTS",
    "TENSOR_TYPES",
    "dequantise",
    "dequantise_fast",
    "rounded",
    "tensor_bytes",
]

# type of the tensors, in GGUF and in PyTorch, and libllama's number of such a file (llama_ftype)
PLAIN = {
    "F32": (GGMLQuantizationType.F32, torch.float32, 0),
    "F16": (GGMLQuantizationType.F16, torch.float16, 1),
    "BF16": (GGMLQuantizationType.BF16, torch.bfloat16, 32),
}
# llama_ftype of what libllama makes for any model, with or without an importance matrix
USUAL = {
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "Q4_1": 3,
    "Q4_0": 2,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "IQ3_M": 27,
    "IQ3_S": 26,
    "Q2_K": 10,
}
# those that libllama refuses to make without an importance matrix, and those for models that were trained in them
EXTREME = {
    "IQ3_XS": 22,
    "IQ3_XXS": 23,
    "Q2_K_S": 21,
    "IQ2_M": 29,
    "IQ2_S": 28,
    "IQ2_XS": 20,
    "IQ2_XXS": 19,
    "IQ1_M": 31,
    "IQ1_S": 24,
    "TQ2_0": 37,
    "TQ1_0": 36,
    "Q1_0": 40,
}
QUANTISED = USUAL | EXTREME
QUANTS = (*PLAIN, *USUAL)
KNOWN = (*PLAIN, *QUANTISED)
# ggml_type of a tensor, by the name that a user gives
TENSOR_TYPES = {
    kind.name: kind.value
    for kind in GGMLQuantizationType
    if kind.name not in ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K", "NVFP4")
}
EMBEDDING = "token_embd.weight"
# rounded at once, by each thread
VALUES_AT_ONCE = 2**20
# of the embedding matrix, whose rows are read at run time
EMBEDDING_TYPES = ("F32", "F16", "BF16", "Q8_0")


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor of a GGML type; its last size is that of a row."""
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(np.prod(shape, dtype=np.int64)) // values * size


def dequantise(data: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Rows [R, bytes] of a GGML type as float32 [R, columns], by the gguf package, or GGML where it cannot."""
    try:
        return np.asarray(dequantize(data, kind), np.float32)
    except NotImplementedError:
        return dequantise_fast(data, kind)


def dequantise_fast(data: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The same by GGML's own code, which is what libllama computes with and is many times faster."""
    raw = np.ascontiguousarray(data).view(np.uint8)
    values, size = GGML_QUANT_SIZES[kind]
    shape = (*raw.shape[:-1], raw.shape[-1] // size * values)
    if kind is GGMLQuantizationType.F32:
        return raw.view(np.float32).reshape(shape)
    out = np.empty(shape, np.float32)
    traits(int(kind)).to_float(raw.ctypes.data, out.ctypes.data, out.size)
    return out


def rounded(values: np.ndarray, kind: str, importance: np.ndarray | None = None) -> np.ndarray:
    """What a type leaves of a matrix [R, columns] float32, by GGML's own code, which libllama quantises with.

    Args:
        values: whose columns are whole blocks of the type.
        kind: GGML type.
        importance: [columns] float32, for types that take it.
    """
    if kind in PLAIN:
        return torch.from_numpy(values).to(PLAIN[kind][1]).float().numpy()
    libllama()
    from llama_cpp._ggml import libggml

    quantise = libggml.ggml_quantize_chunk
    quantise.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    quantise.restype = ctypes.c_size_t
    source, (_, columns) = np.ascontiguousarray(values, np.float32), values.shape
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    out = np.empty_like(source)

    def convert(first: int) -> None:
        part = source[first : first + step]
        made = np.empty((len(part), tensor_bytes((columns,), kind)), np.uint8)
        given = None if weights is None else weights.ctypes.data
        quantise(TENSOR_TYPES[kind], part.ctypes.data, made.ctypes.data, 0, len(part), columns, given)
        out[first : first + step] = dequantise_fast(made, GGMLQuantizationType[kind])

    step = max(1, VALUES_AT_ONCE // columns)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(convert, range(0, len(source), step)))
    return out


class Traits(ctypes.Structure):
    """Of `ggml_type_traits`, what is read."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantised", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


@cache
def traits(kind: int) -> Any:
    """What GGML knows of a type; raises BadInput where its sizes are not those that the gguf package knows."""
    libllama()
    from llama_cpp._ggml import libggml

    lookup = libggml.ggml_get_type_traits
    lookup.argtypes, lookup.restype = [ctypes.c_int], ctypes.POINTER(Traits)
    found = lookup(kind).contents
    if (found.block, found.type_size) != GGML_QUANT_SIZES[GGMLQuantizationType(kind)]:
        raise BadInput(f"libllama and the gguf package know type {kind} in other sizes; install gguf 0.19")
    return found
