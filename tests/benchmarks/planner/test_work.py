"""Arithmetic and traffic of the stages, against counts in the graphs."""

from dataclasses import replace

import pytest
import torch
from stllm_edge.benchmarks.checkpoints import FULL, TINY
from stllm_edge.benchmarks.encoders import aligner_arrays, count_flops, random_part
from stllm_edge.benchmarks.planner.work import GPU_STAGES, Question, aligner_flops, frame_flops, point_flops, work_of
from stllm_edge.benchmarks.world.rooms import room
from stllm_edge.export.checkpoint.geometry import build
from stllm_edge.export.onnx.graphs import AlignerGraph, VisionGraph
from stllm_edge.export.onnx.sparse import PointsGraph, map_tensors
from stllm_edge.runtime.host.maps import KernelMaps

WEIGHTS = {"vision": 1_658_000_000, "points": 62_000_000, "aligner": 234_000_000}
LLM = 4_900_000_000


def test_a_frame_is_counted_as_in_the_graph() -> None:
    graph = VisionGraph(random_part("vision", "meta"))
    counted = count_flops(graph, torch.empty(1, 3, 384, 384, device="meta"))
    assert frame_flops(FULL.vision, FULL.llm.width) == pytest.approx(counted, rel=0.03)


def test_the_aligner_is_counted_as_in_the_graph() -> None:
    frames, voxels = 4, 2_000
    patches = frames * FULL.vision.grid**2
    shapes = {name: array.shape for name, array in aligner_arrays(frames, voxels).items()}
    sizes = [shapes["pcd_features"], (voxels, 387), shapes["pooled_features"], (patches, 387), shapes["text_embeds"]]
    counted = count_flops(
        AlignerGraph(random_part("aligner", "meta")), *(torch.empty(size, device="meta") for size in sizes)
    )
    rows = FULL.aligner.latents + patches + shapes["text_embeds"][0]
    assert aligner_flops(FULL.aligner, rows, patches, voxels, FULL.llm.width) == pytest.approx(counted, rel=0.03)


def test_the_point_encoder_is_counted_as_on_a_room() -> None:
    voxels = 6_000
    module = build(TINY)["points"].to_empty(device="cpu").eval()
    maps = map_tensors(KernelMaps.build(room(voxels)))
    with torch.inference_mode():
        counted = count_flops(PointsGraph(module), torch.zeros(voxels, 3), maps)  # type: ignore[arg-type]
    assert point_flops(TINY.points, voxels) == pytest.approx(counted, rel=0.3)


@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ({"frames": 32}, {"vision", "aligner", "prefill", "decode"}),
        ({"voxels": 30_000}, {"points", "aligner"}),
        ({"new_tokens": 128}, {"decode"}),
    ],
)
def test_work_grows_where_the_question_does(more: dict[str, int], stages: set[str]) -> None:
    question = Question(frames=8, voxels=10_000, new_tokens=32)
    before, after = (work_of(FULL, asked, WEIGHTS, LLM) for asked in (question, replace(question, **more)))
    assert tuple(before) == GPU_STAGES
    assert {stage for stage in before if after[stage].flops > before[stage].flops} == stages


def test_a_token_reads_the_weights_and_the_cache() -> None:
    work = work_of(FULL, Question(32, 30_000, 2), WEIGHTS, LLM)["decode"]
    # 28 layers of 4 key-value heads, 128 wide, in f16: 57,344 bytes a position; the embedding matrix is not read
    cache = 57_344 * (32 * 210 + 32 + 160 + 1)
    assert 0.75 * LLM + cache < work.moved < LLM + cache
