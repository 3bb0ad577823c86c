"""Sizes of a model: read from a checkpoint, stored in a bundle's manifest, never assumed (SPEC section 1)."""

from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["AlignerGeometry", "Geometry", "LlmGeometry", "PointGeometry", "VisionGeometry"]

# sizes are below it
LIMIT = 2**31
# how many sizes a list has, where the number is part of the architecture
COUNTS = {"channels": 10, "downsampled": 4, "upsampled": 4, "blocks": 8}


@dataclass(frozen=True)
class VisionGeometry:
    """The vision tower and the pooling after it.

    Attributes:
        image_size: side of the square input, pixels.
        patch_size: side of a patch, pixels.
        width: hidden size.
        layers: layers that are stored and run.
        heads: attention heads.
        mlp: hidden size of the feed-forward part.
        grid: pooled patches along one side of a frame.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp: int
    grid: int

    @property
    def patches(self) -> int:
        """Patches of a frame before pooling."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class PointGeometry:
    """The sparse U-Net.

    Attributes:
        channels: width of the input colours and of each of conv0 and the levels, `[in, conv0, block1 .. block8]`.
        downsampled: output widths of the four strided convolutions.
        upsampled: output widths of the four transposed convolutions.
        blocks: residual blocks a level, eight numbers.
        features: width of a point feature.
    """

    channels: tuple[int, ...]
    downsampled: tuple[int, ...]
    upsampled: tuple[int, ...]
    blocks: tuple[int, ...]
    features: int


@dataclass(frozen=True)
class AlignerGeometry:
    """The Q-Former.

    Attributes:
        width: hidden size.
        heads: attention heads, 64 wide each.
        layers: layers.
        cross_layers: indices of the layers that attend to the points.
        ffn: hidden size of the feed-forward part.
        latents: learned queries, which become the prefix tokens.
        point_features: width of the point features.
    """

    width: int
    heads: int
    layers: int
    cross_layers: tuple[int, ...]
    ffn: int
    latents: int
    point_features: int


@dataclass(frozen=True)
class LlmGeometry:
    """The Qwen2 language model.

    Attributes:
        width: hidden size.
        layers: layers.
        heads: query heads.
        kv_heads: key and value heads.
        ffn: hidden size of the feed-forward part.
        vocabulary: rows of the embedding matrix.
        context: longest sequence it was made for.
        rope_base: base of the rotary frequencies.
        rms_eps: epsilon of its norms.
        tied: whether the output matrix is the embedding matrix.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    context: int
    rope_base: float
    rms_eps: float
    tied: bool

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class Geometry:
    """All parts of an ST-LLM."""

    vision: VisionGeometry
    points: PointGeometry
    aligner: AlignerGeometry
    llm: LlmGeometry

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require_possible(self) -> None:
        """Raise ValueError, which names the first size that no model has."""
        for part in fields(self):
            for key, value in asdict(getattr(self, part.name)).items():
                if isinstance(value, tuple):
                    possible = len(value) == COUNTS.get(key, len(value)) and all(0 <= size < LIMIT for size in value)
                else:
                    possible = 0 < value < LIMIT or value is False
                if not possible:
                    raise ValueError(f"lacks or misstates 'geometry.{part.name}.{key}' ({value})")
