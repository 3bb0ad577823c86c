"""The encoders as ONNX graphs: traced once a provider, weights shared in one external file."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from ..runtime.bundle import ENCODERS, PORTABLE, TENSORRT, BundleWriter
from ..runtime.geometry import Geometry
from . import fp16
from .checkpoint import Checkpoint
from .expansion import PROVIDERS, expand
from .geometry import Inventory
from .graphs import AlignerGraph, PointsGraph, VisionGraph, example_inputs, transpose_linears
from .parts import load_part
from .progress import Progress
from .ranges import SampleRun

__all__ = ["OPSET", "PRECISIONS", "add_encoders", "trace", "write_variants"]

OPSET = 18
PRECISIONS = ("fp32", "fp16")
INLINE_BYTES = 1024
MAPS = {PORTABLE: "slabs", TENSORRT: "tables"}
GRAPHS = {"vision": VisionGraph, "points": PointsGraph, "aligner": AlignerGraph}
OUTPUTS = {"vision": "video_tokens", "points": "pcd_features", "aligner": "prefix_tokens"}


def add_encoders(
    writer: BundleWriter, checkpoint: Checkpoint, inventory: Inventory, precision: str, progress: Progress
) -> None:
    """Write the three encoders at one precision into a bundle.

    Raises:
        BadInput: the precision is there already.
    """
    writer.require_absent("encoders", precision)
    (writer.staging / "onnx").mkdir(exist_ok=True)
    sample = (
        SampleRun(checkpoint, inventory, writer.manifest["defaults"]["voxel_size"]) if precision == "fp16" else None
    )
    entry: dict[str, Any] = {}
    files: list[str] = []
    for name in ENCODERS:
        with progress.stage(f"export {name} ({precision})"):
            module = GRAPHS[name](load_part(checkpoint, inventory, name))
            transpose_linears(module)
            safe = None if sample is None else sample.safe_weights(name, module)
            stem = name if precision == "fp32" else f"{name}.{precision}"
            entry[name] = write_variants(writer.staging, stem, name, module, inventory.geometry, safe)
            files += [file for graph in entry[name].values() for file in (graph["file"], graph["weights"])]
    writer.add("encoders", precision, entry, files)


def write_variants(
    root: Path, stem: str, name: str, module: nn.Module, geometry: Geometry, safe: set[str] | None
) -> dict[str, Any]:
    """Trace a module for each provider and write graphs that share one weights file; the manifest's entries.

    `safe` names the weights whose products are FP16; None writes float32 graphs.
    """
    weights = f"onnx/{stem}.data"
    entries: dict[str, Any] = {}
    external: dict[str, ir.ExternalTensor] = {}
    traced: dict[str | None, ir.Model] = {}
    for provider in MAPS if name == "points" else PROVIDERS:
        maps = MAPS[provider] if name == "points" else None
        if maps not in traced:
            traced[maps] = trace(module, *example_inputs(name, geometry, maps), OUTPUTS[name])
        model = traced[maps].clone()
        expand(model, provider, ("Attention", "FeedForward"), safe)
        if safe is not None:
            fp16.convert(model, safe)
        expand(model, provider, ("SlabConvolution", "TableConvolution"))
        external = external or write_weights(model, root / weights)
        share_weights(model, external)
        file = f"onnx/{stem}.onnx" if provider == PORTABLE else f"onnx/{stem}.{provider}.onnx"
        ir.save(model, root / file)
        entries[provider] = {"file": file, "weights": weights, "maps": maps}
    return entries


def trace(module: nn.Module, inputs: Mapping[str, Any], dynamic: Mapping[str, Any], output: str) -> ir.Model:
    """An ONNX graph of a module from example inputs and their dynamic axes."""
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dict(dynamic),
            input_names=list(flat_names(inputs)),
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    model = program.model
    for part in (model.graph, *model.graph):
        part.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    return model


def flat_names(inputs: Mapping[str, Any]) -> Iterator[str]:
    """Names of all tensors; those of a list are numbered."""
    for name, value in inputs.items():
        yield from [f"{name}_{index}" for index in range(len(value))] if isinstance(value, list) else [name]


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
