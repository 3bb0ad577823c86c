"""The encoders of a bundle in all its precisions, side by side: time, memory, size, and error against float32.

Forms are run in turn and the median of the paired ratios counts; memory growth is that of a process of its own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...export.material import Material
from ...export.views import opened
from ...runtime.bundle.manifest import CPU, ENCODERS, Bundle
from ...runtime.bundle.precisions import FP32, INT8, canonical, formats_of
from ...runtime.bundle.table import STAGES
from ...runtime.encoders.cpu import has_int8_dot_product
from ...runtime.encoders.local import LocalEncoder
from ...runtime.errors import BadInput, require_at_least
from ...runtime.options import Recording
from ..encoders import alternate
from .forms import write_form
from .growth import growth

__all__ = ["Measured", "measure"]

TEXT_TOKENS = 24
# a ratio of times within it is noise on a small machine
NOISE = 0.03


@dataclass(frozen=True)
class Measured:
    """One encoder in one precision, against float32.

    Attributes:
        encoder: vision, points or aligner.
        precision: as the bundle names it, or a form of INT8 products.
        ratio: median of the paired ratios of time.
        ms: median time.
        size_mb: of graph and weights.
        growth_mb: anonymous memory that loading and running take.
        error: rel-rms of the output; 0 for float32 itself.
        cosine: of the angle between the outputs.
        words: what to conclude.
    """

    encoder: str
    precision: str
    ratio: float
    ms: float
    size_mb: float
    growth_mb: float
    error: float
    cosine: float
    words: str

    def __str__(self) -> str:
        numbers = f"{self.ms:>9.1f} ms  {self.ratio:>5.2f} x  {self.size_mb:>8.1f} MB  growth {self.growth_mb:>7.0f} MB"
        return f"{self.encoder:<8} {self.precision:<8} {numbers}  rel-rms {self.error:.1e}  {self.words}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def measure(
    path: Path,
    precisions: Sequence[str],
    recording: Recording,
    *,
    runs: int,
    threads: int | None,
    only: Sequence[str] = (),
    forms: Sequence[str] = (),
) -> Iterator[Measured]:
    """Each encoder in each precision on the CPU, on one scene and clip; a graph that precisions share once.

    Args:
        path: the bundle.
        precisions: beside fp32; by default all that the bundle holds.
        recording: scene and clip; by default the built-in sample.
        runs: pairs of runs.
        threads: by default one for each core.
        only: encoders; by default all.
        forms: other forms of INT8 products, beside those of encoders that are INT8.

    Raises:
        BadInput: a number is out of range, or there is nothing to compare.
        BadBundle: the bundle lacks a precision.
    """
    require_at_least({"--runs": (runs, 1), "--threads": (threads, 1)})
    bundle = Bundle(path)
    asked = [canonical(name) for name in precisions] or bundle.precisions
    if FP32 not in bundle.precisions or not set(asked) - {FP32}:
        held = ", ".join(bundle.precisions)
        raise BadInput(f"{path}: holds encoders {held}; a comparison takes fp32 and at least one other")
    bench = Bench(bundle, threads or len(os.sched_getaffinity(0)), runs, tuple(forms))
    with opened(recording, bundle.defaults.voxel_size) as (scene, clip):
        inputs = Inputs(Material.of(bundle, scene, clip))
        for encoder in ENCODERS:
            if not only or encoder in only:
                yield from bench.encoder(encoder, [name for name in asked if name != FP32], inputs)
            elif encoder != ENCODERS[-1]:
                bench.exact(encoder, inputs)


class Inputs:
    """What the encoders take; the aligner reads what float32 made of the rest."""

    def __init__(self, material: Material):
        self.material = material
        self.outputs: dict[str, np.ndarray] = {}

    def of(self, encoder: str) -> dict[str, np.ndarray]:
        """Arrays by the names of a graph's inputs; one frame for the tower, which encodes one at a time."""
        material = self.material
        if encoder == "vision":
            return {"frames": next(iter(material.host.frames(material.selection)))[None]}
        if encoder == "points":
            return {"voxel_feats": material.voxels.feats, **material.host.maps(material.voxels).inputs()}
        rays = material.host.encode_rays(material.rays)
        frame = self.outputs["vision"][:, :, :-1].reshape(-1, self.outputs["vision"].shape[-1])
        # one frame's features for each of the clip's frames: sizes decide the time
        pooled = np.tile(frame, (len(material.selection), 1))
        text = np.random.default_rng(0).normal(0, 0.02, (TEXT_TOKENS, frame.shape[1])).astype(np.float32)
        arrays = (self.outputs["points"], rays.points, pooled, rays.frames, text)
        return dict(zip(STAGES["aligner"].inputs[None], arrays, strict=True))


@dataclass(frozen=True)
class Form:
    """A graph to measure.

    Attributes:
        name: of its precision, or of the form of its products.
        number: format of most of its products.
        file: the graph.
        bytes: of it and its weights.
    """

    name: str
    number: str
    file: Path
    bytes: int


@dataclass(frozen=True)
class Bench:
    """Runs the graphs of one bundle."""

    bundle: Bundle
    threads: int
    runs: int
    forms: tuple[str, ...] = ()

    def exact(self, name: str, inputs: Inputs) -> None:
        """Compute in float32 what the aligner reads."""
        with LocalEncoder(self._form(name, FP32).file, self.threads) as plain:
            inputs.outputs[name] = plain(**inputs.of(name))

    def encoder(self, name: str, precisions: Sequence[str], inputs: Inputs) -> Iterator[Measured]:
        """One encoder, first in float32."""
        arrays = inputs.of(name)
        exact = self._form(name, FP32)
        with LocalEncoder(exact.file, self.threads) as plain, TemporaryDirectory() as folder:
            reference = inputs.outputs[name] = plain(**arrays)
            first = True
            for form in self._beside(name, precisions, exact, Path(folder)):
                with LocalEncoder(form.file, self.threads) as lowered:
                    pair = alternate(partial(lowered, **arrays), partial(plain, **arrays), self.runs)
                    output = lowered(**arrays)
                if first:
                    yield self._row(name, exact, 1.0, float(np.median(pair.other)), arrays, reference, reference)
                    first = False
                ratio = float(np.median(np.array(pair.ours) / np.array(pair.other)))
                yield self._row(name, form, ratio, float(np.median(pair.ours)), arrays, output, reference)

    def _beside(self, name: str, precisions: Sequence[str], exact: Form, folder: Path) -> Iterator[Form]:
        """What is compared with float32: the bundle's graphs once each, then other forms of those in INT8."""
        found = {form.file: form for form in (self._form(name, precision) for precision in precisions)}
        yield from (form for file, form in found.items() if file != exact.file)
        for form in found.values():
            for other in self.forms if form.number == INT8 else ():
                file, size = write_form(other, form.file, exact.file, self._thresholds(name, form.name), folder)
                yield Form(other, INT8, file, size)

    def _form(self, name: str, precision: str) -> Form:
        graph = self.bundle.graph(name, precision, CPU)
        size = self.bundle.size(graph.file) + self.bundle.size(graph.weights)
        return Form(precision, formats_of(precision)[name], self.bundle.require_file(graph.file), size)

    def _thresholds(self, name: str, precision: str) -> dict[str, float]:
        """Ranges that the export set, by weight."""
        products = self.bundle.manifest["calibration"][precision]["products"][name]
        return {choice["weight"]: choice["threshold"] for choice in products}

    def _row(
        self,
        name: str,
        form: Form,
        ratio: float,
        seconds: float,
        arrays: Mapping[str, np.ndarray],
        output: np.ndarray,
        reference: np.ndarray,
    ) -> Measured:
        grown = growth(form.file, dict(arrays), self.threads)
        a, b = (np.asarray(values, np.float64).ravel() for values in (output, reference))
        error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        words = conclude(form.number, ratio)
        return Measured(name, form.name, ratio, 1e3 * seconds, form.bytes / 1e6, grown, error, cosine, words)


def conclude(form: str, ratio: float) -> str:
    """In words, whether a format is worth its error here."""
    if form == FP32:
        return ""
    if ratio > 1 + NOISE:
        why = "this CPU has no products of halves" if form != INT8 else "its products are too small here"
        if form == INT8 and not has_int8_dot_product():
            why = "this CPU has no dot product of bytes"
        return f"slower here than fp32: {why}"
    return "no faster here than fp32" if ratio > 1 - NOISE else f"{1 / ratio:.1f} times as fast here as fp32"
