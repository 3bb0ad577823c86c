"""The encoders of a bundle and PyTorch's side by side, graph by graph."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ..runtime.bundle.manifest import TENSORRT, Bundle
from ..runtime.bundle.precisions import FORMATS, FP16, FP32, INT8, formats_of
from ..runtime.bundle.table import FUSED, MOST_COSTS, STAGES
from ..runtime.encoders.engines import read_sidecar, require_current
from ..runtime.errors import BadBundle
from ..runtime.setup import Setup
from ..runtime.stages import Stages
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .comparison import Row
from .int8.convert import int8_weights
from .int8.numerics import quantise_products
from .int8.smooth import fold, folds_of
from .material import Material
from .model.reference import Reference
from .onnx.costs import Costs, fuse, halve
from .onnx.fp16 import halved_weights
from .onnx.inputs import EncoderInputs

__all__ = ["EncoderComparison", "changed_files"]

LOG = logging.getLogger(__name__)
# what a format costs PyTorch is one rounding of many; a graph's differ, and are as many again. Kernels differ more in
# float32, and an aligner reads what was rounded before it
FACTORS = {
    "vision": {"fp32": 4, "fp16": 3, "int8": 2},
    "points": {"fp32": 4, "fp16": 2, "int8": 2},
    "aligner": {"fp32": 4, "fp16": 3, FUSED: 2, "int8": 2},
}


@dataclass(frozen=True)
class EncoderComparison:
    """Encoders against one checkpoint.

    Attributes:
        checkpoint: where the weights are.
        inventory: names and sizes of the checkpoint.
        reference: PyTorch's side.
        material: scene and clip.
        text: [L, d] float32, embeddings of the user turn.
    """

    checkpoint: Checkpoint
    inventory: Inventory
    reference: Reference
    material: Material
    text: np.ndarray

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """What PyTorch computes at each encoder's stage."""
        material, reference = self.material, self.reference
        vision = reference.vision(material.host.frames(material.selection), len(material.selection))
        points = reference.points(material.voxels)
        aligner = reference.aligner(points, material.rays, vision[:, :, :-1], self.text)
        return {"vision": vision, "points": points, "aligner": aligner}

    def rows(self, setups: Sequence[Setup]) -> Iterator[Row]:
        """Every graph of a precision, each run once, on what the graphs of its provider computed before."""
        computed: dict[tuple[str, ...], np.ndarray] = {}
        checked: set[str] = set()
        for setup in setups:
            new = [name for name in setup.files[:-1] if name not in checked]
            checked |= set(new)
            yield from changed_files(setup.bundle, setup.precision, new)
            with Stages(setup) as stages:
                for stage, values in self._run_encoders(stages, computed):
                    yield self._compare(setup, stage, values)
        yield from check_engines(setups[0].bundle, setups[0].precision)

    def _compare(self, setup: Setup, stage: str, values: np.ndarray) -> Row:
        """One graph's output; where it is further off than usual, the limit is what the format costs PyTorch."""
        formats = formats_of(setup.precision)
        # an aligner reads what was rounded before it
        coarsest = max(formats.values(), key=FORMATS.index) if stage == "aligner" else formats[stage]
        fused = stage == "aligner" and (setup.provider, coarsest) == (TENSORRT, FP32)
        bounds, file = FUSED if fused else coarsest, setup.graphs[stage].file
        tolerance = STAGES[stage].tolerances[bounds]
        row = Row.compare(setup.precision, stage, values, self.expected[stage], tolerance, file)
        if row.passed or not np.isfinite(row.rel_rms):
            return row
        cost = self._costs.of(stage, self._format(bounds, setup))
        return row.following(cost, FACTORS[stage][bounds], least=tolerance, most=MOST_COSTS[bounds])

    @cached_property
    def _costs(self) -> Costs:
        material = self.material
        inputs = EncoderInputs.build(
            material.host, material.selection, material.voxels, material.rays, torch.from_numpy(self.text)
        )
        return Costs(self.checkpoint, self.inventory, inputs)

    def _format(self, bounds: str, setup: Setup) -> Callable[[str, nn.Module], None]:
        """How PyTorch's modules are changed to compute in a format."""
        exact = setup.bundle.float32_attention.get(setup.precision, {})
        if bounds == "fp32":
            return double
        if bounds == FUSED:
            return lambda name, module: fuse(module, exact.get(name, ())) if name == "aligner" else None
        formats = formats_of(setup.precision)

        def lower(name: str, module: nn.Module) -> None:
            graph = setup.bundle.file(setup.graphs[name].file)
            if formats[name] == FP16:
                halve(module, halved_weights(graph), exact.get(name, ()))
            elif formats[name] == INT8:
                held = ir.load(graph).graph
                fold(module, folds_of(module, held))
                quantise_products(module, int8_weights(held))

        return lower

    def _run_encoders(
        self, stages: Stages, computed: dict[tuple[str, ...], np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Outputs of the graphs that have not been run on the same inputs; `computed` remembers all."""
        material, graphs = self.material, stages.setup.graphs
        vision, points = (graphs["vision"].file,), (graphs["points"].file,)
        aligner = (graphs["aligner"].file, *vision, *points)
        if vision not in computed:
            frames = material.host.frames(material.selection)
            computed[vision] = stages.vision(frames, len(material.selection))
            yield "vision", computed[vision]
        if points not in computed:
            computed[points] = np.asarray(stages.points(material.voxels, stages.host.maps(material.voxels)))
            yield "points", computed[points]
        if aligner not in computed:
            rays = material.host.encode_rays(material.rays)
            computed[aligner] = stages.aligner(computed[points], rays, computed[vision][:, :, :-1], self.text)
            yield "aligner", computed[aligner]


def changed_files(bundle: Bundle, part: str, names: list[str]) -> Iterator[Row]:
    """A failed row where a file is not the one that the manifest describes."""
    try:
        bundle.check(names, fresh=True)
    except BadBundle as error:
        LOG.warning("%s", error)
        yield Row(part, "files", False, "SHA-256 as in the manifest")


def check_engines(bundle: Bundle, precision: str) -> Iterator[Row]:
    """Whether engines could be loaded on their devices; they are not run."""
    for target, precisions in bundle.engines.items():
        if precision not in precisions:
            continue
        passed = True
        for entry in precisions[precision].values():
            try:
                require_current(bundle, entry, read_sidecar(bundle, entry), fresh=True)
            except BadBundle as error:
                LOG.warning("%s; run stllm-export tensorrt --target %s again with --force", error, target)
                passed = False
        limit = f"{target}: whole, and built from these graphs"
        yield Row(precision, "engines", passed, limit)


def double(_: str, module: nn.Module) -> None:
    """Compute in float64: what is different then is what float32 costs."""
    module.double()
