"""The encoders as ONNX graphs: traced once a provider, weights shared in one external file."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from ...runtime.bundle.geometry import Geometry
from ...runtime.bundle.manifest import ENCODERS, PORTABLE, TENSORRT, Defaults
from ...runtime.bundle.precisions import FP32, INT8, formats_of
from ...runtime.bundle.table import STAGES
from ...runtime.bundle.writer import BundleWriter
from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..int8.recipe import Calibrating, Recipe
from ..int8.record import record_calibration
from ..int8.runs import SetRun
from ..model.parts import load_part
from . import fp16
from .expansion import PROVIDERS, expand
from .graphs import GRAPHS, example_inputs, transpose_linears
from .ranges import SampleRun

__all__ = ["OPSET", "add_encoders", "trace", "trace_variants", "write_variants"]

LOG = logging.getLogger(__name__)
# LayerNormalization is one operator from 17 on; TensorRT 10.3's parser takes 9 to 20
OPSET = 18
# towers in INT8, by the stem of their files
WHOLE = ("vision.int8",)
# smaller ones are shapes and scalars, which differ by provider; weights are shared
INLINE_BYTES = 1024
# of a furnished room
USUAL_VOXELS = 30_000
MAPS = {PORTABLE: "slabs", TENSORRT: "tables"}


def add_encoders(
    writer: BundleWriter,
    checkpoint: Checkpoint,
    inventory: Inventory,
    precisions: Sequence[str],
    progress: Progress,
    calibrating: Calibrating | None = None,
) -> None:
    """Write the three encoders into a bundle, each traced once; raises BadInput where one fails its gate."""
    (writer.staging / "onnx").mkdir(exist_ok=True)
    options = calibrating or Calibrating()
    sample = opened_sample(options, checkpoint, inventory, Defaults(**writer.manifest["defaults"]))
    formats = {precision: formats_of(precision) for precision in precisions}
    exact: dict[str, list[str]] = {}
    written: dict[tuple[str, str], dict[str, Any]] = {}
    recipes: dict[str, Recipe] = {}
    for name in ENCODERS:
        forms = dict.fromkeys(chosen[name] for chosen in formats.values())
        with progress.stage(f"trace {name}"):
            module = GRAPHS[name](load_part(checkpoint, inventory, name))
            transpose_linears(module)
            traced = trace_variants(name, module, inventory.geometry)
        with progress.stage(f"run {name} on the sample"):
            safe = sample.safe_weights(name, module)
            # a float32 tower has no FP16 attention: its number of rows is fixed
            if name == "aligner" or forms.keys() - {FP32}:
                exact[name] = sample.exact_attentions(name, module)
        if INT8 in forms and isinstance(sample, SetRun):
            with progress.stage(f"choose INT8 products of {name}"):
                recipe = Recipe.of(name, module, sample.observed[name], options)
                recipes[name] = sample.mixed(name, module, recipe)
                LOG.info("%s: %s", name, recipes[name].summary())
        for form in forms:
            with progress.stage(f"export {name} ({form})"):
                stem, halved = (name, None) if form == FP32 else (f"{name}.{form}", safe)
                lowered = recipes[name] if form == INT8 else None
                written[name, form] = write_variants(writer.staging, stem, traced, halved, exact.get(name, []), lowered)
    report_exact(exact, inventory.geometry, writer.manifest["defaults"]["frames"])
    for precision, chosen in formats.items():
        entry = {name: written[name, form] for name, form in chosen.items()}
        writer.manifest.setdefault("float32_attention", {})[precision] = exact
        record_calibration(writer, precision, entry, sample, recipes, options)
        graphs = [graph for variants in entry.values() for graph in variants.values()]
        writer.add("encoders", precision, entry, [graph[key] for graph in graphs for key in ("file", "weights")])


def opened_sample(
    options: Calibrating, checkpoint: Checkpoint, inventory: Inventory, defaults: Defaults
) -> SampleRun | SetRun:
    """What ranges are measured on: a calibration set, or the built-in sample."""
    if options.calibration is None:
        return SampleRun(checkpoint, inventory, defaults.voxel_size)
    return SetRun.open(options.calibration, checkpoint, inventory.geometry, defaults)


def report_exact(exact: Mapping[str, list[str]], geometry: Geometry, frames: int) -> None:
    """Say which attention keeps float32 factors for TensorRT, and what that takes."""
    vision, aligner = geometry.vision, geometry.aligner
    rows = {"vision": vision.patches, "aligner": aligner.latents + frames * vision.grid**2}
    heads = {"vision": vision.heads, "aligner": aligner.heads}
    for name, path in ((name, path) for name, paths in exact.items() for path in paths):
        keys = USUAL_VOXELS if path.endswith("cross_attention") else rows[name]
        LOG.warning(
            "%s: %s is too sharp for FP16 factors and keeps float32 in graphs for TensorRT; where that is not fused, "
            "its scores take %.2f GB at %d frames and %d voxels",
            name,
            path,
            4e-9 * heads[name] * rows[name] * keys,
            frames,
            USUAL_VOXELS,
        )


@dataclass(frozen=True)
class Traced:
    """An encoder as it was traced, and the format of the kernel maps that it takes, if it does."""

    model: ir.Model
    maps: str | None


def trace_variants(name: str, module: nn.Module, geometry: Geometry) -> dict[str, Traced]:
    """What each provider's graph is made from; providers that take the same inputs share it."""
    stage = STAGES[name]
    formats = MAPS if name == "points" else dict.fromkeys(PROVIDERS)
    traced = {}
    for maps in dict.fromkeys(formats.values()):
        inputs, dynamic = example_inputs(name, geometry, maps)
        traced[maps] = Traced(trace(module, inputs, dynamic, stage.inputs[maps], stage.output), maps)
    return {provider: traced[maps] for provider, maps in formats.items()}


def write_variants(
    root: Path,
    stem: str,
    traced: Mapping[str, Traced],
    safe: set[str] | None,
    exact: Sequence[str] = (),
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Write an encoder's graphs for all providers, which share one weights file; the manifest's entries.

    `safe` names the weights whose products are FP16; None writes float32 graphs. `exact` are paths of
    attentions whose factors are never FP16. With a `recipe`, products are INT8 in the place of FP16.
    """
    weights = f"onnx/{stem}.data"
    entries: dict[str, Any] = {}
    external: dict[str, ir.ExternalTensor] = {}
    for provider, source in traced.items():
        model = source.model.clone()
        # in this order: each chunk's products get their casts, but a convolution is cast while it is one node, since
        # `convert` does not look into the loops that it becomes
        if recipe is not None:
            recipe.prepare(model)
        # a frame's rows are few: its feed-forward is quantised in one piece
        expand(model, provider, ("Attention", "FeedForward"), safe, exact, whole=recipe is not None and stem in WHOLE)
        if recipe is not None:
            recipe.convert(model, provider)
        elif safe is not None:
            fp16.convert(model, safe)
        expand(model, provider, ("SlabConvolution", "TableConvolution"))
        # the first provider writes them; the others have the same under the same names
        external = external or write_weights(model, root / weights)
        share_weights(model, external)
        file = f"onnx/{stem}.onnx" if provider == PORTABLE else f"onnx/{stem}.{provider}.onnx"
        ir.save(model, root / file)
        entries[provider] = {"file": file, "weights": weights, "maps": source.maps}
    return entries


def trace(
    module: nn.Module, inputs: Mapping[str, Any], dynamic: Mapping[str, Any], names: Sequence[str], output: str
) -> ir.Model:
    """An ONNX graph of a module from example inputs and their dynamic axes; `names` are those of its inputs."""
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dict(dynamic),
            input_names=list(names),
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    model = program.model
    # the exporter notes source lines, with paths of the machine that it ran on
    for part in (model.graph, *model.graph):
        part.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    return model


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a library's logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def write_weights(model: ir.Model, path: Path) -> dict[str, ir.ExternalTensor]:
    """Write all large initialisers to one file, tensor by tensor."""
    named: Any = [value.const_value for value in model.graph.initializers.values() if is_large(value)]
    written = ir.external_data.convert_tensors_to_external(named, path.parent, path.name)
    return {tensor.name: tensor for tensor in written}


def share_weights(model: ir.Model, external: Mapping[str, ir.ExternalTensor]) -> None:
    """Read large initialisers from the shared file; what only this graph has stays in it."""
    for value in model.graph.initializers.values():
        if is_large(value):
            value.const_value = external.get(str(value.name), value.const_value)


def is_large(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
