"""Token embeddings, read from the mapped GGUF file without loading the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..bundle.manifest import Embedding
from ..errors import BadBundle, BadInput

__all__ = ["embedding_rows"]

Q8_0_BLOCK = 32


def embedding_rows(gguf: Path | BinaryIO, embedding: Embedding, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows of the token embedding matrix, dequantised from the mapped file.

    Args:
        gguf: the file; one that is open stays what it is when another takes its place.
        embedding: where the matrix lies.
        ids: [L] token ids.

    Returns:
        [L, columns] float32.

    Raises:
        BadInput: an id outside the vocabulary.
        BadBundle: the file does not hold the matrix.
    """
    ids = np.asarray(ids, np.int64)
    # NumPy would read negative ids from the end of the matrix
    if len(ids) and not 0 <= ids.min() <= ids.max() < embedding.rows:
        raise BadInput(f"token id outside 0..{embedding.rows - 1}: {ids.min()}..{ids.max()}")
    columns = embedding.columns
    if embedding.type == "Q8_0":
        block: np.dtype[Any] = np.dtype([("scale", "<f2"), ("values", "i1", (Q8_0_BLOCK,))])
        rows = _map(gguf, embedding, block, columns // Q8_0_BLOCK)[ids]
        # float32 before the product, as in libllama: float16 times int8 is float16 in NumPy
        return (rows["scale"][..., None].astype(np.float32) * rows["values"]).reshape(len(ids), columns)
    if embedding.type == "BF16":
        bits = _map(gguf, embedding, np.dtype("<u2"), columns)[ids]
        # NumPy has no bfloat16, whose bits are the upper half of a float32's
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    # GGUF is little-endian on every machine
    types: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
    if embedding.type not in types:
        path = gguf if isinstance(gguf, Path) else gguf.name
        raise BadBundle(f"{path}: embedding matrix of type {embedding.type}; known are F32, F16, BF16, Q8_0")
    return _map(gguf, embedding, types[embedding.type], columns)[ids].astype(np.float32)


def _map(gguf: Path | BinaryIO, embedding: Embedding, dtype: np.dtype, columns: int) -> np.ndarray:
    try:
        # mapped: of a matrix of a gigabyte, only the pages of the chosen rows are read
        return np.memmap(gguf, dtype, "r", embedding.offset, (embedding.rows, columns))
    except (ValueError, OverflowError):
        path = gguf if isinstance(gguf, Path) else gguf.name
        raise BadBundle(f"{path}: ends before the embedding matrix that the manifest describes; export again") from None
