"""Sizes of the model in a checkpoint, from its configuration and from the shapes of its tensors (SPEC section 2).

Nothing here reads a weight, or needs PyTorch.
"""

import re
from pathlib import Path
from typing import Any, Protocol

from ...runtime.bundle.geometry import AlignerGeometry, Geometry, LlmGeometry, PointGeometry, VisionGeometry
from ...runtime.errors import BadInput
from .configuration import TOWER_KEYS, positive
from .files import read_json
from .rope import read_rope_base

__all__ = ["DELETED_VISION_LAYERS", "POINT_ENCODER", "PUBLIC_TOWERS", "TOWER", "UNUSED", "Described", "read_geometry"]

POINT_ENCODER = "pcd_encoder.net3d."
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
TOWER = "model.vision_tower.vision_tower.vision_model."
UNUSED = re.compile(
    r"qformer\.embeddings\.(word_embeddings\.weight|position_embeddings\.weight|position_ids)"
    r"|qformer\.encoder\.layer\.\d+\.(intermediate|output)\..+"
    r"|mlp_module\..+"
    rf"|{re.escape(TOWER)}(post_layernorm\.(weight|bias)|embeddings\.position_ids)"
    r"|model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    r"|pcd_encoder\..+\.num_batches_tracked"
)


class Described(Protocol):
    """A checkpoint as far as sizes need it: its configuration, and names and shapes of its tensors."""

    path: Path
    config: dict[str, Any]

    def __contains__(self, name: object) -> bool: ...
    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def find(self, name: str) -> Path | None: ...


def read_geometry(checkpoint: Described, tied: bool) -> Geometry:
    """Sizes from the configuration, and from the weights where no file holds them; `tied` as in `LlmGeometry`."""
    geometry = Geometry(
        vision=read_vision(checkpoint),
        points=read_points(checkpoint),
        aligner=read_aligner(checkpoint),
        llm=read_llm(checkpoint, tied),
    )
    widths = (geometry.points.features, geometry.aligner.point_features, geometry.aligner.width)
    if len(set(widths)) > 1:
        raise BadInput(
            f"{checkpoint.path}: point features are {widths[0]} wide, "
            f"the Q-Former reads {widths[1]} and is {widths[2]} wide"
        )
    return geometry


def read_llm(checkpoint: Described, tied: bool) -> LlmGeometry:
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
        tied=tied,
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


def read_vision(checkpoint: Described) -> VisionGeometry:
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


def read_points(checkpoint: Described) -> PointGeometry:
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


def read_aligner(checkpoint: Described) -> AlignerGeometry:
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


def shape(checkpoint: Described, name: str, rank: int) -> tuple[int, ...]:
    """Shape of a tensor from which sizes are read."""
    found = checkpoint.shape(name)
    if len(found) != rank:
        raise BadInput(f"{checkpoint.path}: tensor {name} has shape {list(found)}, expected {rank} axes")
    return found


def require_layers(checkpoint: Described, stated: int, pattern: str) -> None:
    """Raise BadInput where far more layers are stated than stored, too many to list their tensors as missing."""
    stored = count(checkpoint, pattern)
    if stated > stored + MOST_MISSING_LAYERS:
        raise BadInput(f"{checkpoint.path}: config.json states {stated} layers, the weights hold {stored}")


def count(checkpoint: Described, pattern: str) -> int:
    """One more than the largest number that the pattern's group finds among the names; 0 if none."""
    found = re.compile(pattern)
    return max((int(match[1]) + 1 for name in checkpoint.names() if (match := found.match(name))), default=0)


def number(checkpoint: Described, key: str, default: int | None = None) -> int:
    value = checkpoint.config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{checkpoint.path}: config.json: {key} is {value!r}, expected a positive whole number")
    return value


def expect(checkpoint: Described, key: str, value: Any) -> None:
    """Refuse a model that computes something else; a key that is absent or null means the usual value."""
    found = checkpoint.config.get(key)
    if found not in (None, value):
        raise BadInput(f"{checkpoint.path}: config.json: {key} is {found!r}; only {value!r} is supported")
