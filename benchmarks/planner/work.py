"""Arithmetic and traffic of each stage, from sizes alone: the two axes of a roofline."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...runtime.bundle.geometry import AlignerGeometry, Geometry, LlmGeometry, PointGeometry, VisionGeometry
from ...runtime.host.rays import LIVE_COLUMNS
from ...runtime.memory.plan import TEXT_TOKENS

__all__ = ["GPU_STAGES", "HOST_STAGES", "Question", "Work", "feed_forward_share", "output_share", "work_of"]

HOST_STAGES = ("voxels", "maps", "rays", "video")
GPU_STAGES = ("vision", "points", "aligner", "prefill", "decode")
FLOAT, HALF = 4, 2
# of rooms scanned at 6 cm: voxels of a level per voxel of the one below, and neighbours that a voxel has of 27
COARSER, NEIGHBOURS = 0.25, 10.5
# levels whose convolutions read only neighbours that exist; the others read all 27
SLAB_LEVELS = 2
STEM_COLUMNS = 125
# level of the convolutions of block1 .. block8
BLOCK_LEVELS = (1, 2, 3, 4, 3, 2, 1, 0)


@dataclass(frozen=True)
class Question:
    """What is asked for.

    Attributes:
        frames: that are sampled.
        voxels: of the scene.
        new_tokens: of the answer.
    """

    frames: int
    voxels: int
    new_tokens: int


@dataclass(frozen=True)
class Work:
    """What a stage computes and moves.

    Attributes:
        flops: operations, a multiply-add as two.
        moved: bytes of weights and of what grows with the question, each time that they are read.
        weights: bytes that are loaded once.
        calls: of its graph.
    """

    flops: float
    moved: float
    weights: float = 0.0
    calls: int = 1


def work_of(
    geometry: Geometry, question: Question, weights: Mapping[str, int], llm: int, kv: float = HALF
) -> dict[str, Work]:
    """Work of the stages with matrices.

    Args:
        geometry: sizes of the model.
        question: what is asked for.
        weights: bytes of each encoder's weights.
        llm: bytes of the language model's file.
        kv: bytes of a key's or value's number.
    """
    vision, frames, voxels = geometry.vision, question.frames, question.voxels
    patches = frames * vision.grid**2
    positions = frames * vision.grid * (vision.grid + 1) + geometry.aligner.latents + TEXT_TOKENS
    # what layers hand on, and scores of attention: written, made shares, read
    scores = 3 * vision.heads * vision.patches**2
    hidden = (vision.patches * (vision.mlp + 4 * vision.width) + scores) * FLOAT * vision.layers
    rows = geometry.aligner.latents + patches + TEXT_TOKENS
    # of each point: its rays read and projected, then keys and values of some heads, laid out and read
    crossing = voxels * (3 * LIVE_COLUMNS + 12 * len(geometry.aligner.cross_layers) * geometry.aligner.width) * FLOAT
    return {
        "vision": Work(
            frames * frame_flops(vision, geometry.llm.width),
            frames * (weights["vision"] + hidden),
            weights["vision"],
            frames,
        ),
        "points": Work(
            point_flops(geometry.points, voxels),
            weights["points"] + point_traffic(geometry.points, voxels),
            weights["points"],
        ),
        "aligner": Work(
            aligner_flops(geometry.aligner, rows, patches, voxels, geometry.llm.width),
            weights["aligner"] + crossing + rows * geometry.aligner.width * FLOAT * 12 * geometry.aligner.layers,
            weights["aligner"],
        ),
        "prefill": prefill_work(geometry.llm, positions, llm),
        "decode": decode_work(geometry.llm, positions, question.new_tokens, llm, kv),
    }


def frame_flops(vision: VisionGeometry, llm_width: int) -> float:
    """Operations of a frame in tower and projector."""
    rows, width = vision.patches, vision.width
    layer = 2 * rows * (4 * width**2 + 2 * width * vision.mlp) + 4 * rows**2 * width
    embed = 2 * rows * 3 * vision.patch_size**2 * width
    return vision.layers * layer + embed + 2 * rows * width * llm_width + 2 * vision.grid**2 * llm_width**2


def convolutions(points: PointGeometry) -> list[tuple[int, int, int, float]]:
    """Level, input and output width, and rows read a voxel, of each convolution of the U-Net.

    The first level's inputs of an upsampling block are the upsampled rows beside those that were kept on the way down.
    """
    found = [(0, points.channels[0], points.channels[1], float(STEM_COLUMNS))]
    widths = points.channels
    kept = [widths[1], *widths[2:5]]
    previous = widths[1]
    for block, level in enumerate(BLOCK_LEVELS):
        each = NEIGHBOURS if level < SLAB_LEVELS else 27.0
        if block < 4:
            found.append((level, previous, points.downsampled[block], 8.0))
            first = points.downsampled[block]
        else:
            # eight children of each parent, computed at the coarser level
            found.append((level + 1, previous, points.upsampled[block - 4], 8.0))
            first = points.upsampled[block - 4] + kept[level]
        width = widths[block + 2]
        for index in range(points.blocks[block]):
            found += [(level, width if index else first, width, each), (level, width, width, each)]
        previous = width
    return [*found, (0, previous, points.features, 1.0)]


def point_flops(points: PointGeometry, voxels: int) -> float:
    """Operations of the sparse U-Net."""
    return sum(2 * voxels * COARSER**level * each * a * b for level, a, b, each in convolutions(points))


def point_traffic(points: PointGeometry, voxels: int) -> float:
    """Bytes of the rows that its convolutions gather and write."""
    return sum(voxels * COARSER**level * (2 * each * a + 2 * b) * FLOAT for level, a, b, each in convolutions(points))


def aligner_flops(aligner: AlignerGeometry, rows: int, patches: int, voxels: int, llm_width: int) -> float:
    """Operations of the Q-Former; of its last layer, only the latents' rows."""
    width, total = aligner.width, 2.0 * (voxels + patches) * LIVE_COLUMNS * aligner.width
    total += 2 * (rows - aligner.latents) * llm_width * width + 2 * aligner.latents * width * llm_width
    for layer in range(aligner.layers):
        asked = aligner.latents if layer == aligner.layers - 1 else rows
        total += 2 * asked * 2 * width**2 + 2 * rows * 2 * width**2 + 4 * asked * rows * width
        total += 2 * asked * 2 * width * aligner.ffn
        if layer in aligner.cross_layers:
            total += 2 * asked * 2 * width**2 + 2 * voxels * 2 * width**2 + 4 * asked * voxels * width
    return total


def matrices(llm: LlmGeometry) -> int:
    """Numbers of a layer's matrices."""
    kv = llm.kv_heads * llm.head_width
    return 2 * llm.width**2 + 2 * llm.width * kv + 3 * llm.width * llm.ffn


def feed_forward_share(llm: LlmGeometry) -> float:
    """Share of a layer's matrices that the last layer uses for one row alone: of a prompt, only one becomes logits."""
    return 3 * llm.width * llm.ffn / matrices(llm)


def table_share(llm: LlmGeometry) -> float:
    """Share of the file that is the embedding matrix, of which rows are read; none where it is the output matrix."""
    return 0.0 if llm.tied else output_share(llm)


def output_share(llm: LlmGeometry) -> float:
    """Share of the file that is the output matrix, all of which is read for each row of logits."""
    table = llm.vocabulary * llm.width
    return table / (llm.layers * matrices(llm) + (1 if llm.tied else 2) * table)


def prefill_work(llm: LlmGeometry, positions: int, size: int) -> Work:
    """A prompt: every layer over every position, attention to those before, one row of logits."""
    whole = llm.layers - feed_forward_share(llm)
    layers = whole * 2 * positions * matrices(llm) + llm.layers * 2 * positions**2 * llm.width
    read = size * (1 - table_share(llm))
    return Work(layers + 2 * llm.vocabulary * llm.width, read, size)


def decode_work(llm: LlmGeometry, positions: int, tokens: int, size: int, kv: float) -> Work:
    """Tokens one by one: each reads all matrices, and keys and values of all positions before."""
    depth = positions + tokens / 2
    cache = 2 * depth * llm.layers * llm.kv_heads * llm.head_width * kv
    flops = 2 * (llm.layers * matrices(llm) + llm.vocabulary * llm.width) + 4 * depth * llm.layers * llm.width
    # the first token comes from the prompt's logits
    return Work((tokens - 1) * flops, (tokens - 1) * (size * (1 - table_share(llm)) + cache))
