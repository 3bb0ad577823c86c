"""The stages of a question in one table: what each takes and gives, and how far from PyTorch it may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CLOCKED",
    "FORMATS",
    "FUSED",
    "GRAPH",
    "LEVELS",
    "LOSSES",
    "MOST_ACTIVATION_COSTS",
    "MOST_ATTENTION_COST",
    "MOST_COSTS",
    "STAGES",
    "Stage",
    "Tolerance",
]

# strides of the point encoder: 1, 2, 4, 8, 16 voxels
LEVELS = 5
# how many of the finest levels' 3x3x3 kernels come as slabs, by the format of the kernel maps that a graph takes
FORMATS = {"slabs": 2, "tables": 0}
# the aligner of a float32 bundle for TensorRT, whose attention has FP16 factors
FUSED = "fp32, FP16 attention"
# the language model with the very weights that a GGUF holds: what is left is the rounding of activations
GRAPH = "weights of the GGUF"
# what FP16 factors of attention may cost an aligner in PyTorch; the attention that costs most keeps float32 beyond it
MOST_ATTENTION_COST = 5e-3
# where a model needs more than its tolerance, a multiple of what the format costs it in PyTorch is allowed, up to this
MOST_COSTS = {"fp32": 4e-3, "fp16": 0.25, FUSED: 0.02, "int8": 0.25}


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from PyTorch's; all three count.

    Attributes:
        rel_rms: most root mean square of the difference over that of the reference.
        cosine: least cosine of the angle between the two.
        norm: most that the ratio of the two norms may differ from 1.
    """

    rel_rms: float
    cosine: float
    norm: float

    @classmethod
    def around(cls, rel_rms: float) -> "Tolerance":
        """The limits of a difference that has no direction of its own: rounding, which hardly changes a norm."""
        return cls(rel_rms, max(1 - rel_rms**2, -1.0), rel_rms / 2)

    def holds(self, rel_rms: float, cosine: float, norm: float) -> bool:
        """Whether a difference is tolerated; one that is not a number never is."""
        return rel_rms <= self.rel_rms and cosine >= self.cosine and abs(norm - 1) <= self.norm

    def __str__(self) -> str:
        return f"rel-rms <= {self.rel_rms:.2g}, 1 - cosine <= {1 - self.cosine:.1g}, norm 1 ± {self.norm:.1g}"


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
            {"fp32": Tolerance.around(5e-6), "fp16": Tolerance.around(2e-3), "int8": Tolerance.around(0.02)},
        ),
        Stage(
            "points",
            {name: ("voxel_feats", *map_inputs(slabbed)) for name, slabbed in FORMATS.items()},
            "pcd_features",
            {"fp32": Tolerance.around(5e-6), "fp16": Tolerance.around(1.5e-3), "int8": Tolerance.around(0.02)},
        ),
        Stage(
            "aligner",
            {None: ("pcd_features", "pcd_rays", "pooled_features", "img_rays", "text_embeds")},
            "prefix_tokens",
            {
                "fp32": Tolerance.around(3e-5),
                FUSED: Tolerance.around(2e-3),
                "fp16": Tolerance.around(2e-3),
                "int8": Tolerance.around(0.02),
            },
        ),
        Stage(
            "prefill",
            output="logits_last_prompt",
            tolerances={
                "F32": Tolerance.around(1e-4),
                "F16": Tolerance.around(2e-3),
                "BF16": Tolerance.around(5e-3),
                GRAPH: Tolerance.around(0.03),
            },
        ),
        Stage("decode", output="token_ids"),
    )
}

# all that has a clock of its own: the stages, what goes before them and within them, and the loading of each component
CLOCKED = ("scene", *STAGES, "resize", "prompt", *(f"load_{name}" for name in ("vision", "points", "aligner", "llm")))
CLOCKED += ("sampling", "detokenise")

# what quantisation may do to the logits; only a broken file does more
LOSSES: Mapping[str, Tolerance] = {
    quant: Tolerance(rel_rms, cosine, norm)
    for quants, rel_rms, cosine, norm in (
        (("Q8_0",), 0.15, 0.98, 0.1),
        (("Q6_K",), 0.3, 0.95, 0.2),
        (("Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"), 0.5, 0.85, 0.3),
        (("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"), 0.9, 0.6, 0.5),
        (("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"), 1.2, 0.3, 0.6),
        (("Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS"), 1.4, 0.05, 0.8),
        # of a model that was not trained in them, these leave little
        (("IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "Q1_0"), 3.0, -1.0, 2.0),
    )
    for quant in quants
}

# where a language model needs more than its tolerance, as `MOST_COSTS`
MOST_ACTIVATION_COSTS: Mapping[str, float] = {"F16": 0.02, "BF16": 0.1, **dict.fromkeys(LOSSES, 0.25)}
