"""Quantising by libllama: what it will make of each tensor, told beforehand, and then made."""

import ctypes
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from ...runtime.errors import BadInput, DoesNotFit, StllmError
from ...runtime.llm.libllama import assign, libllama, logged, overrides
from .matrix import Matrix
from .recipe import Recipe
from .types import EMBEDDING, PLAIN, QUANTISED, TENSOR_TYPES, tensor_bytes

__all__ = ["Plan", "Planned", "plan", "quantise", "require_matrix"]

# a layer of a 7B then takes 0.4 GB instead of the 2.7 GB of libllama's default
QUANTISE_BUFFER = 2**28
BLOCK = 32
FELL_BACK = re.compile(r"warning: (\S+) .*required for type\s+(\w+)\) -> falling back to\s+(\w+)")
TENSOR = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[([\d, ]+)\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.MULTILINE)
NEEDS_MATRIX = "will require an imatrix"
ALIGNMENT = 32
# what libllama adds to the head: general.quantization_version, its length before it, its type and its value
VERSION_BYTES = 8 + len("general.quantization_version") + 4 + 4
# libllama writes no longer text into metadata
LONGEST_TEXT = 127


@dataclass(frozen=True)
class Planned:
    """What becomes of a tensor: its name, sizes, GGML type, bytes, and the type that it could not have, if one."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    wanted: str | None = None

    @property
    def kind(self) -> str:
        """Its class: the name without layer, one for all vectors."""
        return re.sub(r"^blk\.\d+\.|\.weight$", "", self.name) if len(self.shape) > 1 else "norms, biases"


@dataclass(frozen=True)
class Plan:
    """What libllama will make of a recipe.

    Attributes:
        recipe: what was asked for.
        tensors: in the file's order.
        head: bytes before the tensors, but for a few hundred that are recorded of a matrix.
        needs_matrix: whether it takes an importance matrix.
    """

    recipe: Recipe
    tensors: tuple[Planned, ...]
    head: int
    needs_matrix: bool = False

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.head + sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in self.tensors)

    @property
    def fallbacks(self) -> list[Planned]:
        """Tensors that get another type than they should, since a block does not divide their rows."""
        return [tensor for tensor in self.tensors if tensor.wanted]

    def classes(self) -> dict[str, tuple[list[str], int, int]]:
        """Types, number of tensors and bytes of each class of tensors."""
        found: dict[str, tuple[list[str], int, int]] = {}
        for tensor in self.tensors:
            types, count, size = found.get(tensor.kind, ([], 0, 0))
            found[tensor.kind] = ([*types, *[tensor.type] * (tensor.type not in types)], count + 1, size + tensor.bytes)
        return found


def plan(header: Path, recipe: Recipe) -> Plan:
    """What libllama will make of a model whose values it does not look at.

    Args:
        header: a plain GGUF file; its tensors may be a hole in the file.
        recipe: what is wanted.

    Raises:
        BadInput: a pattern matches no matrix.
        StllmError: libllama refuses.
    """
    with tempfile.TemporaryDirectory() as folder, logged() as lines:
        run(header, Path(folder) / "none.gguf", recipe, {}, {}, dry_run=True)
    text = "".join(lines)
    wanted = {found[1]: found[2] for found in FELL_BACK.finditer(text)}
    tensors = []
    for found in TENSOR.finditer(text):
        sizes = [int(size) for size in found[2].split(",")]
        shape = tuple(sizes[1::-1]) if sizes[1] > 1 else (sizes[0],)
        kind = (found[4] or found[3]).upper()
        other = wanted.get(found[1], "").upper() or None
        tensors.append(Planned(found[1], shape, kind, tensor_bytes(shape, kind), other))
    source = Source.of(header)
    if len(tensors) != source.count:
        raise StllmError(f"libllama planned {len(tensors)} of {source.count} tensors; install 0.3.36")
    head = source.head if recipe.type in PLAIN else source.later
    return Plan(recipe, tuple(tensors), head, NEEDS_MATRIX in text)


def quantise(source: Path, target: Path, recipe: Recipe, matrix: Matrix | None = None) -> None:
    """Quantise a plain file; on an error, nothing of the target is left.

    Raises:
        BadInput: the matrix is of another model, or a pattern matches nothing.
        DoesNotFit: the disk is full.
        StllmError: libllama refuses.
    """
    weights = matrix.weights(Source.of(source).columns, recipe.matrix or Path("-")) if matrix else {}
    try:
        with logged() as lines:
            run(source, target, recipe, weights, described(recipe, matrix), lines=lines)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def described(recipe: Recipe, matrix: Matrix | None) -> dict[str, int | str]:
    """What llama.cpp's own tool records of a matrix."""
    if matrix is None or recipe.matrix is None:
        return {}
    return {
        "quantize.imatrix.file": shortened(recipe.matrix.name),
        "quantize.imatrix.dataset": shortened(", ".join(matrix.datasets)),
        "quantize.imatrix.entries_count": len(matrix.sums),
        "quantize.imatrix.chunks_count": matrix.chunks,
    }


def shortened(text: str) -> str:
    return text.encode()[:LONGEST_TEXT].decode(errors="ignore")


@dataclass(frozen=True)
class Source:
    """A plain file: columns of its matrices, type of the embedding matrix, number of tensors, bytes of its head.

    `later` are those of the head once it is quantised.
    """

    columns: Mapping[str, int]
    embedding: str
    count: int
    head: int
    later: int

    @classmethod
    def of(cls, path: Path) -> "Source":
        """Read the head of a file, with a vocabulary of 150,000 tokens once for many types."""
        return read_source(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def read_source(path: Path, _: int) -> Source:
    """The same; the time is of the file's last change."""
    reader = GGUFReader(path)
    columns = {tensor.name: int(tensor.shape[0]) for tensor in reader.tensors if len(tensor.shape) > 1}
    kinds = {str(tensor.name): str(tensor.tensor_type.name) for tensor in reader.tensors}
    last = reader.tensors[-1].field
    end = last.offset + sum(int(part.nbytes) for part in last.parts) + VERSION_BYTES
    return Source(columns, kinds[EMBEDDING], len(kinds), int(reader.data_offset), -(-end // ALIGNMENT) * ALIGNMENT)


def run(
    source: Path,
    target: Path,
    recipe: Recipe,
    weights: Mapping[str, np.ndarray],
    metadata: Mapping[str, int | str],
    *,
    lines: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Call libllama; the arguments that it keeps pointers to live until it returns."""
    llama = libllama()
    held = Source.of(source)
    chosen = recipe.overrides(held.columns)
    parameters = llama.llama_model_quantize_default_params()
    ftype = QUANTISED.get(recipe.type, PLAIN.get(recipe.type, (0, 0, 0))[2])
    embedding = TENSOR_TYPES[chosen.pop(EMBEDDING, embedding_type(held, recipe))]
    assign(parameters, ftype=ftype, token_embedding_type=embedding, max_buf_size=QUANTISE_BUFFER, dry_run=dry_run)
    # libllama takes expressions of another kind and the first that matches: names alone mean the same to both
    types = (llama.llama_model_tensor_override * (len(chosen) + 1))()
    for entry, (name, kind) in zip(types, chosen.items(), strict=False):
        entry.pattern, entry.type = f"^{re.escape(name)}$".replace("\\_", "_").encode(), TENSOR_TYPES[kind]
    table = (llama.llama_model_imatrix_data * (len(weights) + 1))()
    for slot, (name, values) in zip(table, weights.items(), strict=False):
        slot.name, slot.size = name.encode(), values.size
        slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if chosen:
        assign(parameters, tt_overrides=types)
    if weights:
        assign(parameters, imatrix=table)
    if metadata:
        assign(parameters, kv_overrides=overrides(llama, metadata))
    if code := llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise failure(code, recipe, lines)


def failure(code: int, recipe: Recipe, lines: Sequence[str]) -> StllmError:
    """What libllama said when it gave up."""
    said = [line.strip() for line in lines if "fail" in line.lower() or "error" in line.lower()]
    reason = said[-1] if said else f"code {code}; the log (-v) has its reason"
    if "iostream" in reason or "No space" in reason:
        return DoesNotFit(f"{recipe.name}: the disk is full; free some, or write to another --out")
    if "imatrix" in reason or "importance" in reason.lower():
        return BadInput(f"--quant {recipe.type}: {reason}")
    return StllmError(f"libllama could not quantise to {recipe.type}: {reason}")


def embedding_type(source: Source, recipe: Recipe) -> str:
    """Rows of the embedding matrix are read at run time and feed the aligner.

    They stay as they are beside Q8_0, and are Q8_0 beside lower types, where the width allows it.
    """
    if recipe.type in PLAIN:
        return recipe.type
    return "Q8_0" if recipe.type != "Q8_0" and source.columns[EMBEDDING] % BLOCK == 0 else source.embedding


def require_matrix(found: Plan, matrix: Matrix | None) -> None:
    """Raise BadInput where libllama needs an importance matrix and there is none."""
    if found.needs_matrix and matrix is None:
        raise BadInput(
            f"--quant {found.recipe.type}: takes an importance matrix; make one with stllm-calib imatrix and give it "
            "with --imatrix FILE"
        )
