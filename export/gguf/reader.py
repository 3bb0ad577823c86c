"""A language model read back from GGUF: its weights as numbers, and what it says of itself."""

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from torch import Tensor

from ...runtime.llm.vocabulary import ADDED_TOKENS
from ..checkpoint.tokenizer import Tokenizer
from .types import dequantise, dequantise_fast

__all__ = ["GgufFile"]

# dequantising makes several arrays of this length
VALUES_AT_ONCE = 2**20
ROWS_IN_A_BLOCK = 16_384
# keys of a Qwen2 in GGUF, and where transformers' configuration has the same
STATED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
ROPE_BASE, ROPE_SCALING = "rope.freq_base", "rope.scaling."
FLOAT32 = 1e-6


class GgufFile:
    """One GGUF file of a Qwen2, mapped."""

    def __init__(self, path: Path, names: Mapping[str, str]):
        """Read the header; `names` are the checkpoint's names by those in GGUF."""
        reader = GGUFReader(path)
        self._tensors = {names[tensor.name]: tensor for tensor in reader.tensors}
        self._fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def kind(self, name: str) -> str:
        """GGUF type of a tensor."""
        return str(self._tensors[name].tensor_type.name)

    def tensor(self, name: str) -> Tensor:
        """A tensor's values in float32."""
        stored = self._tensors[name]
        return torch.from_numpy(values_of(np.asarray(stored.data), stored))

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The rows of a matrix in float32, in blocks that follow each other, for one that is too large to be whole."""
        stored = self._tensors[name]
        data = np.asarray(stored.data)
        for first in range(0, len(data), ROWS_IN_A_BLOCK):
            yield torch.from_numpy(values_of(data[first : first + ROWS_IN_A_BLOCK], stored))

    def rows(self, name: str, ids: list[int]) -> np.ndarray:
        """Some rows of a matrix in float32."""
        stored = self._tensors[name]
        return np.asarray(dequantise(np.asarray(stored.data)[ids], stored.tensor_type), np.float32)

    def faults(self, config: Any, tokenizer: Tokenizer) -> Iterator[str]:
        """What the file states otherwise than transformers' configuration and the checkpoint's tokenizer, in words."""
        expected = {f"qwen2.{key}": getattr(config, name) for key, name in STATED.items()}
        rope = getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", None)}
        scaling = getattr(config, "rope_scaling", None) or rope
        expected |= {
            "general.architecture": "qwen2",
            f"qwen2.{ROPE_BASE}": rope["rope_theta"],
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.tokens": tokenizer.tokens,
            "tokenizer.ggml.token_type": tokenizer.types,
            "tokenizer.ggml.merges": tokenizer.merges,
            "tokenizer.ggml.add_bos_token": False,
            ADDED_TOKENS: tokenizer.added,
            **{f"tokenizer.ggml.{role}_token_id": token for role, token in tokenizer.special.items()},
        }
        if scaling.get("rope_type", "default") != "default":
            expected[f"qwen2.{ROPE_SCALING}type"] = scaling["rope_type"]
        for key, value in expected.items():
            if not same(self._stated.get(key), value):
                yield f"{key} is {shown(self._stated.get(key), value)}"
        scaled = f"qwen2.{ROPE_SCALING}type" in expected
        for key in self._stated.keys() - expected.keys():
            if key.startswith("qwen2.") and not (scaled and key.startswith(f"qwen2.{ROPE_SCALING}")):
                yield f"{key} is {self._stated[key]}, which the checkpoint does not state"

    @cached_property
    def _stated(self) -> dict[str, Any]:
        return {key: field.contents() for key, field in self._fields.items()}


def values_of(data: np.ndarray, stored: ReaderTensor) -> np.ndarray:
    """Values in float32 of a vector, or of rows of a matrix, on all cores; by GGML, whose values the suite compares."""
    if data.ndim == 1:
        return dequantise_fast(data, stored.tensor_type).copy()
    columns = int(stored.shape[0])
    values, step = np.empty((len(data), columns), np.float32), max(1, VALUES_AT_ONCE // columns)

    def fill(first: int) -> None:
        values[first : first + step] = dequantise_fast(data[first : first + step], stored.tensor_type)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(fill, range(0, len(data), step)))
    return values


def same(found: Any, expected: Any) -> bool:
    """Whether two values are equal, numbers as float32 keeps them."""
    if isinstance(found, float) and isinstance(expected, int | float):
        return math.isclose(found, expected, rel_tol=FLOAT32)
    return bool(found == expected)


def shown(found: Any, expected: Any) -> str:
    """A difference in words; of lists, where it begins."""
    if isinstance(found, list) and isinstance(expected, list):
        pairs = enumerate(zip(found, expected, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected)))
        return f"otherwise from entry {place} on"
    return f"{found}, expected {expected}"
