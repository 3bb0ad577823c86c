"""The graphs of a bundle: operators, free axes, weights outside, nothing that is never read, any number of rows."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.model.parts import load_part
from stllm_edge.export.model.points import MapTensors
from stllm_edge.runtime.bundle.manifest import CPU, PORTABLE, TENSORRT, Bundle
from stllm_edge.runtime.encoders.local import LocalEncoder
from stllm_edge.runtime.host.rays import Rays
from stllm_edge.runtime.host.voxels import Voxels
from stllm_edge.runtime.inputs.clip import Clip, load_clip
from stllm_edge.runtime.inputs.scene import Scene, load_scene
from stllm_edge.runtime.inputs.selection import select_frames
from stllm_edge.runtime.setup import Setup
from stllm_edge.runtime.stages import Stages

ENCODERS = ("vision", "points", "aligner")
PRECISIONS = ("fp32", "fp16")
LIMITS = {"fp32": 5e-6, "fp16": 2e-2}
PROVIDERS = (PORTABLE, CPU, TENSORRT)
OWN_GRAPH = {PORTABLE: ENCODERS, CPU: ("vision", "aligner"), TENSORRT: ENCODERS}
EVERY_GRAPH = pytest.mark.parametrize(
    ("encoder", "precision", "provider"),
    [
        (encoder, precision, provider)
        for provider in PROVIDERS
        for encoder in OWN_GRAPH[provider]
        for precision in PRECISIONS
    ],
)
EVERY_SESSION = pytest.mark.parametrize(
    ("precision", "provider"), [(precision, provider) for precision in PRECISIONS for provider in PROVIDERS]
)
GraphFile = Callable[[str, str, str], Path]


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> dict[str, Any]:
    return json.loads((tiny_bundle / "manifest.json").read_text())


@pytest.fixture(scope="module")
def graph_file(tiny_bundle: Path, manifest: dict[str, Any]) -> GraphFile:
    """Path of an encoder's graph for a provider."""
    return lambda encoder, precision, provider: tiny_bundle / manifest["encoders"][precision][encoder][provider]["file"]


@pytest.fixture(scope="module")
def part(tiny_checkpoint: Path) -> Callable[[str], Any]:
    """The plain modules with the checkpoint's weights."""
    checkpoint = Checkpoint(tiny_checkpoint)
    inventory = take_inventory(checkpoint)
    return lambda name: load_part(checkpoint, inventory, name)


def test_points_have_no_graph_for_the_cpu_alone(manifest: dict[str, Any]) -> None:
    for encoders in manifest["encoders"].values():
        assert {name: tuple(graphs) for name, graphs in encoders.items()} == {
            "vision": PROVIDERS,
            "points": (PORTABLE, TENSORRT),
            "aligner": PROVIDERS,
        }


@EVERY_GRAPH
def test_graph_holds_operators_that_its_provider_knows(
    encoder: str, precision: str, provider: str, graph_file: GraphFile
) -> None:
    """Standard ones of opset 18; graphs for the CPU a few of ONNX Runtime's own as well."""
    file = graph_file(encoder, precision, provider)
    model = onnx.load(str(file), load_external_data=False)
    assert len(model.functions) == 0
    nodes = list(ir.from_proto(model).graph.all_nodes())
    own = {node.op_type for node in nodes if node.domain != ""}
    assert all(onnx.defs.has(node.op_type) for node in nodes if node.domain == "")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if provider != CPU:
        onnx.checker.check_model(str(file), full_check=True)
        assert (own, versions) == (set(), {"": 18})
    else:
        gelu = {"vision": "FastGelu", "aligner": "Gelu"}[encoder]
        assert (own, versions) == ({"MultiHeadAttention", gelu}, {"": 18, "com.microsoft": 1})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_slabs_take_few_more_nodes_than_whole_tables(precision: str, graph_file: GraphFile) -> None:
    """Each node takes time when the graph is loaded; the 48 slabs of a convolution are steps of loops."""
    slabs, tables = (
        len(list(ir.load(graph_file("points", precision, provider)).graph.all_nodes()))
        for provider in (PORTABLE, TENSORRT)
    )
    assert slabs < 1.3 * tables


def test_graphs_of_an_encoder_share_their_weights(manifest: dict[str, Any]) -> None:
    for encoders in manifest["encoders"].values():
        for graphs in encoders.values():
            assert len({graph["weights"] for graph in graphs.values()}) == 1


@EVERY_GRAPH
def test_inputs_and_outputs_keep_float32_and_free_axes(
    encoder: str, precision: str, provider: str, graph_file: GraphFile
) -> None:
    model = onnx.load(str(graph_file(encoder, precision, provider)), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        tensor = value.type.tensor_type
        assert tensor.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        fixed = ("prefix_tokens", "slab_bounds", "slab_offsets")
        axis = 1 if value.name.startswith("slab_place") else 0
        assert tensor.shape.dim[axis].HasField("dim_value") == value.name.startswith(fixed), value.name
    (output,) = model.graph.output
    assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@EVERY_GRAPH
def test_weights_lie_outside_the_graph_and_are_all_read(
    encoder: str, precision: str, provider: str, tiny_bundle: Path, manifest: dict[str, Any], graph_file: GraphFile
) -> None:
    model = onnx.load(str(graph_file(encoder, precision, provider)), load_external_data=False)
    nodes = ir.from_proto(model).graph.all_nodes()
    read = {value.name for node in nodes for value in node.inputs if value is not None}
    weights = tiny_bundle / manifest["encoders"][precision][encoder][provider]["weights"]
    outside = 0
    for tensor in model.graph.initializer:
        assert tensor.name in read
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            stated = {entry.key: entry.value for entry in tensor.external_data}
            assert graph_file(encoder, precision, provider).parent / stated["location"] == weights
            outside += int(stated["length"])
        else:
            assert tensor.ByteSize() < 2048
    assert 0.9 * weights.stat().st_size < outside <= weights.stat().st_size


def test_dead_tensors_of_the_checkpoint_are_not_in_the_bundle(
    tiny_bundle: Path, manifest: dict[str, Any], tiny_checkpoint: Path, graph_file: GraphFile
) -> None:
    inventory = take_inventory(Checkpoint(tiny_checkpoint))
    checkpoint = Checkpoint(tiny_checkpoint)
    for encoder in ENCODERS:
        needed = sum(math.prod(checkpoint.shape(name)) for name in inventory.used[encoder])
        size = (tiny_bundle / manifest["encoders"]["fp32"][encoder]["portable"]["weights"]).stat().st_size
        assert size < 4 * needed * 1.02
    model = onnx.load(str(graph_file("aligner", "fp32", PORTABLE)), load_external_data=False)
    names = {tensor.name for tensor in model.graph.initializer}
    assert any("feed_forward" in name for name in names)
    assert not any("intermediate.dense" in name or "position_embeddings" in name for name in names)


def test_half_precision_halves_the_weights(tiny_bundle: Path, manifest: dict[str, Any]) -> None:
    for encoder in ENCODERS:
        full, half = (
            (tiny_bundle / manifest["encoders"][precision][encoder]["portable"]["weights"]).stat().st_size
            for precision in PRECISIONS
        )
        assert half < 0.6 * full


@EVERY_SESSION
@pytest.mark.parametrize("frames", [1, 5])
def test_vision_takes_any_number_of_frames(
    frames: int, precision: str, provider: str, graph_file: GraphFile, part: Callable[[str], Any], rel_rms: Any
) -> None:
    pixels = torch.rand(frames, 3, 56, 56) * 2 - 1
    ours = LocalEncoder(graph_file("vision", precision, provider), threads=2)(frames=pixels.numpy())
    plain = part("vision")
    with torch.inference_mode():
        expected = plain.video_tokens(plain(pixels)).reshape(ours.shape)
    assert ours.dtype == np.float32
    assert ours.shape[0] == frames
    assert rel_rms(ours, expected) < LIMITS[precision]


def scene_of(points: np.ndarray, scene: Scene) -> Scene:
    """Other points, grey to coloured, in the poses of a scene."""
    colours = np.linspace(0, 255, points.size, dtype=np.float32).reshape(points.shape)
    return Scene(points.astype(np.float32), colours, scene.poses, scene.intrinsics)


@pytest.fixture(scope="module")
def world(sample: tuple[Path, Path]) -> tuple[Scene, Clip]:
    return load_scene(sample[0]), load_clip(sample[1])


@dataclass(frozen=True)
class Seen:
    """What a bundle's graphs make of a scene and a clip."""

    voxels: Voxels
    rays: Rays
    points: np.ndarray
    pooled: np.ndarray


def look(bundle: Path, precision: str, provider: str, scene: Scene, clip: Clip, frames: int) -> tuple[Stages, Seen]:
    """The stages up to the aligner."""
    stages = Stages(Setup(Bundle(bundle), precision, "F32", provider=provider, resident=True))
    selection = select_frames(clip, scene.poses, frames=frames, default=frames)
    voxels = stages.host.voxels(scene)
    rays = stages.host.rays(scene, selection, voxels)
    tokens = stages.vision(stages.host.frames(selection), frames)
    points = np.asarray(stages.points(voxels, stages.host.maps(voxels)))
    return stages, Seen(voxels, rays, points, tokens[:, :, :-1].reshape(frames, -1, tokens.shape[-1]))


CLOUDS = {
    "one voxel": np.zeros((1, 3)),
    "two far apart": np.array([[0, 0, 0], [40.0, 3, 20]]),
    "a line beyond 256": np.stack([np.arange(300) * 0.06 + 0.01, np.zeros(300), np.zeros(300)], axis=1),
    "a block": np.argwhere(np.ones((9, 8, 7))) * 0.06 + 0.01,
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("provider", [CPU, TENSORRT])
@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=CLOUDS)
def test_points_take_any_number_of_voxels(
    cloud: np.ndarray,
    provider: str,
    precision: str,
    world: tuple[Scene, Clip],
    tiny_bundle: Path,
    part: Callable[[str], Any],
    rel_rms: Any,
) -> None:
    _, view = look(tiny_bundle, precision, provider, scene_of(cloud, world[0]), world[1], 1)
    assert len(view.voxels) == len(cloud)
    with torch.inference_mode():
        maps = MapTensors.build(view.voxels.coords)
        expected = part("points")(torch.from_numpy(view.voxels.feats), maps)
    assert view.points.dtype == np.float32
    assert rel_rms(view.points, expected) < LIMITS[precision]


def encode_all(directions: np.ndarray) -> torch.Tensor:
    """[M, 3] to [M, 765] with the columns that never change."""
    frequencies = torch.tensor([*(2.0**k for k in range(63)), -(2.0**63), *[0.0] * 63], dtype=torch.float64)
    angles = (torch.from_numpy(directions).double()[:, :, None] * frequencies).flatten(1)
    return torch.cat([torch.from_numpy(directions), angles.sin().float(), angles.cos().float()], dim=1)


@EVERY_SESSION
@pytest.mark.parametrize(("frames", "cloud", "text"), [(1, "one voxel", 1), (4, "a block", 30)])
def test_aligner_takes_any_number_of_rows(
    frames: int,
    cloud: str,
    text: int,
    precision: str,
    provider: str,
    world: tuple[Scene, Clip],
    tiny_bundle: Path,
    part: Callable[[str], Any],
    rel_rms: Any,
) -> None:
    stages, view = look(tiny_bundle, precision, provider, scene_of(CLOUDS[cloud], world[0]), world[1], frames)
    words = torch.randn(text, 256)
    ours = stages.aligner(view.points, stages.host.encode_rays(view.rays), view.pooled, words.numpy())
    pooled = torch.from_numpy(view.pooled).flatten(0, 1)
    rays = encode_all(view.rays.voxels), encode_all(view.rays.frames.reshape(-1, 3))
    with torch.inference_mode():
        expected = part("aligner")(torch.from_numpy(view.points), rays[0], pooled, rays[1], words)
    assert ours.shape == (8, 256)
    assert ours.dtype == np.float32
    limits = {"fp32": 2e-3 if provider == TENSORRT else 3e-5, "fp16": 2e-2}
    assert rel_rms(ours, expected) < limits[precision]
