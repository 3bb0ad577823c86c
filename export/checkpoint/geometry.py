"""Sizes of the model in a checkpoint, and the check that every tensor is there, fits, and is known (SPEC section 2)."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...runtime.bundle.geometry import AlignerGeometry, Geometry, LlmGeometry, PointGeometry, VisionGeometry
from ...runtime.errors import BadInput
from ..model.aligner import Aligner
from ..model.llm import Qwen2
from ..model.points import PointEncoder
from ..model.vision import VisionEncoder
from .checkpoint import POINT_ENCODER, Checkpoint
from .configuration import CONFIG_KEYS, GENERATION_KEYS, TOWER_KEYS, positive
from .files import read_json
from .rope import read_rope_base

__all__ = ["PREFIXES", "Inventory", "build", "take_inventory"]

LOG = logging.getLogger(__name__)

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
PUBLIC_TOWERS = {"google/siglip-so400m-patch14-384": SO400M}
QFORMER_HEAD_WIDTH = 64
DELETED_VISION_LAYERS = 1
MOST_MISSING_LAYERS = 100
# compared at once
ROWS = 4096
PREFIXES = {"vision": "model.", "points": "pcd_encoder.", "aligner": "", "llm": ""}

TOWER = "model.vision_tower.vision_tower.vision_model."
UNUSED = re.compile(
    r"qformer\.embeddings\.(word_embeddings\.weight|position_embeddings\.weight|position_ids)"
    r"|qformer\.encoder\.layer\.\d+\.(intermediate|output)\..+"
    r"|mlp_module\..+"
    rf"|{re.escape(TOWER)}(post_layernorm\.(weight|bias)|embeddings\.position_ids)"
    r"|model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    r"|pcd_encoder\..+\.num_batches_tracked"
)


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
    geometry = read_geometry(checkpoint)
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


def read_geometry(checkpoint: Checkpoint) -> Geometry:
    """Sizes from the configuration, and from the weights where no file holds them."""
    geometry = Geometry(
        vision=read_vision(checkpoint),
        points=read_points(checkpoint),
        aligner=read_aligner(checkpoint),
        llm=read_llm(checkpoint),
    )
    widths = (geometry.points.features, geometry.aligner.point_features, geometry.aligner.width)
    if len(set(widths)) > 1:
        raise BadInput(
            f"{checkpoint.path}: point features are {widths[0]} wide, "
            f"the Q-Former reads {widths[1]} and is {widths[2]} wide"
        )
    return geometry


def read_llm(checkpoint: Checkpoint) -> LlmGeometry:
    place = f"{checkpoint.path}: config.json"
    geometry = LlmGeometry(
        width=number(checkpoint, "hidden_size"),
        layers=number(checkpoint, "num_hidden_layers"),
        heads=number(checkpoint, "num_attention_heads"),
        kv_heads=number(checkpoint, "num_key_value_heads"),
        ffn=number(checkpoint, "intermediate_size"),
        vocabulary=number(checkpoint, "vocab_size"),
        context=number(checkpoint, "max_position_embeddings"),
        rope_base=read_rope_base(place, checkpoint.config),
        rms_eps=positive(place, "rms_norm_eps", checkpoint.config.get("rms_norm_eps", 1e-6)),
        tied=read_tied(checkpoint),
    )
    require_layers(checkpoint, geometry.layers, r"model\.layers\.(\d+)\.")
    if geometry.width % (2 * geometry.heads) or geometry.heads % geometry.kv_heads:
        raise BadInput(
            f"{checkpoint.path}: config.json: {geometry.heads} attention heads and {geometry.kv_heads} key-value heads "
            f"do not divide a width of {geometry.width}"
        )
    expect(checkpoint, "head_dim", geometry.head_width)
    expect(checkpoint, "layer_types", ["full_attention"] * geometry.layers)
    return geometry


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


def read_vision(checkpoint: Checkpoint) -> VisionGeometry:
    name = str(checkpoint.config.get("mm_vision_tower", ""))
    if name in PUBLIC_TOWERS:
        tower: dict[str, Any] = PUBLIC_TOWERS[name]
    elif (found := checkpoint.find(f"{name}/config.json")) is not None:
        tower = read_json(found)
        tower = tower["vision_config"] if isinstance(tower.get("vision_config"), dict) else tower
        TOWER_KEYS.check(str(found), tower)
    else:
        raise BadInput(
            f"{checkpoint.path}: mm_vision_tower is {name!r}; expected {', '.join(PUBLIC_TOWERS)} "
            "or a folder of the checkpoint with a SigLIP config.json"
        )
    try:
        image_size, patch_size = int(tower["image_size"]), int(tower["patch_size"])
        geometry = VisionGeometry(
            image_size=image_size,
            patch_size=patch_size,
            width=int(tower["hidden_size"]),
            layers=int(tower["num_hidden_layers"]) - DELETED_VISION_LAYERS,
            heads=int(tower["num_attention_heads"]),
            mlp=int(tower["intermediate_size"]),
            grid=-(-(image_size // patch_size) // number(checkpoint, "mm_spatial_pool_stride", 2)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"{checkpoint.path}: the SigLIP config.json of {name!r} lacks a size ({error})") from None
    require_layers(checkpoint, geometry.layers, rf"{re.escape(TOWER)}encoder\.layers\.(\d+)\.")
    if geometry.heads < 1 or geometry.width % geometry.heads:
        raise BadInput(f"{checkpoint.path}: {geometry.heads} vision heads do not divide a width of {geometry.width}")
    return geometry


def read_points(checkpoint: Checkpoint) -> PointGeometry:
    def kernel(name: str) -> tuple[int, ...]:
        return shape(checkpoint, f"{POINT_ENCODER}{name}.kernel", 2 if name == "final" else 3)

    counts = tuple(count(checkpoint, rf"{re.escape(POINT_ENCODER)}block{level}\.(\d+)\.") for level in range(1, 9))
    if 0 in counts:
        raise BadInput(f"{checkpoint.path}: {POINT_ENCODER}block{counts.index(0) + 1} is missing")
    return PointGeometry(
        channels=(*kernel("conv0p1s1")[1:], *(kernel(f"block{level}.0.conv1")[2] for level in range(1, 9))),
        downsampled=tuple(kernel(f"conv{level + 1}p{2**level}s2")[2] for level in range(4)),
        upsampled=tuple(kernel(f"convtr{step + 4}p{16 >> step}s2")[2] for step in range(4)),
        blocks=counts,
        features=kernel("final")[1],
    )


def read_aligner(checkpoint: Checkpoint) -> AlignerGeometry:
    latents, width = shape(checkpoint, "latent_query.weight", 2)
    layers = count(checkpoint, r"qformer\.encoder\.layer\.(\d+)\.")
    crossing = [
        index
        for index in range(layers)
        if f"qformer.encoder.layer.{index}.crossattention.attention.key.weight" in checkpoint
    ]
    if width % QFORMER_HEAD_WIDTH or not crossing:
        raise BadInput(
            f"{checkpoint.path}: the Q-Former needs a width divisible by {QFORMER_HEAD_WIDTH} (found {width}) "
            f"and cross-attention (found in {len(crossing)} of {layers} layers)"
        )
    layer = "qformer.encoder.layer"
    return AlignerGeometry(
        width=width,
        heads=width // QFORMER_HEAD_WIDTH,
        layers=layers,
        cross_layers=tuple(crossing),
        ffn=shape(checkpoint, f"{layer}.0.intermediate_query.dense.weight", 2)[0],
        latents=latents,
        point_features=shape(checkpoint, f"{layer}.{crossing[0]}.crossattention.attention.key.weight", 2)[1],
    )


def shape(checkpoint: Checkpoint, name: str, rank: int) -> tuple[int, ...]:
    """Shape of a tensor from which sizes are read."""
    found = checkpoint.shape(name)
    if len(found) != rank:
        raise BadInput(f"{checkpoint.path}: tensor {name} has shape {list(found)}, expected {rank} axes")
    return found


def require_layers(checkpoint: Checkpoint, stated: int, pattern: str) -> None:
    """Raise BadInput where far more layers are stated than stored, too many to list their tensors as missing."""
    stored = count(checkpoint, pattern)
    if stated > stored + MOST_MISSING_LAYERS:
        raise BadInput(f"{checkpoint.path}: config.json states {stated} layers, the weights hold {stored}")


def count(checkpoint: Checkpoint, pattern: str) -> int:
    """One more than the largest number that the pattern's group finds among the names; 0 if none."""
    found = re.compile(pattern)
    return max((int(match[1]) + 1 for name in checkpoint.names() if (match := found.match(name))), default=0)


def number(checkpoint: Checkpoint, key: str, default: int | None = None) -> int:
    value = checkpoint.config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{checkpoint.path}: config.json: {key} is {value!r}, expected a positive whole number")
    return value


def expect(checkpoint: Checkpoint, key: str, value: Any) -> None:
    """Refuse a model that computes something else; a key that is absent or null means the usual value."""
    found = checkpoint.config.get(key)
    if found not in (None, value):
        raise BadInput(f"{checkpoint.path}: config.json: {key} is {found!r}; only {value!r} is supported")
