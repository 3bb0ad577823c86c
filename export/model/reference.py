"""What the PyTorch model computes, stage by stage: what bundles are compared with."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ...runtime.console import Progress
from ...runtime.host.rays import Rays
from ...runtime.host.voxels import Voxels
from ...runtime.llm.prompt import Prompt
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from .aligner import encode_all
from .parts import load_part
from .points import MapTensors
from .streaming import last_logits, token_embeddings

__all__ = ["Reference"]


class Reference:
    """The stages of one checkpoint in PyTorch, one part in memory at a time; arrays in, arrays out."""

    def __init__(self, checkpoint: Checkpoint, inventory: Inventory, progress: Progress):
        """Load nothing yet."""
        self.checkpoint, self.inventory, self.progress = checkpoint, inventory, progress

    def vision(self, frames: Iterable[np.ndarray], count: int) -> np.ndarray:
        """Video tokens [T, n, n+1, d] float32 of frames [3, S, S]."""
        tower = load_part(self.checkpoint, self.inventory, "vision")
        with torch.inference_mode(), self.progress.bar("vision in PyTorch", count) as advance:
            pooled = []
            for frame in frames:
                pooled.append(tower(torch.from_numpy(frame)[None]))
                advance(1)
            vision, width = self.inventory.geometry.vision, self.inventory.geometry.llm.width
            tokens: np.ndarray = tower.video_tokens(torch.cat(pooled)).numpy()
        return tokens.reshape(count, vision.grid, vision.grid + 1, width)

    def points(self, voxels: Voxels) -> np.ndarray:
        """Point features [N, features] float32 in the order of the voxels."""
        with torch.inference_mode(), self.progress.stage("points in PyTorch"):
            encoder = load_part(self.checkpoint, self.inventory, "points")
            features: np.ndarray = encoder(torch.from_numpy(voxels.feats), MapTensors.build(voxels.coords)).numpy()
        return features

    def aligner(self, points: np.ndarray, rays: Rays, pooled: np.ndarray, text_embeds: np.ndarray) -> np.ndarray:
        """Prefix tokens [latents, d] float32; arguments as those of `runtime.stages.Stages.aligner`."""
        with torch.inference_mode(), self.progress.stage("aligner in PyTorch"):
            aligner = load_part(self.checkpoint, self.inventory, "aligner")
            encoded = [encode_all(torch.from_numpy(values.reshape(-1, 3))) for values in (rays.voxels, rays.frames)]
            frames = torch.from_numpy(pooled.reshape(-1, pooled.shape[-1]))
            text = torch.from_numpy(text_embeds)
            prefix: np.ndarray = aligner(torch.from_numpy(points), encoded[0], frames, encoded[1], text).numpy()
        return prefix

    def embed(self, ids: Iterable[int]) -> np.ndarray:
        """Rows [L, d] float32 of the token embedding matrix."""
        rows: np.ndarray = token_embeddings(self.checkpoint, torch.tensor([*ids], dtype=torch.int64)).numpy()
        return rows

    def prefill(
        self,
        prompt: Prompt,
        prefix: np.ndarray,
        video: np.ndarray,
        rounding: Callable[[Tensor], Tensor] | None = None,
    ) -> np.ndarray:
        """Logits [vocabulary] float32 after a prompt; arguments as those of `runtime.stages.Stages.prefill`.

        `rounding` is applied to both factors of every product with a weight, to see what a number format costs.
        """
        head, between, tail = (self.embed(ids) for ids in (prompt.head, prompt.between, prompt.tail))
        embeddings = torch.from_numpy(np.concatenate([head, prefix, between, video, tail]))
        logits: np.ndarray = last_logits(self.checkpoint, self.inventory, embeddings, self.progress, rounding).numpy()
        return logits
