"""What the encoders' traced forms take in PyTorch, for one scene and clip."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...runtime.bundle.table import STAGES
from ...runtime.host.maps import KernelMaps
from ...runtime.host.rays import Rays
from ...runtime.host.voxels import Voxels
from ...runtime.inputs.selection import Selection
from ...runtime.stages import HostStages
from .sparse import map_tensors

__all__ = ["EncoderInputs"]


@dataclass(frozen=True)
class EncoderInputs:
    """Inputs of vision, points and aligner.

    Attributes:
        frames: [T, 3, S, S] float32 pixel values.
        features: [N, 3] float32 colours of the voxels.
        maps: their kernel maps.
        rays: [N, 387] and [T*n*n, 387] float32 encodings.
        text: [L, d] float32 embeddings.
    """

    frames: Tensor
    features: Tensor
    maps: KernelMaps
    rays: tuple[Tensor, Tensor]
    text: Tensor

    @classmethod
    def build(cls, host: HostStages, selection: Selection, voxels: Voxels, rays: Rays, text: Tensor) -> "EncoderInputs":
        """From what the host has computed."""
        points, frames = map(torch.from_numpy, host.encode_rays(rays))
        pixels = torch.from_numpy(np.stack(list(host.frames(selection))))
        return cls(pixels, torch.from_numpy(voxels.feats), host.maps(voxels), (points, frames), text)

    def of(self, name: str, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of an encoder's module; the aligner's are from the `outputs` of the two others."""
        if name == "vision":
            return {"frames": self.frames}
        if name == "points":
            return {"voxel_feats": self.features, "maps": map_tensors(self.maps)}
        pooled = outputs["vision"][:, :, :-1].flatten(0, 2)
        inputs = (outputs["points"], self.rays[0], pooled, self.rays[1], self.text)
        return dict(zip(STAGES["aligner"].inputs[None], inputs, strict=True))
