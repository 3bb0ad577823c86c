"""The encoders' graphs on the built-in sample: which products would overflow in FP16."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.bundle.table import STAGES
from ...runtime.inputs.clip import load_clip
from ...runtime.inputs.scene import load_scene
from ...runtime.inputs.selection import select_frames
from ...runtime.stages import HostStages
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..model.streaming import token_embeddings
from ..sample import write_sample
from . import fp16
from .sparse import map_tensors

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
            self._frames = torch.from_numpy(np.stack(list(host.frames(selection))))
        self._voxels = host.voxels(scene)
        self._maps = host.maps(self._voxels)
        self._rays = host.encode_rays(host.rays(scene, selection, self._voxels))
        self._text = token_embeddings(checkpoint, torch.arange(min(TEXT_IDS, inventory.geometry.llm.vocabulary)))
        self._outputs: dict[str, Tensor] = {}

    def safe_weights(self, name: str, module: nn.Module) -> set[str]:
        """Weights of an encoder's graph whose products can be FP16."""
        with torch.inference_mode(), fp16.record_ranges(module) as ranges:
            self._outputs[name] = module(**self._inputs(name))
        return fp16.safe_weights(module, ranges)

    def _inputs(self, name: str) -> dict[str, Any]:
        if name == "vision":
            return {"frames": self._frames}
        if name == "points":
            return {"voxel_feats": torch.from_numpy(self._voxels.feats), "maps": map_tensors(self._maps)}
        pooled = self._outputs["vision"][:, :, :-1].flatten(0, 2)
        points, frames = map(torch.from_numpy, self._rays)
        inputs = (self._outputs["points"], points, pooled, frames, self._text)
        return dict(zip(STAGES["aligner"].inputs[None], inputs, strict=True))
