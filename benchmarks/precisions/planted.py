"""What large towers have and random weights lack, put into a checkpoint: what a gate says with and without the mends.

    python -m stllm_edge.benchmarks.precisions.planted outliers small --rea rooms/val.json --root rooms
    python -m stllm_edge.benchmarks.precisions.planted overflow small --rea rooms/val.json --root rooms

outliers    1 % of the channels behind every LayerNorm are thirty times as large; the weights that read them, divided
overflow    values of one layer are multiplied by 2^17, beyond FP16's range; the output projection, divided

Both compute what the checkpoint computes. The vision tower is lowered as it comes and as the export does it.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...calib.collection import Collection
from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.geometry import take_inventory
from ...export.int8.gates import Judgement
from ...export.int8.recipe import Calibrating, Recipe
from ...export.int8.runs import SetRun
from ...export.model.parts import load_part
from ...export.onnx.encoders import trace_variants, write_variants
from ...export.onnx.graphs import GRAPHS, transpose_linears
from ...runtime.bundle.manifest import CPU, TENSORRT, Defaults
from ...runtime.bundle.precisions import FP16, INT8
from ...runtime.console import Progress
from ...runtime.options import Recording
from .candidates import candidates

__all__ = ["judged", "plant"]

OUTLIERS, OVERFLOW = KINDS = ("outliers", "overflow")
LARGER, SHARE, SCALE = 30.0, 0.01, 2.0**17
TOWER = "vision_tower.vision_model.encoder.layers."
READERS = {
    "layer_norm1": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "layer_norm2": ("mlp.fc1",),
}


def plant(kind: str, checkpoint: Path, out: Path) -> None:
    """Write a copy of a checkpoint that computes the same with larger activations; `kind` is one of `KINDS`."""
    shutil.copytree(checkpoint, out)
    for file in out.glob("*.safetensors"):
        tensors = load_file(file)
        layers = dict.fromkeys(
            name[: name.index(".", name.index(TOWER) + len(TOWER))] for name in tensors if TOWER in name
        )
        for number, layer in enumerate(layers):
            if kind == OUTLIERS:
                add_outliers(tensors, layer, seed=number)
        if kind == OVERFLOW and layers:
            last = list(layers)[-1]
            for name in ("v_proj.weight", "v_proj.bias"):
                tensors[f"{last}.self_attn.{name}"] *= SCALE
            tensors[f"{last}.self_attn.out_proj.weight"] /= SCALE
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def add_outliers(tensors: dict[str, Tensor], layer: str, seed: int) -> None:
    """Some channels behind both norms of a layer."""
    for norm, readers in READERS.items():
        width = len(tensors[f"{layer}.{norm}.weight"])
        generator = torch.Generator().manual_seed(seed)
        channels = torch.randperm(width, generator=generator)[: max(1, round(width * SHARE))]
        for name in ("weight", "bias"):
            tensors[f"{layer}.{norm}.{name}"][channels] *= LARGER
        for reader in readers:
            tensors[f"{layer}.{reader}.weight"][:, channels] /= LARGER


def judged(kind: str, checkpoint: Path, calibration: Path, defaults: Defaults) -> Iterator[tuple[str, str, Judgement]]:
    """What the gate says of the tower as it comes and as the export lowers it: in words, provider, judgement."""
    opened = Checkpoint(checkpoint)
    inventory = take_inventory(opened)
    sample = SetRun.open(calibration, opened, inventory.geometry, defaults)
    module = GRAPHS["vision"](load_part(opened, inventory, "vision"))
    transpose_linears(module)
    traced = trace_variants("vision", module, inventory.geometry)
    safe, exact = sample.safe_weights("vision", module), sample.exact_attentions("vision", module)
    ours: tuple[set[str], Recipe | None] = safe, None
    plain: tuple[set[str], Recipe | None] = {name for name, _ in module.named_parameters()}, None
    if kind == OUTLIERS:
        seen = sample.observed["vision"]
        ours = safe, Recipe.of("vision", module, seen, Calibrating())
        plain = safe, everywhere(Recipe.of("vision", module, seen, Calibrating(smooth=False)))
    form = INT8 if kind == OUTLIERS else FP16
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "onnx").mkdir()
        for words, (halved, recipe) in (("plain", plain), ("ours", ours)):
            entries = write_variants(root, f"vision.{words}.{form}", traced, halved, exact, recipe)
            for provider in (CPU, TENSORRT):
                literal = form == FP16 or provider == TENSORRT
                graphs = {"vision": root / entries[provider]["file"]}
                yield words, provider, sample.judge(form, "vision", graphs, literal=literal)


def everywhere(recipe: Recipe) -> Recipe:
    """INT8 also in the products that lose most by it."""
    tried = [choice.error == choice.error for choice in recipe.choices]
    forced = [
        replace(choice, form=INT8, exact="") if was_tried else choice
        for choice, was_tried in zip(recipe.choices, tried, strict=True)
    ]
    return replace(recipe, choices=tuple(forced))


def main(arguments: Sequence[str]) -> None:
    """Plant, collect, judge, print; status 1 unless what comes plain is refused and ours passes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rea", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    asked = parser.parse_args(arguments)
    defaults = Defaults(voxel_size=0.2, frames=4, time_instruction=False)
    with TemporaryDirectory() as folder:
        planted, calibration = Path(folder) / "checkpoint", Path(folder) / "set"
        plant(asked.kind, asked.checkpoint, planted)
        found = candidates(asked.rea, asked.root, "all", Recording(), asked.samples)
        Collection.open(calibration, planted, defaults, 0).run(found, asked.samples, Progress(quiet=True))
        judgements = list(judged(asked.kind, planted, calibration, defaults))
    for words, provider, judgement in judgements:
        print(f"{words:<6} {provider:<9} {judgement}")
    sys.exit(any(judgement.passed != (words == "ours") for words, _, judgement in judgements))


if __name__ == "__main__":
    main(sys.argv[1:])
