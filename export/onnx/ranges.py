"""The encoders' graphs on the built-in sample: which products would overflow in FP16, and which attention suffers."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ...runtime.inputs.clip import load_clip
from ...runtime.inputs.scene import load_scene
from ...runtime.inputs.selection import select_frames
from ...runtime.stages import HostStages
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..model.streaming import token_embeddings
from ..sample import write_sample
from . import fp16
from .costs import exact_attentions
from .inputs import EncoderInputs

__all__ = ["SampleRun"]

TEXT_IDS = 24


class SampleRun:
    """Feeds the graphs, in the order vision, points, aligner, with the built-in sample."""

    def __init__(self, checkpoint: Checkpoint, inventory: Inventory, voxel_size: float):
        host = HostStages(inventory.geometry.vision, voxel_size)
        with tempfile.TemporaryDirectory() as folder:
            scene_folder, video = write_sample(Path(folder), voxel_size)
            scene, clip = load_scene(scene_folder), load_clip(video)
            selection = select_frames(clip, scene.poses, frames=None, default=len(clip), offset=scene.offset)
            voxels = host.voxels(scene)
            rays = host.rays(scene, selection, voxels)
            text = token_embeddings(checkpoint, torch.arange(min(TEXT_IDS, inventory.geometry.llm.vocabulary)))
            self._inputs = EncoderInputs.build(host, selection, voxels, rays, text)
        self._outputs: dict[str, Tensor] = {}

    def safe_weights(self, name: str, module: nn.Module) -> set[str]:
        """Weights of an encoder's graph whose products can be FP16."""
        with torch.inference_mode(), fp16.record_ranges(module) as ranges:
            self._outputs[name] = module(**self._inputs.of(name, self._outputs))
        return fp16.safe_weights(module, ranges)

    def exact_attentions(self, name: str, module: nn.Module) -> list[str]:
        """Attentions of an encoder's graph whose factors stay float32; after `safe_weights` of those before it."""
        return exact_attentions(module, self._inputs.of(name, self._outputs))
