"""What is planned for: sizes of a model, and bytes of its parts in each precision and quantisation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...export.checkpoint.headers import Headers
from ...runtime.bundle.geometry import Geometry, LlmGeometry
from ...runtime.bundle.manifest import CPU, ENCODERS, Bundle
from ...runtime.bundle.precisions import FORMATS, FP16, FP32, INT8, formats_of
from ...runtime.errors import BadInput

__all__ = ["Subject", "of_bundle", "of_checkpoint"]

# bytes of a weight; in INT8 those of the scales, and of the few weights that stay float32, come on top
BYTES = {FP32: 4.0, FP16: 2.0, INT8: 1.11}
# bits of a value in blocks of libllama's types
BITS = {"F32": 32.0, "F16": 16.0, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5, "Q3_K": 3.4375}
# types of most matrices, and of those that a mixture keeps finer, with which layers it does that in
MIXTURES = {
    "F16": ("F16", "F16"),
    "Q8_0": ("Q8_0", "Q8_0"),
    "Q6_K": ("Q6_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K"),
}
# tokenizer and metadata, a token
METADATA_BYTES = 22


@dataclass(frozen=True)
class Subject:
    """A model as far as a plan needs it.

    Attributes:
        name: of the bundle or checkpoint.
        geometry: its sizes.
        encoders: bytes of weights by precision and encoder.
        quants: bytes of the language model's file by quantisation.
        files: those files, where there are any.
        bundle: where they lie.
    """

    name: str
    geometry: Geometry
    encoders: Mapping[str, Mapping[str, int]]
    quants: Mapping[str, int]
    files: Mapping[str, Path] = field(default_factory=dict)
    bundle: Path | None = None


def of_bundle(path: Path) -> Subject:
    """A bundle, in the precisions and quantisations that it holds; raises BadBundle where it is none."""
    bundle = Bundle(path)
    encoders = {
        precision: {name: bundle.size(bundle.graph(name, precision, CPU).weights) for name in ENCODERS}
        for precision in bundle.precisions
    }
    quants = {quant: bundle.size(bundle.llm(quant).file) for quant in bundle.quants}
    if not encoders or not quants:
        missing = "encoders" if not encoders else "language model"
        raise BadInput(f"{path}: the bundle has no {missing}; add it with stllm-export, or plan with --ckpt")
    files = {quant: bundle.require_file(bundle.llm(quant).file) for quant in quants}
    return Subject(path.name, bundle.geometry, encoders, quants, files, path)


def of_checkpoint(path: Path) -> Subject:
    """A checkpoint, in all precisions and the usual quantisations, from its headers; raises BadInput as they do."""
    headers = Headers(path)
    geometry = headers.geometry()
    parameters = headers.parameters(geometry)
    encoders = {
        precision: {name: round(count * BYTES[formats_of(precision)[name]]) for name, count in parameters.items()}
        for precision in FORMATS
    }
    return Subject(path.name, geometry, encoders, {quant: gguf_bytes(geometry.llm, quant) for quant in MIXTURES})


def gguf_bytes(llm: LlmGeometry, quant: str) -> int:
    """Bytes of the language model's file.

    Of a mixture, values and the feed-forward part's last matrix are finer in the first and last eighth of the layers,
    and in every third between; the output matrix is Q6_K. The embedding matrix, which the aligner reads, stays as it is
    beside Q8_0, and is Q8_0 beside lower types.
    """
    most, fine = MIXTURES[quant]
    kv = llm.kv_heads * llm.head_width
    eighth = llm.layers // 8
    finer = [layer < eighth or layer >= 7 * llm.layers // 8 or (layer - eighth) % 3 == 2 for layer in range(llm.layers)]
    every = llm.layers * (2 * llm.width**2 + llm.width * kv + 2 * llm.width * llm.ffn)
    mixed = llm.width * kv + llm.ffn * llm.width
    bits = every * BITS[most] + sum(mixed * BITS[fine if finest else most] for finest in finer)
    table = llm.vocabulary * llm.width
    bits += table * (BITS["Q8_0"] if quant not in ("Q8_0", "F16") else BITS["F16"])
    if not llm.tied:
        bits += table * (BITS["Q6_K"] if quant.startswith("Q") and quant != "Q8_0" else BITS[most])
    return int(bits / 8) + METADATA_BYTES * llm.vocabulary
