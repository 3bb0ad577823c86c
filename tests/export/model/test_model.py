"""The plain PyTorch modules against other implementations of the same networks, with random weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.export.model.points import MapTensors, SparseConv
from stllm_edge.runtime.bundle.geometry import AlignerGeometry, LlmGeometry, VisionGeometry
from torch import Tensor

EXACT = 2e-6
Randomise = Callable[[torch.nn.Module, int], torch.nn.Module]


# Qwen2

LLM = replace(TINY.llm, width=64, layers=3, heads=4, kv_heads=2, ffn=96, vocabulary=50)


def qwen2_config(geometry: LlmGeometry) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=geometry.width,
        num_hidden_layers=geometry.layers,
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.kv_heads,
        intermediate_size=geometry.ffn,
        vocab_size=geometry.vocabulary,
        max_position_embeddings=geometry.context,
        rope_theta=geometry.rope_base,
        rms_norm_eps=geometry.rms_eps,
        tie_word_embeddings=geometry.tied,
    )


@pytest.mark.parametrize("length", [1, 2, 37])
@pytest.mark.parametrize(
    "geometry",
    [
        LLM,
        replace(LLM, kv_heads=4, layers=1),
        replace(LLM, heads=6, width=60, kv_heads=1),
        replace(LLM, rope_base=1e4, rms_eps=1e-2, heads=2),
    ],
    ids=["grouped", "as many keys", "one key head", "other constants"],
)
def test_language_model_equals_transformers(geometry: LlmGeometry, length: int, random_part: Any, rel_rms: Any) -> None:
    from transformers import Qwen2ForCausalLM

    ours = random_part(replace(TINY, llm=geometry), "llm")
    theirs = Qwen2ForCausalLM(qwen2_config(geometry)).eval()
    theirs.load_state_dict(ours.state_dict())
    embeddings = torch.randn(2, length, geometry.width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(inputs_embeds=embeddings).logits[:, -1]
        assert rel_rms(ours(embeddings), expected) < EXACT


def test_token_embeddings_equal_transformers(random_part: Any, rel_rms: Any) -> None:
    from transformers import Qwen2Model

    ours = random_part(replace(TINY, llm=LLM), "llm")
    theirs = Qwen2Model(qwen2_config(LLM)).eval()
    theirs.load_state_dict(ours.model.state_dict())
    ids = torch.tensor([3, 1, 4, 1, 5, 49, 0])
    with torch.inference_mode():
        hidden = theirs(input_ids=ids[None]).last_hidden_state[0, -1]
        assert rel_rms(ours(ours.model["embed_tokens"](ids[None]))[0], ours.lm_head(hidden)) < EXACT


# SigLIP and what follows it

VISION = replace(TINY.vision, width=48, heads=3, mlp=80, layers=3)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(
    "geometry",
    [
        VISION,
        replace(VISION, image_size=70, grid=3),
        replace(VISION, image_size=60, patch_size=16, grid=2),
        replace(VISION, layers=1, heads=1, width=40),
    ],
    ids=["even grid", "odd grid", "pixels left over", "one layer"],
)
def test_tower_equals_transformers_without_last_layer_and_last_norm(
    geometry: VisionGeometry, frames: int, random_part: Any, randomise: Randomise, rel_rms: Any
) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=geometry.width,
        intermediate_size=geometry.mlp,
        num_hidden_layers=geometry.layers + 1,
        num_attention_heads=geometry.heads,
        image_size=geometry.image_size,
        patch_size=geometry.patch_size,
    )
    theirs = randomise(SiglipVisionModel(config).eval(), 5)
    inner: Any = getattr(theirs, "vision_model", theirs)
    del inner.encoder.layers[-1:]
    ours = random_part(replace(TINY, vision=geometry), "vision").tower
    state = inner.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    pixels = torch.rand(frames, 3, geometry.image_size, geometry.image_size) * 2 - 1
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        assert rel_rms(ours(pixels), expected) < EXACT


def test_pooled_features_are_the_projected_patches_resized_bilinearly(random_part: Any, rel_rms: Any) -> None:
    geometry = replace(TINY, vision=replace(VISION, image_size=70, grid=3))
    ours = random_part(geometry, "vision")
    pixels = torch.rand(2, 3, 70, 70)
    with torch.inference_mode():
        first, _, second = ours.mm_projector.children()
        hidden = F.linear(ours.tower(pixels), first.weight, first.bias)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        projected = F.linear(hidden, second.weight, second.bias)
        image = projected.transpose(1, 2).reshape(2, -1, 5, 5)
        expected = F.interpolate(image, (3, 3), mode="bilinear", align_corners=False, antialias=False)
        assert rel_rms(ours(pixels), expected.flatten(2).transpose(1, 2)) < EXACT


def test_video_tokens_end_each_row_with_the_newline(random_part: Any) -> None:
    ours = random_part(replace(TINY, vision=replace(VISION, image_size=70, grid=3)), "vision")
    pooled = torch.randn(2, 9, TINY.llm.width)
    expected = []
    for frame in pooled:
        for row in range(3):
            expected += [*frame[3 * row : 3 * row + 3], ours.image_newline]
    assert torch.equal(ours.video_tokens(pooled), torch.stack(expected))


# Q-Former


@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("points", [1, 40])
@pytest.mark.parametrize(
    ("layers", "every", "width"), [(3, 2, 128), (2, 1, 64), (4, 3, 192)], ids=["two of three", "all", "two of four"]
)
def test_qformer_equals_transformers_fed_with_queries_alone(
    layers: int, every: int, width: int, points: int, tokens: int, random_part: Any, randomise: Randomise, rel_rms: Any
) -> None:
    from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

    geometry = AlignerGeometry(
        width=width,
        heads=width // 64,
        layers=layers,
        cross_layers=tuple(range(0, layers, every)),
        ffn=96,
        latents=4,
        point_features=width,
    )
    config = InstructBlipQFormerConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=96,
        encoder_hidden_size=width,
        cross_attention_frequency=every,
        vocab_size=10,
        max_position_embeddings=8,
    )
    theirs = randomise(InstructBlipQFormerModel(config).eval(), 7)
    ours = random_part(replace(TINY, aligner=geometry), "aligner").qformer
    state = theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    queries, context = torch.randn(tokens, width), torch.randn(points, width)
    with torch.inference_mode():
        expected = theirs(input_ids=None, query_embeds=queries[None], encoder_hidden_states=context[None])
        assert rel_rms(ours(queries, context), expected.last_hidden_state[0]) < EXACT


def test_aligner_orders_its_queries_latents_frames_text(random_part: Any, rel_rms: Any) -> None:
    aligner = random_part(TINY, "aligner")
    width, llm_width = TINY.aligner.width, TINY.llm.width
    points, frames, text = torch.randn(6, width), torch.randn(4, llm_width), torch.randn(3, llm_width)
    point_rays, frame_rays = torch.randn(6, 765), torch.randn(4, 765)
    with torch.inference_mode():
        context = points + aligner.pcd_ray_encoder["pcd_ray_projection_to_qformer"](point_rays)
        seen = aligner.img_encoder_to_qformer_projection(frames)
        seen = seen + aligner.img_ray_encoder["img_ray_projection_to_qformer"](frame_rays)
        read = aligner.text_embed_to_qformer_projection(text)
        hidden = aligner.qformer(torch.cat([aligner.latent_query.weight, seen, read]), context)
        expected = aligner.qformer_to_language_projection(hidden[: TINY.aligner.latents])
        assert rel_rms(aligner(points, point_rays, frames, frame_rays, text), expected) < EXACT


def test_aligner_answers_padded_questions_as_it_answers_each_alone(random_part: Any, rel_rms: Any) -> None:
    aligner = random_part(TINY, "aligner")
    width, llm_width = TINY.aligner.width, TINY.llm.width
    seen = torch.randn(6, width), torch.randn(6, 765), torch.randn(4, llm_width), torch.randn(4, 765)
    texts = [torch.randn(length, llm_width) for length in (3, 7, 5)]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=9.0)
    mask = torch.arange(7) < torch.tensor([[3], [7], [5]])
    with torch.inference_mode():
        together = aligner(*seen, padded, mask)
        for question, text in zip(together, texts, strict=True):
            assert rel_rms(question, aligner(*seen, text)) < EXACT


# sparse convolutions on grids that a dense one can hold

SHAPE = (9, 6, 11)


def occupied(share: float) -> np.ndarray:
    """Voxels [N, 3] int32 in random order, the corner of the grid among them."""
    generator = np.random.default_rng(3)
    coords = np.argwhere(generator.random(SHAPE) < share)
    coords = np.unique(np.concatenate([coords, np.zeros((1, 3), int)]), axis=0)
    return generator.permutation(coords).astype(np.int32)


def sparse_conv(offsets: int, inner: int, outer: int) -> SparseConv:
    convolution = SparseConv(offsets, inner, outer).requires_grad_(False)
    convolution.kernel.normal_(generator=torch.Generator().manual_seed(offsets))
    return convolution


def dense(hidden: Tensor, coords: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """[1, C, X, Y, Z] with zeros where there is no voxel."""
    grid = torch.zeros(hidden.shape[1], *shape, dtype=torch.float64)
    grid[(slice(None), *torch.from_numpy(coords.astype(np.int64)).T)] = hidden.double().T
    return grid[None]


def rows_of(grid: Tensor, coords: np.ndarray) -> Tensor:
    return grid[0][(slice(None), *torch.from_numpy(coords.astype(np.int64)).T)].T


def dense_kernel(kernel: Tensor, size: int) -> Tensor:
    """[K, in, out] with x fastest to [out, in, x, y, z]."""
    return kernel.double().reshape(size, size, size, *kernel.shape[1:]).permute(4, 3, 2, 1, 0)


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
@pytest.mark.parametrize(("size", "level"), [(5, 0), (3, 0), (3, 1), (3, 2)])
def test_centred_convolution_equals_the_dense_one(size: int, level: int, share: float, rel_rms: Any) -> None:
    tables = MapTensors.build(occupied(share))
    coords = tables.coords[level].numpy() >> level
    hidden = torch.randn(len(coords), 4)
    convolution = sparse_conv(size**3, 4, 6)
    table = tables.stem if size == 5 else tables.neighbours[level]
    expected = F.conv3d(dense(hidden, coords, SHAPE), dense_kernel(convolution.kernel, size), padding=size // 2)
    assert rel_rms(convolution(hidden, table), rows_of(expected, coords)) < EXACT


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("level", [0, 1])
def test_strided_convolution_equals_the_dense_one(level: int, share: float, rel_rms: Any) -> None:
    maps = MapTensors.build(occupied(share))
    fine, coarse = (maps.coords[number].numpy() >> number for number in (level, level + 1))
    assert {tuple(row) for row in fine >> 1} == {tuple(row) for row in coarse}
    hidden = torch.randn(len(fine), 4)
    convolution = sparse_conv(8, 4, 6)
    even = tuple(side + side % 2 for side in SHAPE)
    expected = F.conv3d(dense(hidden, fine, even), dense_kernel(convolution.kernel, 2), stride=2)
    ours = convolution(hidden, maps.down[level])
    assert rel_rms(ours, rows_of(expected, coarse)) < EXACT


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("level", [0, 1])
def test_transposed_convolution_equals_the_dense_one(level: int, share: float, rel_rms: Any) -> None:
    maps = MapTensors.build(occupied(share))
    fine, coarse = (maps.coords[number].numpy() >> number for number in (level, level + 1))
    hidden = torch.randn(len(coarse), 4)
    convolution = sparse_conv(8, 4, 6)
    half = tuple((side + 1) // 2 for side in SHAPE)
    kernel = dense_kernel(convolution.kernel, 2).transpose(0, 1)
    expected = F.conv_transpose3d(dense(hidden, coarse, half), kernel, stride=2)
    ours = convolution(hidden, maps.up[level])
    assert rel_rms(ours, rows_of(expected, fine)) < EXACT


def test_point_encoder_accepts_a_single_voxel(random_part: Any) -> None:
    encoder = random_part(TINY, "points")
    maps = MapTensors.build(np.zeros((1, 3), np.int32))
    out = encoder(torch.ones(1, 3), maps)
    assert out.shape == (1, TINY.points.features)
    assert torch.isfinite(out).all()


def test_point_features_do_not_depend_on_the_order_of_voxels(random_part: Any, rel_rms: Any) -> None:
    encoder = random_part(TINY, "points")
    coords = occupied(0.3)
    feats = torch.randn(len(coords), 3)
    order = np.random.default_rng(0).permutation(len(coords))
    straight = encoder(feats, MapTensors.build(coords))
    shuffled = encoder(feats[order], MapTensors.build(coords[order]))
    assert rel_rms(shuffled, straight[order]) < EXACT
