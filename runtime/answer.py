"""What a session makes of a scene and a clip, and its answer to a question."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .encoders.local import Kept
from .host.rays import Rays, encode_directions
from .host.voxels import Voxels
from .inputs.selection import Selection
from .llm.prompt import Prompt
from .memory.meter import Meter

__all__ = ["Answer", "View"]


@dataclass(frozen=True)
class View:
    """What a session knows of a scene and a clip before a question is asked.

    Attributes:
        selection: the frames that were chosen.
        voxels: voxels of the scene.
        rays: view directions.
        points: `pcd_features`, in memory or on the GPU.
        video_tokens: [T, n, n+1, d] float32; the last column of each row is the newline embedding.
        meter: time and memory, by stage.
    """

    selection: Selection
    voxels: Voxels
    rays: Rays
    points: np.ndarray | Kept
    video_tokens: np.ndarray
    meter: Meter

    @cached_property
    def pcd_features(self) -> np.ndarray:
        """[N, features] float32, in the order of `voxels`."""
        return np.asarray(self.points)

    @cached_property
    def encoded_rays(self) -> tuple[np.ndarray, np.ndarray]:
        """What `encode_rays` gives, kept for further questions."""
        return self.encode_rays()

    def encode_rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Encodings of the voxels' and of the pooled pixels' directions, [N, 387] and [T*n*n, 387] float32."""
        return encode_directions(self.rays.voxels), encode_directions(self.rays.frames.reshape(-1, 3))

    @property
    def pooled_features(self) -> np.ndarray:
        """[T, n*n, d] float32, the video tokens without row ends."""
        frames, grid, _, width = self.video_tokens.shape
        return self.video_tokens[:, :, :-1].reshape(frames, grid * grid, width)

    def stages(self) -> dict[str, np.ndarray]:
        """Arrays by the names that reference tensors carry."""
        return {
            "voxel_coords": self.voxels.coords,
            "voxel_feats": self.voxels.feats,
            "w2c_0": self.rays.w2c_0,
            "pcd_viewdirs": self.rays.voxels,
            "img_rays_pooled": self.rays.frames.reshape(len(self.selection), -1, 3),
            "pcd_features": self.pcd_features,
            "pooled_features": self.pooled_features,
            "video_tokens": self.video_tokens.reshape(-1, self.video_tokens.shape[-1]),
        }


@dataclass
class Answer:
    """An answer that is generated while it is iterated over, piece by piece.

    Attributes:
        view: what the question was asked about.
        prompt: the prompt and its ids.
        prefix_tokens: [latents, d] float32, what the aligner made of scene, clip and question.
        token_ids: ids generated so far, with the stop id if one came.
        text: text generated so far.
        logits_last_prompt: [vocabulary] float32, once the prompt has been read.
        meter: time and memory, by stage.
    """

    view: View
    prompt: Prompt
    prefix_tokens: np.ndarray
    meter: Meter
    _pieces: Iterator[str] = field(repr=False, default_factory=lambda: iter(()))
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logits_last_prompt: np.ndarray | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.text += piece
            yield piece

    @property
    def prompt_tokens(self) -> int:
        """Positions that the prompt takes in the language model."""
        placeholders = 2
        tokens = self.view.video_tokens
        return len(self.prompt.token_ids) - placeholders + len(self.prefix_tokens) + tokens.size // tokens.shape[-1]

    def stages(self) -> dict[str, np.ndarray]:
        """Arrays of all stages by the names that reference tensors carry; the answer must have been read."""
        assert self.logits_last_prompt is not None
        return {
            **self.view.stages(),
            "prefix_tokens": self.prefix_tokens,
            "prompt_token_ids": self.prompt.token_ids,
            "aligner_token_ids": self.prompt.aligner_token_ids,
            "logits_last_prompt": self.logits_last_prompt,
            "token_ids": np.array(self.token_ids, np.int64),
        }
