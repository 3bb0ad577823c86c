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
from ...runtime.bundle.manifest import ENCODERS, PORTABLE, TENSORRT
from ...runtime.bundle.table import STAGES
from ...runtime.bundle.writer import BundleWriter
from ...runtime.console import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..model.parts import load_part
from . import fp16
from .expansion import PROVIDERS, expand
from .graphs import GRAPHS, example_inputs, transpose_linears
from .ranges import SampleRun

__all__ = ["OPSET", "PRECISIONS", "add_encoders", "trace", "trace_variants", "write_variants"]

LOG = logging.getLogger(__name__)
# LayerNormalization is one operator from 17 on; TensorRT 10.3's parser takes 9 to 20
OPSET = 18
PRECISIONS = ("fp32", "fp16")
# smaller ones are shapes and scalars, which differ by provider; weights are shared
INLINE_BYTES = 1024
# of a furnished room
USUAL_VOXELS = 30_000
MAPS = {PORTABLE: "slabs", TENSORRT: "tables"}


def add_encoders(
    writer: BundleWriter, checkpoint: Checkpoint, inventory: Inventory, precisions: Sequence[str], progress: Progress
) -> None:
    """Write the three encoders into a bundle, each traced once for all precisions."""
    (writer.staging / "onnx").mkdir(exist_ok=True)
    sample = SampleRun(checkpoint, inventory, writer.manifest["defaults"]["voxel_size"])
    exact: dict[str, list[str]] = {}
    entries: dict[str, dict[str, Any]] = {precision: {} for precision in precisions}
    for name in ENCODERS:
        with progress.stage(f"trace {name}"):
            module = GRAPHS[name](load_part(checkpoint, inventory, name))
            transpose_linears(module)
            traced = trace_variants(name, module, inventory.geometry)
        with progress.stage(f"run {name} on the sample"):
            safe = sample.safe_weights(name, module)
            # a float32 tower has no FP16 attention: its number of rows is fixed
            if name == "aligner" or "fp16" in precisions:
                exact[name] = sample.exact_attentions(name, module)
        for precision, entry in entries.items():
            with progress.stage(f"export {name} ({precision})"):
                stem = name if precision == "fp32" else f"{name}.{precision}"
                entry[name] = write_variants(
                    writer.staging, stem, traced, None if precision == "fp32" else safe, exact.get(name, [])
                )
    report_exact(exact, inventory.geometry, writer.manifest["defaults"]["frames"])
    for precision, entry in entries.items():
        graphs = [graph for variants in entry.values() for graph in variants.values()]
        writer.manifest.setdefault("float32_attention", {})[precision] = exact
        writer.add("encoders", precision, entry, [graph[key] for graph in graphs for key in ("file", "weights")])


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
    root: Path, stem: str, traced: Mapping[str, Traced], safe: set[str] | None, exact: Sequence[str] = ()
) -> dict[str, Any]:
    """Write an encoder's graphs for all providers, which share one weights file; the manifest's entries.

    `safe` names the weights whose products are FP16; None writes float32 graphs. `exact` are paths of
    attentions whose factors are never FP16.
    """
    weights = f"onnx/{stem}.data"
    entries: dict[str, Any] = {}
    external: dict[str, ir.ExternalTensor] = {}
    for provider, source in traced.items():
        model = source.model.clone()
        # in this order: each chunk's products get their casts, but a convolution is cast while it is one node, since
        # `convert` does not look into the loops that it becomes
        expand(model, provider, ("Attention", "FeedForward"), safe, exact)
        if safe is not None:
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
    for value in model.graph.initializers.values():
        if is_large(value):
            value.const_value = external[str(value.name)]


def is_large(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
