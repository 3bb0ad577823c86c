"""A checkpoint of four tensors, small enough to alter and to damage."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
LATENTS = "latent_query.weight"
POINTS = "pcd_encoder.net3d.final.kernel"


@pytest.fixture
def tensors() -> Tensors:
    """A few tensors of several types; whole numbers, so that sums of products are exact."""
    generator = torch.Generator().manual_seed(1)
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        QUERY: ((6, 4), torch.bfloat16),
        DOWN: ((4, 8), torch.float16),
        LATENTS: ((3, 5), torch.bfloat16),
        POINTS: ((5, 7), torch.float32),
    }
    return {
        name: torch.randint(-50, 50, shape, generator=generator).to(dtype) for name, (shape, dtype) in shapes.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder without weights."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text('{"hidden_size": 4}')
    return path


@pytest.fixture
def saved(folder: Path, tensors: Tensors) -> Path:
    save_file(tensors, folder / "model.safetensors")
    return folder
