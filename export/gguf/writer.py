"""The language model as GGUF: written in blocks of rows, quantised by libllama (SPEC sections 1 and 2)."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, GGUFWriter, get_tensor_name_map

from ...runtime.bundle.geometry import LlmGeometry
from ...runtime.bundle.writer import BundleWriter
from ...runtime.console import Progress
from ...runtime.errors import BadInput
from ...runtime.llm.vocabulary import ADDED_TOKENS, Vocabulary
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..checkpoint.tokenizer import Tokenizer
from .adapter import split_adapter, write_adapter
from .matrix import Matrix
from .quantiser import Plan, plan, quantise, require_matrix
from .recipe import Recipe
from .tensors import EXACT, read_back, snr_by_class
from .types import PLAIN, QUANTISED, dequantise

__all__ = ["add_llms", "gguf_names", "lossless", "plain_types", "plans", "vocabulary_of", "weight_errors"]

LOG = logging.getLogger(__name__)
ROWS_AT_ONCE_BYTES = 2**25
# of tensors in a file
ALIGNMENT = 32
SAMPLED_VALUES = 2**19


def add_llms(
    writer: BundleWriter,
    checkpoint: Checkpoint,
    inventory: Inventory,
    recipes: Sequence[Recipe],
    progress: Progress,
    *,
    adapter: bool = False,
) -> None:
    """Write the language model into a bundle, in one or more types.

    What libllama quantises is one plain file for all types, which the bundle keeps if its type is itself asked for.

    Args:
        writer: the bundle.
        checkpoint: where the weights and the tokenizer are.
        inventory: names and sizes of the checkpoint.
        recipes: with different names.
        progress: where to report.
        adapter: whether what a LoRA adapter adds becomes a file of its own, rather than merged.

    Raises:
        BadInput: tokenizer, weights, recipes or matrices are not what they have to be.
        DoesNotFit, StllmError: the disk is full, or libllama does not quantise.
    """
    folder, names = writer.staging / "llm", inventory.used["llm"]
    folder.mkdir(exist_ok=True)
    named, whole = gguf_names(names, inventory.geometry.llm), checkpoint
    checkpoint = split_adapter(checkpoint, named) if adapter else checkpoint
    matrices = require_possible(checkpoint, inventory, recipes, folder)
    source = lossless(checkpoint, names)
    for plain in plain_types([recipe.type for recipe in recipes], source):
        write_gguf(folder / f"{plain}.gguf", checkpoint, inventory.geometry.llm, names, plain, progress)
    for recipe in recipes:
        path = folder / f"{recipe.name}.gguf"
        if recipe.type in QUANTISED:
            with progress.stage(f"quantise to {recipe.name}"):
                quantise(folder / f"{source}.gguf", path, recipe, matrices.get(recipe.name))
        elif recipe.name != recipe.type:
            os.link(folder / f"{recipe.type}.gguf", path)
        entry = described(path, checkpoint, recipe, named, progress)
        if adapter:
            entry["adapter"] = f"llm/{recipe.name}.lora.gguf"
            write_adapter(writer.staging / entry["adapter"], whole, named)
        writer.add("llm", recipe.name, entry, [entry[key] for key in ("file", "adapter") if key in entry])


def described(
    path: Path, checkpoint: Checkpoint, recipe: Recipe, named: dict[str, str], progress: Progress
) -> dict[str, Any]:
    """What the manifest says of a language model, each of whose tensors is read back."""
    records = read_back(path, checkpoint, named, progress)
    ratios = ", ".join(f"{kind} {exact_or(ratio)}" for kind, ratio in snr_by_class(records).items())
    LOG.info("%s, signal to noise: %s", recipe.name, ratios)
    stated = {"file": f"llm/{path.name}", "embedding": describe_embedding(path)}
    return {**stated, **recipe.to_json(), "tensors": records.to_json()}


def exact_or(ratio: float) -> str:
    return "exact" if ratio >= EXACT else f"{ratio:.1f} dB"


def require_possible(
    checkpoint: Checkpoint, inventory: Inventory, recipes: Sequence[Recipe], folder: Path
) -> dict[str, Matrix]:
    """The importance matrices by recipe's name, once it is known that all recipes can be made; tells of fallbacks.

    Raises:
        BadInput: as `add_llms`.
    """
    planned = plans(checkpoint, inventory, recipes, folder)
    matrices = read_matrices(planned)
    for found in planned:
        require_matrix(found, matrices.get(found.recipe.name))
        for tensor in found.fallbacks:
            LOG.warning(
                "%s: %s becomes %s: no block of %s divides its rows of %d",
                *(found.recipe.name, tensor.name, tensor.type, tensor.wanted, tensor.shape[1]),
            )
    return matrices


def read_matrices(planned: Sequence[Plan]) -> dict[str, Matrix]:
    """The importance matrices by recipe's name; raises BadInput for one that cannot be read or is of another model."""
    matrices = {}
    for found in planned:
        if file := found.recipe.matrix:
            matrices[found.recipe.name] = Matrix.read(file)
            columns = {tensor.name: tensor.shape[1] for tensor in found.tensors if len(tensor.shape) > 1}
            matrices[found.recipe.name].weights(columns, file)
    return matrices


@contextmanager
def vocabulary_of(checkpoint: Checkpoint, inventory: Inventory) -> Iterator[Vocabulary]:
    """The checkpoint's tokenizer as libllama runs it, from a file without values that is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / "header.gguf"
        write_header(header, checkpoint, inventory)
        with Vocabulary(header) as vocabulary:
            yield vocabulary


def write_header(header: Path, checkpoint: Checkpoint, inventory: Inventory) -> None:
    """A plain file whose tensors are a hole, which takes no disk."""
    names = inventory.used["llm"]
    with open_gguf(header, checkpoint, inventory.geometry.llm, names, lossless(checkpoint, names)) as (file, _):
        total = sum(info.nbytes for info in file.tensors[0].values())
    os.truncate(header, header.stat().st_size + total + ALIGNMENT * len(names))


def plans(checkpoint: Checkpoint, inventory: Inventory, recipes: Sequence[Recipe], folder: Path) -> list[Plan]:
    """What libllama will make of each tensor; a file without values, gone at the end, is all that is written."""
    header = folder / "header.gguf"
    try:
        write_header(header, checkpoint, inventory)
        return [plan(header, recipe) for recipe in recipes]
    finally:
        header.unlink(missing_ok=True)


def plain_types(quants: Sequence[str], source: str) -> list[str]:
    """Plain types to write for these types: those among them, and the source of the quantised ones, each once."""
    needed = {source} if set(quants) & set(QUANTISED) else set()
    return [plain for plain in PLAIN if plain in needed | set(quants)]


def lossless(checkpoint: Checkpoint, names: list[str]) -> str:
    """The smallest plain type that holds the checkpoint's weights exactly."""
    types = {checkpoint.dtype(name) for name in names}
    for plain in ("BF16", "F16"):
        if types == {PLAIN[plain][1]}:
            return plain
    return "F32"


@contextmanager
def open_gguf(
    path: Path, checkpoint: Checkpoint, geometry: LlmGeometry, names: list[str], plain: str
) -> Iterator[tuple[GGUFWriter, dict[str, str]]]:
    """A file whose head is written, and the checkpoint's names by those in GGUF, in the file's order."""
    kind, dtype, file_type = PLAIN[plain]
    writer = GGUFWriter(path, arch="qwen2")
    add_metadata(writer, checkpoint, geometry, file_type)
    tensors = dict(sorted(gguf_names(names, geometry).items()))
    for gguf_name, name in tensors.items():
        shape = checkpoint.shape(name)
        # norms and biases stay float32, as llama.cpp's own converter leaves them
        stored = kind if len(shape) == 2 else GGMLQuantizationType.F32
        itemsize = (dtype if len(shape) == 2 else torch.float32).itemsize
        # NumPy has no bfloat16: raw_dtype alone says what is stored
        writer.add_tensor_info(gguf_name, shape, np.dtype(np.float32), int(np.prod(shape)) * itemsize, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    try:
        yield writer, tensors
    finally:
        writer.close()


def write_gguf(
    path: Path, checkpoint: Checkpoint, geometry: LlmGeometry, names: list[str], plain: str, progress: Progress
) -> None:
    """Write the model unquantised; memory is bounded by one block of rows."""
    dtype = PLAIN[plain][1]
    with open_gguf(path, checkpoint, geometry, names, plain) as (writer, tensors):
        assert writer.fout is not None
        file = writer.fout[0]
        total = sum(int(np.prod(checkpoint.shape(name))) for name in tensors.values())
        with progress.bar(f"write {path.name}", total) as advance:
            for name in tensors.values():
                # rows of queries and keys keep their order: libllama pairs (i, i + half) for Qwen2, as the checkpoint
                tensor = checkpoint.tensor(name)
                written = 0
                for block in row_blocks(tensor):
                    data = as_bytes(block, dtype if tensor.ndim == 2 else torch.float32, name)
                    file.write(data)
                    written += len(data)
                    advance(block.numel())
                writer.write_padding(file, written)


def row_blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """A tensor in blocks of rows of bounded size."""
    rows = max(1, ROWS_AT_ONCE_BYTES // (4 * max(1, tensor[0].numel())))
    return iter(tensor.split(rows))


def as_bytes(block: torch.Tensor, dtype: torch.dtype, name: str) -> memoryview:
    """Values in a type; raises BadInput when one overflows it."""
    converted = block.to(dtype)
    # libllama loads weights that are NaN without a warning
    if not torch.isfinite(converted).all():
        problem = "are too large for F16; use BF16" if torch.isfinite(block).all() else "are NaN or infinite"
        raise BadInput(f"values of {name} {problem}")
    # as bytes, since PyTorch hands no bfloat16 to NumPy
    return converted.contiguous().view(torch.uint8).numpy().data.cast("B")


def gguf_names(names: list[str], geometry: LlmGeometry) -> dict[str, str]:
    """Names in GGUF of the checkpoint's tensors; raises BadInput for one that GGUF's map does not know."""
    known = get_tensor_name_map(MODEL_ARCH.QWEN2, geometry.layers)
    mapped = {}
    for name in names:
        gguf_name = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise BadInput(f"{name} has no place in a Qwen2 GGUF")
        mapped[gguf_name] = name
    return mapped


def add_metadata(writer: GGUFWriter, checkpoint: Checkpoint, geometry: LlmGeometry, file_type: int) -> None:
    writer.add_name("ST-LLM")
    writer.add_file_type(file_type)
    writer.add_block_count(geometry.layers)
    writer.add_context_length(geometry.context)
    writer.add_embedding_length(geometry.width)
    writer.add_feed_forward_length(geometry.ffn)
    writer.add_head_count(geometry.heads)
    writer.add_head_count_kv(geometry.kv_heads)
    writer.add_layer_norm_rms_eps(geometry.rms_eps)
    writer.add_rope_freq_base(geometry.rope_base)
    tokenizer = Tokenizer.read(checkpoint, geometry.vocabulary)
    writer.add_tokenizer_model("gpt2")
    # without it libllama only warns, and splits words in another way
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    for role, token in tokenizer.special.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", token)
    writer.add_add_bos_token(False)
    writer.add_string(ADDED_TOKENS, tokenizer.added)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def describe_embedding(path: Path) -> dict[str, Any]:
    """Where the embedding matrix lies in a GGUF file."""
    reader = GGUFReader(path)
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    columns, rows = (int(size) for size in tensor.shape)
    return {"offset": int(tensor.data_offset), "type": tensor.tensor_type.name, "rows": rows, "columns": columns}


def weight_errors(path: Path, checkpoint: Checkpoint, inventory: Inventory) -> dict[str, tuple[str, float]]:
    """GGUF type and relative root mean square error of each tensor in a GGUF file, by the checkpoint's names.

    Of large tensors, rows spread over the tensor are compared.
    """
    named = gguf_names(inventory.used["llm"], inventory.geometry.llm)
    errors = {}
    for tensor in GGUFReader(path).tensors:
        name = named[tensor.name]
        stored = checkpoint.tensor(name)
        rows = np.unique(np.linspace(0, len(stored) - 1, max(2, SAMPLED_VALUES // stored[0].numel())).astype(int))
        if stored.ndim == 1:
            rows = np.arange(1)
            stored, data = stored[None], np.asarray(tensor.data)[None]
        else:
            data = np.asarray(tensor.data)
        ours = dequantise(np.ascontiguousarray(data[rows]), tensor.tensor_type).astype(np.float64)
        reference = stored[torch.from_numpy(rows)].double().numpy()
        scale = max(float(np.linalg.norm(reference)), np.finfo(float).tiny)
        error = float(np.linalg.norm(ours.reshape(reference.shape) - reference)) / scale
        errors[name] = tensor.tensor_type.name, error
    return errors
