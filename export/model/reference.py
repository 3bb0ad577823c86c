"""What the PyTorch model computes, stage by stage: what bundles are compared with.

Where transformers implements a part, its implementation computes; the rest are the plain modules beside this one.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.console import Progress
from ...runtime.host.rays import Rays
from ...runtime.host.voxels import Voxels
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import PREFIXES, Inventory, build
from .aligner import encode_all
from .parts import load_part
from .peers import Qformer, Tower, fill, qwen2_config
from .points import MapTensors
from .streaming import Stored, StreamedQwen2, Weights, token_embeddings

__all__ = ["Reference"]

LOG = logging.getLogger(__name__)
# InstructBLIP's Q-Former holds all scores of a layer, and so twice; ours holds none
MOST_SCORES_BYTES = 2**29


class Reference:
    """The stages of one checkpoint in PyTorch, one part in memory at a time; arrays in, arrays out."""

    def __init__(self, checkpoint: Checkpoint, inventory: Inventory, progress: Progress):
        """Load nothing yet."""
        self.checkpoint, self.inventory, self.progress = checkpoint, inventory, progress

    def vision(self, frames: Iterable[np.ndarray], count: int) -> np.ndarray:
        """Video tokens [T, n, n+1, d] float32 of frames [3, S, S]."""
        encoder: Any = build(self.inventory.geometry)["vision"].eval()
        encoder.vision_tower["vision_tower"]["vision_model"] = nn.Identity()
        fill(encoder, self.checkpoint.tensor, PREFIXES["vision"])
        tower = Tower(self.checkpoint)
        with torch.inference_mode(), self.progress.bar("vision in PyTorch", count) as advance:
            pooled = []
            for frame in frames:
                pooled.append(encoder.pool(encoder.mm_projector(tower(torch.from_numpy(frame)[None]))))
                advance(1)
            vision, width = self.inventory.geometry.vision, self.inventory.geometry.llm.width
            tokens: np.ndarray = encoder.video_tokens(torch.cat(pooled)).numpy()
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
            rows = len(aligner.latent_query.weight) + pooled.shape[0] * pooled.shape[1] + len(text_embeds)
            if self._fits_qformer(rows, len(points)):
                aligner.qformer = Qformer(self.checkpoint, self.inventory.geometry.aligner)
            encoded = [encode_all(torch.from_numpy(values.reshape(-1, 3))) for values in (rays.voxels, rays.frames)]
            frames = torch.from_numpy(pooled.reshape(-1, pooled.shape[-1]))
            text = torch.from_numpy(text_embeds)
            prefix: np.ndarray = aligner(torch.from_numpy(points), encoded[0], frames, encoded[1], text).numpy()
        return prefix

    def embed(self, ids: Iterable[int]) -> np.ndarray:
        """Rows [L, d] float32 of the token embedding matrix."""
        rows: np.ndarray = token_embeddings(self.checkpoint, torch.tensor([*ids], dtype=torch.int64)).numpy()
        return rows

    def _fits_qformer(self, rows: int, points: int) -> bool:
        """Whether transformers' Q-Former has the checkpoint's form and its scores fit in memory."""
        geometry = self.inventory.geometry.aligner
        scores = 4 * geometry.heads * rows * max(rows, points)
        fits = Qformer.has_form(geometry) and scores <= MOST_SCORES_BYTES
        if not fits:
            LOG.info("the aligner is compared with the plain Q-Former: transformers' takes %.1f GB", 2 * scores / 1e9)
        return fits

    @cached_property
    def config(self) -> Any:
        """The language model's configuration, as transformers reads it."""
        return qwen2_config(self.checkpoint)

    def logits(
        self,
        prompts: Sequence[np.ndarray],
        weights: Weights | None = None,
        rounding: Callable[[str, Tensor], Tensor] | None = None,
    ) -> np.ndarray:
        """Logits [P, vocabulary] float32 of the last positions of prompts, one prompt after the other.

        Args:
            prompts: embeddings [L, d] float32 each.
            weights: in place of the checkpoint's own.
            rounding: as `StreamedQwen2.logits` has it.
        """
        model = StreamedQwen2(self.config, weights or Stored(self.checkpoint), self.progress)
        return torch.cat(model.logits([torch.from_numpy(prompt) for prompt in prompts], rounding)).numpy()
