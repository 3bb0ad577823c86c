"""A calibration set through the encoders as they are traced, in float32: what is seen on the way, what comes out."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.bundle.geometry import Geometry
from ...runtime.bundle.manifest import ENCODERS, Defaults
from ...runtime.encoders.local import LocalEncoder
from ..checkpoint.checkpoint import Checkpoint
from ..model.rounding import half
from ..onnx import fp16
from ..onnx.costs import exact_attentions, run
from .calibration import CalibrationSet, preprocessing
from .gates import Judgement, judge
from .mix import Mix
from .observed import Observation, observe
from .recipe import Recipe

__all__ = ["SetRun"]

LOG = logging.getLogger(__name__)
# a set holds many scenes and clips, so others are less likely to have larger values than with the one built-in sample
MARGIN = 2.0
# FP16 changes a product by about 3e-4: more means that its factors are too small or too far apart
MOST_ROUNDING = 2e-3
# a mix is chosen on so many samples: each takes a run a group of products
MIX_SAMPLES = 2


@dataclass
class SetRun:
    """Feeds the encoders, in the order vision, points, aligner, with a calibration set.

    Attributes:
        calibration: the set.
        checkpoint: whose embeddings the aligner reads.
        observed: what was seen at each product, by encoder and weight.
        threads: of ONNX Runtime.
        islands: weights whose products stay float32 in FP16, and why, by encoder.
    """

    calibration: CalibrationSet
    checkpoint: Checkpoint
    threads: int = 2
    observed: dict[str, dict[str, Observation]] = field(default_factory=dict)
    islands: dict[str, dict[str, str]] = field(default_factory=dict)
    _outputs: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    # of encoders in INT8 on CPUs and with ranges that were set before: what the mix of an aligner reads
    _lowered: tuple[dict[str, dict[int, Tensor]], ...] = field(default_factory=lambda: ({}, {}))
    # of graphs, by their files: the outputs that the aligner of the same precision reads
    _computed: dict[tuple[str, ...], dict[int, Tensor]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, checkpoint: Checkpoint, geometry: Geometry, defaults: Defaults) -> "SetRun":
        """A set that belongs to a checkpoint and to the options of a bundle; raises BadInput where it does not."""
        calibration = CalibrationSet(path)
        calibration.require(checkpoint.digest(), preprocessing(geometry.vision, defaults))
        return cls(calibration, checkpoint, len(os.sched_getaffinity(0)))

    def safe_weights(self, name: str, module: nn.Module) -> set[str]:
        """Weights of an encoder's graph whose products can be FP16; what goes in and out is kept."""
        outputs = self._outputs[name] = {}
        with torch.inference_mode():
            with fp16.record_ranges(module) as ranges, observe(module) as seen:
                for place in self.calibration.fitted:
                    outputs[place] = run(module, self._inputs(name, place, self._outputs))
            for place in self.calibration.held_out:
                outputs[place] = run(module, self._inputs(name, place, self._outputs))
        self.observed[name] = seen
        kept = rounded_too_far(module, seen) | fp16.islands(module, ranges, MARGIN)
        self.islands[name] = {weight: reason for weight, reason in kept.items() if is_product(module, weight)}
        for weight, reason in self.islands[name].items():
            LOG.info("FP16: %s: %s stays float32: %s", name, weight, reason)
        return ranges.keys() - kept.keys()

    def mixed(self, name: str, module: nn.Module, recipe: Recipe) -> Recipe:
        """A recipe with what has to stay float32 for the whole encoder; after those of the encoders before it."""
        places = self.calibration.fitted[:MIX_SAMPLES]
        for static in (False, True):
            lowered = self._lowered[static]
            inputs = {place: self._inputs(name, place, self._outputs | lowered) for place in places}
            mix = Mix(module, recipe, static=static)
            recipe = mix.within_gate([(inputs[place], self._outputs[name][place]) for place in places])
            if name != ENCODERS[-1]:
                mix = Mix(module, recipe, static=static)
                lowered[name] = {place: mix.compute(inputs[place]) for place in places}
        return recipe

    def exact_attentions(self, name: str, module: nn.Module) -> list[str]:
        """Attentions of an encoder's graph whose factors stay float32; after `safe_weights` of those before it."""
        return exact_attentions(module, self._inputs(name, self.calibration.fitted[0], self._outputs))

    def judge(
        self, form: str, name: str, graphs: Mapping[str, Path], maps: str | None = None, *, literal: bool = False
    ) -> Judgement:
        """Hold a graph's outputs on the held-out samples against those of float32.

        Args:
            form: fp16 or int8.
            name: the encoder.
            graphs: files of this encoder and of those before it, which an aligner's inputs come from; `compute` has
                run these.
            maps: format of the kernel maps that the graph takes.
            literal: keep every rounding of the graph.
        """
        computed = self.compute(name, graphs, maps, literal=literal)
        pairs = ((values.numpy(), self._outputs[name][place].numpy()) for place, values in computed.items())
        return judge(form, name, graphs[name].name, pairs)

    def compute(
        self, name: str, graphs: Mapping[str, Path], maps: str | None = None, *, literal: bool = False
    ) -> dict[int, Tensor]:
        """A graph's outputs on the held-out samples, computed once; arguments as those of `judge`."""
        key = tuple(str(graphs[each]) for each in (("vision", "points", name) if name == "aligner" else (name,)))
        if key not in self._computed:
            before = {each: self._computed[str(graphs[each]),] for each in ("vision", "points")} if key[1:] else {}
            with LocalEncoder(graphs[name], self.threads, literal) as encode:
                self._computed[key] = {
                    place: torch.from_numpy(encode_all(encode, self._inputs(name, place, before, maps)))
                    for place in self.calibration.held_out
                }
        return self._computed[key]

    def _inputs(
        self, name: str, place: int, outputs: Mapping[str, Mapping[int, Tensor]], maps: str | None = None
    ) -> dict[str, Any]:
        inputs = self.calibration.inputs(place, self.checkpoint, maps or "slabs")
        return inputs.of(name, {each: found[place] for each, found in outputs.items() if place in found})


def rounded_too_far(module: nn.Module, observed: Mapping[str, Observation]) -> dict[str, str]:
    """Products that FP16's rounding of their factors and results changes more than usual, and by how much."""
    parameters = dict(module.named_parameters())
    found = {}
    for name, seen in observed.items():
        if not seen.kept:
            continue
        exact = seen.rows @ parameters[name]
        ours = half(half(seen.rows) @ half(parameters[name]))
        error = float(torch.linalg.vector_norm(ours - exact) / torch.linalg.vector_norm(exact).clamp_min(1e-30))
        if not error <= MOST_ROUNDING:
            found[name] = f"FP16 changes it by {error:.1e}, more than {MOST_ROUNDING:.0e}"
    return found


def is_product(module: nn.Module, name: str) -> bool:
    """Whether a weight is a factor of a product, and not of a norm."""
    return module.get_parameter(name).ndim > 1


def encode_all(encode: LocalEncoder, inputs: Mapping[str, Any]) -> np.ndarray:
    """A graph's output; frames one at a time, as they are encoded on a device."""
    arrays = {
        name: value.numpy()
        for name, value in ({**inputs, **inputs["maps"]} if "maps" in inputs else inputs).items()
        if isinstance(value, Tensor)
    }
    if "frames" in arrays:
        return np.concatenate([encode(frames=frame[None]) for frame in arrays["frames"]])
    return np.asarray(encode(**arrays))
