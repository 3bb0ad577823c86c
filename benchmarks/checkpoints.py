"""Checkpoints in the trainer's layout: a small trained one, and random ones of any size, written in a stream.

Random weights are for testing the toolchain at scale: the answers mean nothing, the arithmetic is the model's.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..export.checkpoint.geometry import PREFIXES, build
from ..runtime.bundle.files import atomic_path
from ..runtime.bundle.geometry import AlignerGeometry, Geometry, LlmGeometry, PointGeometry, VisionGeometry
from ..runtime.console import peak_memory
from ..runtime.errors import BadInput, require_at_least
from ..runtime.host.bf16 import round_bf16
from .folders import make_new_folder

__all__ = ["DATA", "FULL", "TINY", "TRAINED", "make_checkpoint", "write_checkpoint", "write_descriptions"]

DATA = Path(__file__).parent / "data"
TRAINED = DATA / "small"
SHARD_BYTES = 4 * 2**30
# 64 MB of float32
VALUES_AT_ONCE = 2**24
SPECIAL_TOKENS = {"<|endoftext|>": 1000, "<|im_start|>": 1001, "<|im_end|>": 1002}

TINY = Geometry(
    vision=VisionGeometry(image_size=56, patch_size=14, width=64, layers=2, heads=2, mlp=128, grid=2),
    points=PointGeometry(
        channels=(3, 8, 8, 16, 16, 32, 16, 16, 12, 12),
        downsampled=(8, 8, 16, 16),
        upsampled=(16, 16, 12, 12),
        blocks=(1, 1, 1, 1, 1, 1, 1, 2),
        features=128,
    ),
    aligner=AlignerGeometry(width=128, heads=2, layers=3, cross_layers=(0, 2), ffn=256, latents=8, point_features=128),
    llm=LlmGeometry(
        # K-quants need rows that 256 divides; libllama takes other types for narrower ones
        width=256,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn=512,
        vocabulary=1024,
        context=32768,
        rope_base=1e6,
        rms_eps=1e-6,
        tied=False,
    ),
)
FULL = Geometry(
    vision=VisionGeometry(image_size=384, patch_size=14, width=1152, layers=26, heads=16, mlp=4304, grid=14),
    points=PointGeometry(
        channels=(3, 32, 32, 64, 128, 256, 128, 128, 96, 96),
        downsampled=(32, 32, 64, 128),
        upsampled=(128, 128, 96, 96),
        blocks=(2, 2, 2, 2, 2, 2, 2, 2),
        features=768,
    ),
    aligner=AlignerGeometry(
        width=768, heads=12, layers=6, cross_layers=(0, 2, 4), ffn=3072, latents=32, point_features=768
    ),
    llm=LlmGeometry(
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        ffn=18944,
        vocabulary=152_064,
        context=32768,
        rope_base=1e6,
        rms_eps=1e-6,
        tied=False,
    ),
)
RANDOM = {"tiny": TINY, "full": FULL}


def make_checkpoint(out: Path, size: str, *, layers: int | None = None, seed: int = 0, quiet: bool = True) -> None:
    """Write a checkpoint into a new folder.

    Args:
        out: the folder.
        size: small, the ST-LLM that was trained on generated rooms, with its model card; else one of `RANDOM`.
        layers: layers of the language model, if not the size's; of random weights alone.
        seed: of random weights.
        quiet: whether to leave out the peak of memory.

    Raises:
        BadInput: an option is out of range or not for this size, or the folder holds something or cannot be made.
    """
    if size == "small" and (layers is not None or seed):
        raise BadInput("--size small: is trained as it is; --layers and --seed are for random weights")
    require_at_least({"--layers": (layers, 1), "--seed": (seed, 0)})
    make_new_folder(out)
    if size == "small":
        shutil.copytree(TRAINED, out, dirs_exist_ok=True)
        return
    with peak_memory(quiet):
        write_checkpoint(out, RANDOM[size], seed=seed, layers=layers)


def write_checkpoint(folder: Path, geometry: Geometry = TINY, *, seed: int = 0, layers: int | None = None) -> Path:
    """Write a checkpoint with normally distributed weights, a cut of Qwen2's tokenizer, and sharded safetensors.

    Memory stays below 0.3 GB whatever the size.

    Args:
        folder: gets the checkpoint.
        geometry: its sizes.
        seed: of the weights; the same seed gives the same bytes.
        layers: layers of the language model, if not the geometry's.

    Returns:
        The folder.
    """
    if layers is not None:
        geometry = replace(geometry, llm=replace(geometry.llm, layers=layers))
    folder.mkdir(parents=True, exist_ok=True)
    write_descriptions(folder, geometry, SPECIAL_TOKENS)
    for described in ("tokenizer.json", "tokenizer_config.json"):
        (folder / described).write_bytes((DATA / described).read_bytes())
    shards = list(plan_shards(tensor_shapes(geometry)))
    index: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
            write_safetensors(file, shapes, seed)
        index |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=1))
    return folder


def tensor_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors that the trainer saves, those that the model never reads included."""
    shapes = {
        PREFIXES[part] + name: tuple(tensor.shape)
        for part, module in build(geometry).items()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    if geometry.llm.tied:
        del shapes["lm_head.weight"]
    width, ffn = geometry.aligner.width, geometry.aligner.ffn
    for layer in range(geometry.aligner.layers):
        prefix = f"qformer.encoder.layer.{layer}"
        shapes[f"{prefix}.intermediate.dense.weight"] = (ffn, width)
        shapes[f"{prefix}.output.dense.weight"] = (width, ffn)
    shapes["qformer.embeddings.position_embeddings.weight"] = (512, width)
    shapes["model.vision_tower.vision_tower.vision_model.post_layernorm.weight"] = (geometry.vision.width,)
    return shapes


def plan_shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Group tensors into files of bounded size."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + stored_bytes(name, shape) > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += stored_bytes(name, shape)
    yield shard


def write_safetensors(file: BinaryIO, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    """A safetensors file whose tensors are drawn block by block."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + stored_bytes(name, shape)
        header[name] = {"dtype": "F32" if is_float32(name) else "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    # readers may map the tensors, so they begin at a multiple of 8 bytes
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, shape in shapes.items():
        for block in draw(name, shape, seed):
            file.write(block.data if is_float32(name) else (block.view(np.uint32) >> 16).astype(np.uint16).data)


def draw(name: str, shape: tuple[int, ...], seed: int) -> Iterator[np.ndarray]:
    """Values of one tensor in blocks, float32 arrays of bfloat16 numbers."""
    # by name: values of a tensor do not depend on which others there are
    generator = np.random.default_rng([seed, *name.encode()])
    mean, deviation = distribution(name, shape)
    remaining = math.prod(shape)
    while remaining:
        values = generator.standard_normal(min(remaining, VALUES_AT_ONCE), dtype=np.float32)
        remaining -= len(values)
        values *= np.float32(deviation)
        values += np.float32(mean)
        yield round_bf16(np.abs(values) if name.endswith("running_var") else values)


def distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation that keep activations near one through all layers."""
    is_norm = any(word in name.lower() for word in ("norm", ".bn"))
    if name.endswith("running_var") or (is_norm and name.endswith("weight")):
        return 1.0, 0.1
    if len(shape) == 1:
        return 0.0, 0.1
    if name.endswith("kernel"):
        # on surfaces a voxel has a third of the neighbours of a 3x3x3 kernel
        return 0.0, 1 / math.sqrt(shape[-2] * max(1, math.prod(shape[:-2]) / 3))
    embeddings = ("embed_tokens", "position_embedding", "latent_query", "image_newline")
    return 0.0, 0.7 if any(word in name for word in embeddings) else 1 / math.sqrt(math.prod(shape[1:]))


def is_float32(name: str) -> bool:
    """Whether the trainer stores a tensor in float32: the point encoder's, all others in bfloat16."""
    return name.startswith(PREFIXES["points"])


def stored_bytes(name: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * (4 if is_float32(name) else 2)


def write_descriptions(folder: Path, geometry: Geometry, special: Mapping[str, int]) -> None:
    """Write the configuration files of a model; `special` are its tokenizer's special tokens."""
    llm, vision = geometry.llm, geometry.vision
    config = {
        "model_type": "pcd_aligner",
        "architectures": ["LlavaQwenPcdVidLM"],
        "hidden_size": llm.width,
        "num_hidden_layers": llm.layers,
        "num_attention_heads": llm.heads,
        "num_key_value_heads": llm.kv_heads,
        "intermediate_size": llm.ffn,
        "vocab_size": llm.vocabulary,
        "max_position_embeddings": llm.context,
        "rope_theta": llm.rope_base,
        "rms_norm_eps": llm.rms_eps,
        "tie_word_embeddings": llm.tied,
        "hidden_act": "silu",
        "eos_token_id": special["<|im_end|>"],
        "mm_vision_tower": "vision_tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_newline_position": "grid",
        "torch_dtype": "bfloat16",
    }
    tower = {
        "model_type": "siglip_vision_model",
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp,
        # configurations count the layer that the model deletes when it is loaded
        "num_hidden_layers": vision.layers + 1,
        "num_attention_heads": vision.heads,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
    }
    generation = {"eos_token_id": [special["<|im_end|>"], special["<|endoftext|>"]]}
    (folder / "vision_tower").mkdir(exist_ok=True)
    for name, content in (
        ("config.json", config),
        ("vision_tower/config.json", tower),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
