"""Right checkpoints of many kinds, exported and compared: none may get a cross.

    python -m stllm_edge.benchmarks.variants [--seed N] [NAME ...]

prints for each kind how much of its limit each part used, which stands in docs/verify.md.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..export.comparison import Row
from ..export.gguf.types import QUANTS
from ..export.pipeline import Export
from ..runtime.bundle.geometry import AlignerGeometry, Geometry
from ..runtime.bundle.precisions import FP16, FP32
from .checkpoints import TINY, write_checkpoint

__all__ = ["VARIANTS", "Variant", "compare", "write_variant"]

VISION, ALIGNER, LLM = "model.vision_tower.", "qformer.", "model.layers."
Change = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """A kind of checkpoint.

    Attributes:
        geometry: its sizes.
        change: what is done to each tensor [...] of random weights, by name.
        dtype: that all but the point encoder are stored in.
    """

    geometry: Geometry = TINY
    change: Change = lambda name, tensor: tensor
    dtype: torch.dtype = torch.bfloat16


def scaled(factor: float, *words: str) -> Change:
    """Matrices whose names hold one of some words, or all of the towers, the aligner and the language model."""

    def change(name: str, tensor: Tensor) -> Tensor:
        inside = any(word in name for word in words or (VISION, ALIGNER, LLM))
        return tensor * factor if inside and tensor.ndim > 1 and "embedding" not in name else tensor

    return change


def sharp(factor: float, prefix: str) -> Change:
    """Attention whose queries and keys are so many times larger."""

    def change(name: str, tensor: Tensor) -> Tensor:
        attends = any(word in name for word in (".query.", ".key.", ".q_proj.", ".k_proj."))
        return tensor * factor if attends and name.startswith(prefix) else tensor

    return change


def outliers(factor: float, prefix: str) -> Change:
    """A few channels so many times larger than the others, in what is written to the residual."""

    def change(name: str, tensor: Tensor) -> Tensor:
        writes = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight", "output.dense.weight")
        if not (name.startswith(prefix) and name.endswith(writes)):
            return tensor
        channels = torch.ones(len(tensor), 1)
        channels[::50] = factor
        return tensor * channels.to(tensor.dtype)

    return change


def sized(**parts: dict[str, object]) -> Geometry:
    """The tiny sizes with others in some parts."""
    return replace(TINY, **{part: replace(getattr(TINY, part), **sizes) for part, sizes in parts.items()})


WIDE_ALIGNER = AlignerGeometry(
    width=256, heads=4, layers=3, cross_layers=(0, 2), ffn=512, latents=16, point_features=256
)
VARIANTS = {
    "as trained": Variant(),
    "float16": Variant(dtype=torch.float16),
    "float32": Variant(change=lambda name, tensor: tensor.float() * 1.0007, dtype=torch.float32),
    "weights x 0.3": Variant(change=scaled(0.3)),
    "weights x 2": Variant(change=scaled(2.0)),
    "weights x 3": Variant(change=scaled(3.0)),
    "aligner's attention x 4": Variant(change=sharp(2.0, ALIGNER)),
    "aligner's attention x 16": Variant(change=sharp(4.0, ALIGNER)),
    "aligner's attention x 64": Variant(change=sharp(8.0, ALIGNER)),
    "tower's attention x 9": Variant(change=sharp(3.0, VISION)),
    "language model's attention x 9": Variant(change=sharp(3.0, LLM)),
    "outliers in the tower": Variant(change=outliers(30.0, VISION)),
    "outliers in the aligner": Variant(change=outliers(30.0, ALIGNER)),
    "outliers in the language model": Variant(change=outliers(30.0, LLM)),
    "wide": Variant(
        replace(
            sized(vision={"width": 160, "heads": 5, "mlp": 320}, points={"features": 256}, llm={"width": 512}),
            aligner=WIDE_ALIGNER,
        )
    ),
    "deep": Variant(sized(vision={"layers": 8}, aligner={"layers": 6, "cross_layers": (0, 2, 4)}, llm={"layers": 12})),
    "narrow, tied, other constants": Variant(
        sized(
            vision={"layers": 1, "image_size": 70, "grid": 3},
            aligner={"layers": 2, "cross_layers": (0,)},
            llm={"width": 192, "heads": 3, "kv_heads": 1, "tied": True, "rope_base": 1e4, "rms_eps": 1e-5},
        )
    ),
    "cross-attention elsewhere": Variant(sized(aligner={"layers": 4, "cross_layers": (1, 2)})),
}


def write_variant(folder: Path, variant: Variant, seed: int = 0) -> Path:
    """Write a checkpoint of a kind; returns its folder."""
    write_checkpoint(folder, variant.geometry, seed=seed)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            kept = torch.float32 if name.startswith("pcd_encoder.") else variant.dtype
            tensors[name] = variant.change(name, tensor).to(kept).contiguous()
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file(tensors, folder / "model.safetensors")
    return folder


def compare(
    variant: Variant,
    folder: Path,
    precisions: Iterable[str] = (FP32, FP16),
    quants: Iterable[str] = QUANTS,
    seed: int = 0,
) -> Iterator[Row]:
    """Export a checkpoint of a kind into a new folder and compare it, all by default."""
    checkpoint = write_variant(folder / "checkpoint", variant, seed)
    exported = Export.open(checkpoint, folder / "bundle", quiet=True)
    return exported.everything([*precisions], [*quants])


def main(names: Iterable[str], seed: int) -> None:
    """Print a line a kind: the largest difference of each stage, and what failed."""
    logging.basicConfig(level=logging.WARNING, format="    %(message)s")
    failed = 0
    for name in names or VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            rows = list(compare(VARIANTS[name], Path(folder), seed=seed))
        wrong = [row for row in rows if row.passed is False]
        following = [row for row in rows if "times what" in row.limit]
        failed += len(wrong)
        print(
            f"{'✗' if wrong else '✓'} {name}: {len(rows)} rows, {len(following)} under a limit that follows the model"
        )
        for row in [*following, *(row for row in wrong if row not in following)]:
            print(f"    {row}")
        sys.stdout.flush()
    sys.exit(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("names", nargs="*", choices=[*VARIANTS, []], metavar="NAME")
    arguments = parser.parse_args()
    main(arguments.names, arguments.seed)
