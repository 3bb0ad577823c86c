"""The gate at the end of the way: what the language model makes of encoders, against what it makes of float32 ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..export.comparison import divergence
from ..export.int8.calibration import CalibrationSet
from ..export.int8.gates import END, gate
from ..runtime.bundle.manifest import Bundle
from ..runtime.bundle.precisions import FP32, canonical
from ..runtime.bundle.writer import BundleWriter
from ..runtime.errors import BadInput
from ..runtime.host.maps import KernelMaps
from ..runtime.host.pixels import normalised
from ..runtime.host.rays import encode_directions
from ..runtime.host.voxels import Voxels
from ..runtime.llm.prompt import build_prompt
from ..runtime.setup import Setup
from ..runtime.stages import EncodedRays, Stages

__all__ = ["End", "compare_logits", "record"]


@dataclass(frozen=True)
class End:
    """What a precision changes at the end.

    Attributes:
        precision: as the bundle names it.
        samples: held-out samples of a calibration set.
        divergence: mean Kullback-Leibler divergence of the next token's distribution from that with fp32, nats.
        questions: that were answered with both; 0 where none were.
        agreement: share of identical answers; None where no question was answered.
    """

    precision: str
    samples: int
    divergence: float
    questions: int = 0
    agreement: float | None = None

    @property
    def passed(self) -> bool:
        """Whether both limits are kept."""
        limits = gate(END)
        answers = self.agreement is None or self.agreement >= limits["agreement"]
        return self.divergence <= limits["divergence"] and answers

    def __str__(self) -> str:
        limits = gate(END)
        parts = [f"KL {self.divergence:.1e} over {self.samples} samples (at most {limits['divergence']:g})"]
        if self.agreement is not None:
            least = f"at least {limits['agreement']:.0%}"
            parts.append(f"{self.agreement:.2%} of {self.questions} answers identical ({least})")
        return f"{'✓' if self.passed else '✗'} {self.precision}  {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The fields, and whether it passed."""
        return asdict(self) | {"passed": self.passed}


def compare_logits(path: Path, precision: str, calibration: Path, quant: str | None) -> End:
    """The next token's distribution after each held-out sample, with encoders of a precision and with fp32.

    Raises:
        BadInput: the set is of another checkpoint, or there is nothing to compare.
        BadBundle: the bundle lacks a part.
    """
    bundle, name, held = Bundle(path), canonical(precision), CalibrationSet(calibration)
    if name == FP32 or FP32 not in bundle.precisions or not bundle.quants:
        raise BadInput(f"{path}: a comparison at the end takes fp32, another precision and a language model")
    if not bundle.is_of(held.description.checkpoint):
        raise BadInput(f"--calibration {calibration}: was collected for another checkpoint than {path} was made from")
    held.require(held.description.checkpoint, {"voxel_size": bundle.defaults.voxel_size})
    language = quant or bundle.quants[0]
    exact, ours = (logits(bundle, each, language, held) for each in (FP32, name))
    return End(name, len(exact), float(np.mean([divergence(a, b) for a, b in zip(ours, exact, strict=True)])))


def logits(bundle: Bundle, precision: str, quant: str, held: CalibrationSet) -> list[np.ndarray]:
    """[vocabulary] after each held-out sample."""
    found = []
    with Stages(Setup(bundle, precision, quant, resident=True, repack=False)) as stages:
        for place in held.held_out:
            sample, described = held.sample(place), held.description.samples[place]
            frames = normalised(np.ascontiguousarray(sample.frames.transpose(0, 3, 1, 2)))
            video = stages.vision(iter(frames), len(frames))
            voxels = Voxels(sample.coords, sample.feats, np.zeros(3), bundle.defaults.voxel_size)
            points = stages.points(voxels, KernelMaps.build(sample.coords, stages.setup.map_format))
            directions = encode_directions(sample.voxel_rays), encode_directions(sample.frame_rays.reshape(-1, 3))
            text = stages.embed(sample.ids)
            prefix = stages.aligner(points, EncodedRays(*directions), video[:, :, :-1], text)
            timing = (described.timing[0], described.timing[1:]) if described.timing else None
            prompt = build_prompt(described.question, stages.speaker.vocabulary.tokenize, timing=timing)
            rows = video.reshape(-1, video.shape[-1])
            positions = len(prompt) + len(prefix) + len(rows)
            with stages.speaker.load(positions) as model:
                found.append(stages.prefill(model, prompt.segments(prefix, rows)).copy())
    return found


def record(path: Path, end: End) -> None:
    """Write the result into the manifest; what failed is no longer verified, and `stllm-run` says so."""
    with BundleWriter.open(path) as writer:
        kept: dict[str, Any] = writer.manifest.setdefault("calibration", {}).setdefault(end.precision, {})
        judged: list[Mapping[str, Any]] = kept.get("gates", [])
        kept["end"] = end.to_json()
        kept["verified"] = end.passed and all(gate["passed"] for gate in judged)
