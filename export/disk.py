"""How much disk an export needs, checked before it starts."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..runtime.bundle.precisions import formats_of
from ..runtime.errors import DoesNotFit
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .gguf.types import PLAIN, QUANTISED
from .gguf.writer import lossless, plain_types

__all__ = ["require_disk"]

# with INT8, what stays float32, and the scales
ENCODER_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.3}
# a bound on the bits that a weight takes, for types whose blocks mix several
BITS = {"Q8_0": 8.5, "Q6_K": 6.6, "Q5": 6.1, "Q4": 5.1, "IQ4": 4.6, "Q3": 4.4, "IQ3": 4.4}
OTHER_BITS = 3.1
SLACK = 2**24


def require_disk(
    out: Path, checkpoint: Checkpoint, inventory: Inventory, precisions: Sequence[str], quants: Sequence[str]
) -> str:
    """Compare what an export writes at its peak with what is free.

    Args:
        out: the bundle.
        checkpoint: what is exported.
        inventory: its names and sizes.
        precisions: of the encoders that will be written, each once.
        quants: of the language models that will be written, each once.

    Returns:
        One line on both.

    Raises:
        DoesNotFit: less is free than needed.
    """
    formats = {(name, form) for precision in precisions for name, form in formats_of(precision).items()}
    needed = SLACK + int(
        sum(parameters(checkpoint, inventory.used[name]) * ENCODER_BYTES[form] for name, form in formats)
    )
    llm = parameters(checkpoint, inventory.used["llm"])
    embedding = inventory.geometry.llm.vocabulary * inventory.geometry.llm.width
    source = lossless(checkpoint, inventory.used["llm"])
    needed += sum(llm * PLAIN[plain][1].itemsize for plain in plain_types(quants, source))
    for quant in quants:
        if quant in QUANTISED:
            # the embedding matrix becomes Q8_0 or stays as it is; the latter is the bound
            needed += int((llm - embedding) * bits(quant) / 8) + embedding * PLAIN[source][1].itemsize
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    stated = f"needs {needed / 1e9:.1f} GB of disk at its peak, {free / 1e9:.1f} GB are free in {folder}"
    if needed > free:
        raise DoesNotFit(f"the export {stated}; free some, or write to another --out")
    return stated


def parameters(checkpoint: Checkpoint, names: list[str]) -> int:
    return sum(math.prod(checkpoint.shape(name)) for name in names)


def bits(quant: str) -> float:
    """Bits that a weight takes at the most."""
    assert quant in QUANTISED
    return max((bits for prefix, bits in BITS.items() if quant.startswith(prefix)), default=OTHER_BITS)
