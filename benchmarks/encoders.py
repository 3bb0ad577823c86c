"""The encoders at the released model's size, with random weights: time and arithmetic against plain forms, and memory.

Two forms are run alternately in one process, and the median of the paired ratios counts: a single median wanders by a
third on a small machine. Memory growth is the peak of anonymous memory during a run, in a process of its own, less what
there was before the graph was loaded.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from ..export.checkpoint.geometry import PREFIXES, build
from ..export.comparison import relative
from ..export.model.aligner import encode_all
from ..export.model.points import MapTensors, PointEncoder
from ..export.onnx.encoders import trace, trace_variants, write_variants
from ..export.onnx.graphs import AlignerGraph, VisionGraph, transpose_linears
from ..export.onnx.sparse import Convolution, PointsGraph, fold, with_zero_row
from ..runtime.bundle.manifest import CPU, PORTABLE
from ..runtime.encoders.local import LocalEncoder
from ..runtime.errors import require_at_least
from ..runtime.host.maps import KernelMaps
from ..runtime.host.rays import encode_directions
from .checkpoints import FULL, distribution
from .precisions.growth import growth
from .world.rooms import room

__all__ = [
    "Comparison",
    "compare",
    "compare_aligner",
    "compare_maps",
    "compare_points",
    "compare_vision",
    "times_in_turn",
]

THREADS = 2
TEXT_TOKENS = 40
SAMPLING_SECONDS = 0.002


@dataclass(frozen=True)
class Comparison:
    """What one form takes against another.

    Attributes:
        what: the two forms.
        ratio: median of the paired ratios of time, ours over the other's.
        ours_ms: median time of ours.
        other_ms: median time of the other.
        runs: pairs.
        error: relative root mean square difference of the results; None where they are not comparable.
        flops: ours over the other's, counted in the graphs; None where they were not counted.
        growth_mb: anonymous memory that ours takes; None where it was not measured.
    """

    what: str
    ratio: float
    ours_ms: float
    other_ms: float
    runs: int
    error: float | None = None
    flops: float | None = None
    growth_mb: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.what}: {self.ratio:.3f} x the time ({self.ours_ms:.0f} ms, {self.other_ms:.0f} ms)"]
        parts += [f"{self.flops:.4f} x the FLOPs"] if self.flops is not None else []
        parts += [f"growth {self.growth_mb:.0f} MB"] if self.growth_mb is not None else []
        parts += [f"rel-rms {self.error:.1e}"] if self.error is not None else []
        return ", ".join(parts)

    def to_json(self) -> str:
        """The fields as one line of JSON."""
        return json.dumps(asdict(self))


def compare(stage: str, *, voxels: int | None = None, frames: int | None = None, runs: int = 7) -> Comparison:
    """Compare an encoder with its plain form.

    Args:
        stage: points, maps, vision or aligner.
        voxels: of the room; by default as many as the stage is measured with.
        frames: by default 32 for the aligner, one for vision.
        runs: pairs of runs.

    Raises:
        BadInput: a number is out of range.
    """
    require_at_least({"--voxels": (voxels, 1), "--frames": (frames, 1), "--runs": (runs, 1)})
    if stage == "points":
        return compare_points(voxels or 39_000, runs)
    if stage == "maps":
        return compare_maps(voxels or 60_000, runs)
    if stage == "vision":
        return compare_vision(frames or 1, runs)
    return compare_aligner(frames or 32, voxels or 30_000, runs)


def compare_points(voxels: int, runs: int) -> Comparison:
    """The point encoder over slabs against one wide gather a layer, both on ONNX Runtime."""
    coords = room(voxels)
    feats = np.random.default_rng(1).uniform(-1, 1, (voxels, 3)).astype(np.float32)
    inputs = {"voxel_feats": feats, **KernelMaps.build(coords).inputs()}
    with tempfile.TemporaryDirectory() as folder:
        graph = write_graph("points", PointsGraph(random_part("points")), Path(folder))
        wide_graph = write_wide_points(Path(folder))
        with LocalEncoder(graph, THREADS) as ours, LocalEncoder(wide_graph, THREADS) as wide:
            tables = wide_inputs(coords)
            pair = alternate(lambda: ours(**inputs), lambda: wide(voxel_feats=feats, **tables), runs)
        return pair.named(f"points, {voxels} voxels, against one wide gather a layer", growth_mb=growth(graph, inputs))


def compare_maps(voxels: int, runs: int) -> Comparison:
    """Building the kernel maps against running the wide-gather graph on the same scene."""
    coords = room(voxels)
    feats = np.zeros((voxels, 3), np.float32)
    with tempfile.TemporaryDirectory() as folder, LocalEncoder(write_wide_points(Path(folder)), THREADS) as wide:
        tables = wide_inputs(coords)
        pair = alternate(lambda: KernelMaps.build(coords), lambda: wide(voxel_feats=feats, **tables), runs)
    return pair.named(f"kernel maps, {voxels} voxels, against the wide-gather graph")


def compare_vision(frames: int, runs: int) -> Comparison:
    """Frames encoded once against the authors' flow, tower and projector twice, in eager PyTorch."""
    plain = random_part("vision")
    images = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (frames, 3, 384, 384)).astype(np.float32))

    def authors() -> Tensor:
        with torch.inference_mode():
            plain(images)
            return plain.video_tokens(plain(images))

    flops = count_flops(VisionGraph(random_part("vision", "meta")), torch.empty(1, 3, 384, 384, device="meta"))
    twice = 2 * count_flops(random_part("vision", "meta"), torch.empty(1, 3, 384, 384, device="meta"))
    with tempfile.TemporaryDirectory() as folder:
        graph = write_graph("vision", VisionGraph(plain), Path(folder), CPU)
        plain = random_part("vision")
        batches = [images[index : index + 1].numpy() for index in range(frames)]
        with LocalEncoder(graph, THREADS) as encode:
            pair = alternate(lambda: np.concatenate([encode(frames=batch) for batch in batches]), authors, runs)
        grown = growth(graph, {"frames": batches[0]})
    return pair.named(
        f"vision, {frames} frames, against tower and projector twice", flops=flops / twice, growth_mb=grown
    )


def compare_aligner(frames: int, voxels: int, runs: int) -> Comparison:
    """The aligner's graph against the plain form: all rows in all layers, 765-wide rays."""
    plain = random_part("aligner")
    arrays = aligner_arrays(frames, voxels)
    rays = {name: encode_directions(arrays.pop(f"{name}_dirs")) for name in ("pcd_rays", "img_rays")}
    directions = aligner_arrays(frames, voxels)
    full = [encode_all(torch.from_numpy(directions[f"{name}_dirs"])) for name in ("pcd_rays", "img_rays")]
    points, pooled, text = (
        torch.from_numpy(arrays[name]) for name in ("pcd_features", "pooled_features", "text_embeds")
    )

    def authors() -> Tensor:
        with torch.inference_mode():
            return plain(points, full[0], pooled, full[1], text)

    meta = [tensor.to("meta") for tensor in (points, full[0], pooled, full[1], text)]
    live = [torch.empty(rays[name].shape, device="meta") for name in rays]
    flops = count_flops(AlignerGraph(random_part("aligner", "meta")), meta[0], live[0], meta[2], live[1], meta[4])
    plain_flops = count_flops(random_part("aligner", "meta"), *meta)
    inputs = {**arrays, **rays}
    with tempfile.TemporaryDirectory() as folder:
        graph = write_graph("aligner", AlignerGraph(plain), Path(folder), CPU)
        plain = random_part("aligner")
        with LocalEncoder(graph, THREADS) as encode:
            pair = alternate(lambda: encode(**inputs), authors, runs)
        grown = growth(graph, inputs)
    what = f"aligner, {frames} frames x {voxels} voxels, against the plain form in PyTorch"
    return pair.named(what, flops=flops / plain_flops, growth_mb=grown)


@dataclass(frozen=True)
class Pair:
    """Times of two functions run alternately, and how their results differ."""

    ours: list[float]
    other: list[float]
    error: float | None

    def named(self, what: str, **more: Any) -> Comparison:
        ratios = np.array(self.ours) / np.array(self.other)
        return Comparison(
            what=what,
            ratio=float(np.median(ratios)),
            ours_ms=1e3 * float(np.median(self.ours)),
            other_ms=1e3 * float(np.median(self.other)),
            runs=len(ratios),
            error=self.error,
            **more,
        )


def alternate(ours: Callable[[], Any], other: Callable[[], Any], runs: int) -> Pair:
    """Run both alternately, after a run of each that does not count."""
    first, second = ours(), other()
    comparable = isinstance(first, np.ndarray) and first.size == np.asarray(second).size
    error = relative(first, np.asarray(second)) if comparable else None
    # the timed runs should not pay for their memory
    del first, second
    return Pair(*times_in_turn(ours, other, runs), error)


def times_in_turn(ours: Callable[[], Any], other: Callable[[], Any], runs: int) -> tuple[list[float], list[float]]:
    """Seconds of so many runs of both, first one and then the other before."""
    times: tuple[list[float], list[float]] = ([], [])
    both = list(zip((ours, other), times, strict=True))
    for place in range(runs):
        for function, spent in both if place % 2 else both[::-1]:
            start = time.perf_counter()
            function()
            spent.append(time.perf_counter() - start)
    return times


def random_part(part: str, device: str = "cpu") -> Any:
    """A part of the full-size model with random weights."""
    module: Any = build(FULL)[part]
    if device == "meta":
        return module.eval()
    generator = torch.Generator().manual_seed(0)
    module = module.to_empty(device="cpu").eval().requires_grad_(False)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(*distribution(PREFIXES[part] + name, tuple(tensor.shape)), generator=generator)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.abs_()
    return module


def write_graph(name: str, module: nn.Module, folder: Path, provider: str = PORTABLE) -> Path:
    """Export a graph module; the file for the provider."""
    (folder / "onnx").mkdir(exist_ok=True)
    transpose_linears(module)
    entries = write_variants(folder, name, trace_variants(name, module, FULL), None)
    return folder / str(entries[provider]["file"])


def count_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of products and attention, without computing them."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(*inputs)
    return counter.get_total_flops()


def aligner_arrays(frames: int, voxels: int) -> dict[str, np.ndarray]:
    """Random inputs of the aligner, with directions instead of encodings."""
    generator = np.random.default_rng(1)

    def normal(rows: int, columns: int) -> np.ndarray:
        return generator.standard_normal((rows, columns), np.float32)

    def directions(rows: int) -> np.ndarray:
        vectors = normal(rows, 3)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return torch.from_numpy(unit).bfloat16().float().numpy()

    patches = frames * FULL.vision.grid**2
    return {
        "pcd_features": normal(voxels, FULL.aligner.point_features),
        "pooled_features": normal(patches, FULL.llm.width),
        "text_embeds": normal(TEXT_TOKENS, FULL.llm.width),
        "pcd_rays_dirs": directions(voxels),
        "img_rays_dirs": directions(patches),
    }


class WideConv(Convolution):
    """One gather and one product as PyTorch states them: a reference, which stays when the encoder changes."""

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        gathered = hidden.index_select(0, table.flatten()).reshape(-1, self.kernel.shape[0])
        return with_zero_row(gathered @ self.kernel + self.bias)


class WidePoints(nn.Module):
    """The point encoder with one wide gather for every convolution, over plain tables."""

    def __init__(self, plain: PointEncoder):
        super().__init__()
        self.net = fold(plain.net3d, lambda kind, level, kernel, bias: WideConv(kernel.flatten(0, 1), bias))

    def forward(
        self, voxel_feats: Tensor, stem: Tensor, neighbours: list[Tensor], down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """[N, 3] and the tables of `MapTensors` to [N, features]."""
        maps = MapTensors(stem, tuple(neighbours), tuple(down), tuple(up), ())
        return self.net.final(self.net.trunk(with_zero_row(voxel_feats), maps)[:-1])


def wide_arguments(coords: np.ndarray) -> dict[str, Any]:
    """Tables as arguments of `WidePoints`."""
    maps = MapTensors.build(coords)
    lists = {"neighbours": list(maps.neighbours), "down": list(maps.down), "up": list(maps.up)}
    return {
        "stem": maps.stem.contiguous(),
        **{name: [t.contiguous() for t in tables] for name, tables in lists.items()},
    }


def wide_inputs(coords: np.ndarray) -> dict[str, np.ndarray]:
    """Tables by the names of the wide graph's inputs."""
    named: dict[str, np.ndarray] = {}
    for name, value in wide_arguments(coords).items():
        tables = value if isinstance(value, list) else [value]
        keys = [f"{name}_{index}" for index in range(len(tables))] if isinstance(value, list) else [name]
        named |= {key: table.numpy() for key, table in zip(keys, tables, strict=True)}
    return named


def write_wide_points(folder: Path) -> Path:
    """Export the wide form."""
    coords = np.argwhere(np.ones((20, 3, 3)))
    arguments = {"voxel_feats": torch.zeros(len(coords), 3), **wide_arguments(coords)}
    axes = {
        name: [{0: Dim.DYNAMIC} for _ in value] if isinstance(value, list) else {0: Dim.DYNAMIC}
        for name, value in arguments.items()
    }
    model = trace(
        WidePoints(random_part("points")), arguments, axes, ("voxel_feats", *wide_inputs(coords)), "pcd_features"
    )
    ir.save(model, folder / "wide.onnx", external_data="wide.data")
    return folder / "wide.onnx"
