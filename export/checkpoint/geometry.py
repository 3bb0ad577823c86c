"""Sizes of the model in a checkpoint, and the check that every tensor is there, fits, and is known (SPEC section 2)."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...runtime.bundle.geometry import Geometry
from ...runtime.errors import BadInput
from ..model.aligner import Aligner
from ..model.llm import Qwen2
from ..model.points import PointEncoder
from ..model.vision import VisionEncoder
from .checkpoint import Checkpoint
from .configuration import CONFIG_KEYS, GENERATION_KEYS
from .files import read_json
from .sizes import UNUSED, read_geometry

__all__ = ["PREFIXES", "Inventory", "build", "take_inventory"]

LOG = logging.getLogger(__name__)
# compared at once
ROWS = 4096
PREFIXES = {"vision": "model.", "points": "pcd_encoder.", "aligner": "", "llm": ""}


@dataclass(frozen=True)
class Inventory:
    """What a checkpoint holds.

    Attributes:
        geometry: sizes of the model.
        used: tensor names by part: vision, points, aligner, llm.
        unused: names that the trainer saves and the model never reads.
        missing: names that the model needs and the checkpoint lacks.
        unknown: names that do not belong to an ST-LLM.
        misfits: sentences on tensors whose shape is not the one that the configuration asks for.
    """

    geometry: Geometry
    used: dict[str, list[str]]
    unused: list[str]
    missing: list[str]
    unknown: list[str]
    misfits: list[str]

    def require_complete(self, path: Path) -> None:
        """Raise BadInput unless the checkpoint is exactly an ST-LLM."""
        for problem, names in (("missing", self.missing), ("unknown", self.unknown)):
            if names:
                raise BadInput(f"{path}: {len(names)} {problem} tensor{'s' * (len(names) > 1)}: {', '.join(names)}")
        if self.misfits:
            raise BadInput(f"{path}: config.json disagrees with the weights: {'; '.join(self.misfits)}")


def build(geometry: Geometry) -> dict[str, nn.Module]:
    """The four parts in plain PyTorch, without storage (on the meta device)."""
    with torch.device("meta"):
        return {
            "vision": VisionEncoder(geometry.vision, geometry.llm.width),
            "points": PointEncoder(geometry.points),
            "aligner": Aligner(geometry.aligner, geometry.llm.width),
            "llm": Qwen2(geometry.llm),
        }


def take_inventory(checkpoint: Checkpoint) -> Inventory:
    """Read the sizes and compare the tensors with what the model needs.

    Raises:
        BadInput: the sizes cannot be read, or a configuration asks for another model.
    """
    CONFIG_KEYS.check(f"{checkpoint.path}: config.json", checkpoint.config)
    if (generation := checkpoint.find("generation_config.json")) is not None:
        GENERATION_KEYS.check(str(generation), read_json(generation))
    geometry = read_geometry(checkpoint, tied=read_tied(checkpoint))
    shapes: dict[str, tuple[int, ...]] = {}
    used: dict[str, list[str]] = {}
    for part, module in build(geometry).items():
        state = {PREFIXES[part] + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        state = {name: shape for name, shape in state.items() if not UNUSED.fullmatch(name)}
        if part == "llm" and geometry.llm.tied:
            state.pop("lm_head.weight")
        shapes |= state
        used[part] = sorted(state)

    tied_copy = {"lm_head.weight"} if geometry.llm.tied else set()
    stored = set(checkpoint.names())
    unused = {name for name in stored - set(shapes) if UNUSED.fullmatch(name)} | (tied_copy & stored)
    return Inventory(
        geometry=geometry,
        used={part: [name for name in names if name in stored] for part, names in used.items()},
        unused=sorted(unused),
        missing=sorted(set(shapes) - stored),
        unknown=sorted(stored - set(shapes) - unused),
        misfits=[
            f"{name} is {list(checkpoint.shape(name))}, expected {list(shape)}"
            for name, shape in sorted(shapes.items())
            if name in stored and checkpoint.shape(name) != shape
        ],
    )


def read_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output matrix is the embedding matrix: asked for, and none other is stored (transformers 5)."""
    tied = checkpoint.config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise BadInput(f"{checkpoint.path}: config.json: tie_word_embeddings is {tied!r}, expected true or false")
    names = ("lm_head.weight", "model.embed_tokens.weight")
    if not tied or not all(name in checkpoint for name in names):
        return tied
    output, embedding = (checkpoint.tensor(name) for name in names)
    if output.shape == embedding.shape and all(
        torch.equal(a.float(), b.float()) for a, b in zip(output.split(ROWS), embedding.split(ROWS), strict=True)
    ):
        return True
    LOG.warning(
        "%s: config.json has tie_word_embeddings, but the stored lm_head.weight is not the embedding matrix; "
        "it is used, as transformers 5 does",
        checkpoint.path,
    )
    return False
