"""The encoders' graphs on the built-in sample: which products would overflow in FP16."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.host.maps import KernelMaps
from ...runtime.host.pixels import pixel_values
from ...runtime.host.rays import camera_rays, encode_directions
from ...runtime.host.voxels import voxelise
from ...runtime.inputs.clip import load_clip
from ...runtime.inputs.scene import load_scene
from ...runtime.inputs.selection import select_frames
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
        vision = inventory.geometry.vision
        with tempfile.TemporaryDirectory() as folder:
            scene_folder, video = write_sample(Path(folder), voxel_size)
            scene, clip = load_scene(scene_folder), load_clip(video)
            selection = select_frames(clip, scene.poses, frames=None, default=len(clip))
            frames = [pixel_values(frame, vision.image_size) for frame in clip.read(selection.indices)]
        self._frames = torch.from_numpy(np.stack(frames))
        self._voxels = voxelise(scene.points, scene.colours, voxel_size)
        self._rays = camera_rays(self._voxels, selection.poses, scene.intrinsics, frame_size=clip.size, vision=vision)
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
            maps = map_tensors(KernelMaps.build(self._voxels.coords))
            return {"voxel_feats": torch.from_numpy(self._voxels.feats), **maps}
        return {
            "pcd_features": self._outputs["points"],
            "pcd_rays": torch.from_numpy(encode_directions(self._rays.voxels)),
            "pooled_features": self._outputs["vision"][:, :, :-1].flatten(0, 2),
            "img_rays": torch.from_numpy(encode_directions(self._rays.frames.reshape(-1, 3))),
            "text_embeds": self._text,
        }
