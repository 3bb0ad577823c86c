"""The stages of a question in one table: what each takes and gives, and how far from PyTorch it may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FORMATS", "FUSED", "LEVELS", "STAGES", "Stage", "Tolerance"]

# strides of the point encoder: 1, 2, 4, 8, 16 voxels
LEVELS = 5
# how many of the finest levels' 3x3x3 kernels come as slabs, by the format of the kernel maps that a graph takes
FORMATS = {"slabs": 2, "tables": 0}
# the aligner of a float32 bundle for TensorRT, whose attention has FP16 factors
FUSED = "fp32, FP16 attention"


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from PyTorch's.

    Attributes:
        rel_rms: most root mean square of the difference over that of the reference; None where it does not count.
        cosine: least cosine of the angle between the two; None where it does not count.
    """

    rel_rms: float | None = None
    cosine: float | None = None

    def holds(self, rel_rms: float, cosine: float) -> bool:
        """Whether a difference is tolerated; one that is not a number never is."""
        near = self.rel_rms is None or rel_rms <= self.rel_rms
        return near and (self.cosine is None or cosine >= self.cosine)

    def __str__(self) -> str:
        bounds = [] if self.rel_rms is None else [f"rel-rms <= {self.rel_rms:g}"]
        return ", ".join(bounds if self.cosine is None else [*bounds, f"cosine >= {self.cosine}"])


@dataclass(frozen=True)
class Stage:
    """One step of the way from files to text.

    Attributes:
        name: in timings, plans, logs and reports.
        inputs: names of a graph's inputs in its order, by the format of the kernel maps that the graph takes (None
            where it takes none); empty for a stage without a graph.
        output: name of the array that it computes, of an encoder also in its graph; empty where there are several.
        tolerances: by precision of the encoders or quantisation of the language model; what has none is reported only.
    """

    name: str
    inputs: Mapping[str | None, tuple[str, ...]] = field(default_factory=dict)
    output: str = ""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)


def map_inputs(slabbed: int) -> tuple[str, ...]:
    """Names of the arrays of kernel maps, of which so many levels come as slabs."""
    counts = dict.fromkeys(("slab_rows", "slab_bounds", "slab_offsets", "slab_place"), slabbed)
    counts |= {"tables": LEVELS - slabbed, "down": LEVELS - 1, "up": LEVELS - 1}
    return ("runs", "stem", "order", *(f"{name}_{level}" for name, count in counts.items() for level in range(count)))


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("video", output="frames"),
        Stage("voxels"),
        Stage("maps"),
        Stage("rays"),
        Stage(
            "vision",
            {None: ("frames",)},
            "video_tokens",
            {"fp32": Tolerance(rel_rms=5e-6), "fp16": Tolerance(cosine=0.999)},
        ),
        Stage(
            "points",
            {name: ("voxel_feats", *map_inputs(slabbed)) for name, slabbed in FORMATS.items()},
            "pcd_features",
            {"fp32": Tolerance(rel_rms=5e-6), "fp16": Tolerance(cosine=0.999)},
        ),
        Stage(
            "aligner",
            {None: ("pcd_features", "pcd_rays", "pooled_features", "img_rays", "text_embeds")},
            "prefix_tokens",
            {"fp32": Tolerance(rel_rms=3e-5), FUSED: Tolerance(rel_rms=2e-3), "fp16": Tolerance(cosine=0.999)},
        ),
        Stage(
            "prefill",
            output="logits_last_prompt",
            tolerances={
                "F32": Tolerance(rel_rms=1e-4),
                "F16": Tolerance(rel_rms=2e-3),
                "BF16": Tolerance(rel_rms=2e-3),
                "Q8_0": Tolerance(rel_rms=0.08),
            },
        ),
        Stage("decode", output="token_ids"),
    )
}
