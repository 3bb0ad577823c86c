"""Altered copies of the tiny checkpoint and bundle, and plain modules with random weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stllm_edge.export.checkpoint.geometry import build
from stllm_edge.runtime.bundle.geometry import Geometry
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random inputs in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_tensors(tiny_checkpoint: Path) -> Tensors:
    """All tensors of the tiny checkpoint."""
    tensors: Tensors = {}
    for shard in sorted(tiny_checkpoint.glob("*.safetensors")):
        tensors |= load_file(shard)
    return tensors


@pytest.fixture(scope="session")
def alter(
    tiny_checkpoint: Path, tiny_tensors: Tensors, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Copies of the tiny checkpoint with other tensors, another config.json or another tower's config.json."""

    def make(
        change: Callable[[Tensors], object] = lambda tensors: None,
        *,
        config: Mapping[str, Any] | None = None,
        tower: Mapping[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path_factory.mktemp("altered") / "checkpoint"
        shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("model*"))
        tensors = dict(tiny_tensors)
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        for file, changes in (("config.json", config), ("vision_tower/config.json", tower)):
            content = json.loads((folder / file).read_text()) | dict(changes or {})
            (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
        return folder

    return make


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def random_part() -> Callable[..., Any]:
    """A part of the model (vision, points, aligner, llm) of given sizes, with random weights."""

    def make(geometry: Geometry, part: str, seed: int = 0) -> Any:
        module = build(geometry)[part].to_empty(device="cpu").eval().requires_grad_(False)
        return randomise(module, seed)

    return make


def randomise(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
            continue
        tensor.normal_(generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.1)
        elif tensor.ndim > 1:
            tensor.mul_((tensor.shape[-1] if tensor.ndim == 2 else tensor[0].numel()) ** -0.5)
        else:
            tensor.mul_(0.3).add_(1.0 if name.endswith("weight") else 0.0)
    return module


@pytest.fixture(scope="session", name="randomise")
def randomise_function() -> Callable[[nn.Module, int], nn.Module]:
    """Fill a module with random weights of about unit gain, batch statistics included."""
    return randomise
