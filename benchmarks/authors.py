"""ST-LLM run the way its authors run it: in PyTorch, whole, in float32, with transformers' modules.

The tower and the projector run twice, once for the aligner and once for the prompt, on all frames together. The
Q-Former holds all attention scores of a layer and updates all rows in all layers. The language model gives the logits
of all positions. What each part will take in memory is predicted from sizes alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..export.checkpoint.checkpoint import Checkpoint
from ..export.checkpoint.geometry import PREFIXES, Inventory, build
from ..export.model.aligner import RAY_COLUMNS, encode_all
from ..export.model.parts import load_part
from ..export.model.peers import Qformer, Tower, fill, qwen2_config
from ..export.model.points import MapTensors
from ..runtime.bundle.geometry import Geometry
from ..runtime.host.rays import Rays
from ..runtime.host.voxels import Voxels

__all__ = ["Authors", "AuthorsLlm", "bytes_needed"]

FLOAT = 4
# transformers, and what PyTorch keeps for its threads
LIBRARIES = 100 * 10**6
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


class Authors:
    """The parts of one checkpoint; each method loads its part and gives a function that runs it."""

    def __init__(self, checkpoint: Checkpoint, inventory: Inventory):
        """Load nothing yet."""
        self.checkpoint, self.inventory = checkpoint, inventory

    def vision(self) -> Any:
        """From frames [T, 3, S, S] float32 to video tokens [T*n*(n+1), d] float32."""
        encoder: Any = build(self.inventory.geometry)["vision"].eval()
        encoder.vision_tower["vision_tower"]["vision_model"] = nn.Identity()
        fill(encoder, self.checkpoint.tensor, PREFIXES["vision"])
        tower = Tower(self.checkpoint)

        def run(frames: np.ndarray) -> np.ndarray:
            images = tensor(frames)
            # the first time for the aligner, the second for the prompt
            for _ in range(2):
                pooled = encoder.pool(encoder.mm_projector(tower(images)))
            tokens: np.ndarray = encoder.video_tokens(pooled).numpy()
            return tokens

        return run

    def points(self) -> Any:
        """From voxels to point features [N, features] float32; the kernel maps are part of it."""
        encoder = load_part(self.checkpoint, self.inventory, "points")

        def run(voxels: Voxels) -> np.ndarray:
            features: np.ndarray = encoder(tensor(voxels.feats), MapTensors.build(voxels.coords)).numpy()
            return features

        return run

    def aligner(self) -> Any:
        """From features, rays and words to prefix tokens [latents, d] float32; encoding the rays is part of it."""
        aligner = load_part(self.checkpoint, self.inventory, "aligner")
        geometry = self.inventory.geometry.aligner
        if Qformer.has_form(geometry):
            aligner.qformer = Qformer(self.checkpoint, geometry)

        def run(points: np.ndarray, rays: Rays, pooled: np.ndarray, words: np.ndarray) -> np.ndarray:
            encoded = [encode_all(tensor(values.reshape(-1, 3))) for values in (rays.voxels, rays.frames)]
            frames = tensor(pooled.reshape(-1, pooled.shape[-1]))
            # where the Q-Former is not InstructBLIP's, PyTorch's form that holds all scores
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                prefix = aligner(tensor(points), encoded[0], frames, encoded[1], tensor(words))
            taken: np.ndarray = prefix.numpy()
            return taken

        return run

    def llm(self) -> "AuthorsLlm":
        """The language model, whole."""
        return AuthorsLlm(self.checkpoint)


class AuthorsLlm:
    """Transformers' Qwen2 with the keys and values of one prompt."""

    def __init__(self, checkpoint: Checkpoint):
        """Load all weights as float32."""
        from transformers import Qwen2ForCausalLM

        config = qwen2_config(checkpoint)
        with torch.device("meta"):
            model: Any = Qwen2ForCausalLM(config).eval()

        def stored(name: str) -> Tensor:
            return checkpoint.tensor(EMBEDDING if name == OUTPUT and name not in checkpoint else name)

        fill(model, stored)
        # the rotary frequencies are computed, not stored
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        self._model, self._cache = model, None

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """Rows [L, d] float32 of the embedding matrix."""
        rows: np.ndarray = self._model.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64)).numpy()
        return rows

    def prefill(self, embeddings: np.ndarray) -> np.ndarray:
        """Logits [vocabulary] float32 of the last of the positions [L, d]; those of all are computed."""
        given = self._model(inputs_embeds=tensor(embeddings)[None], use_cache=True)
        self._cache = given.past_key_values
        last: np.ndarray = given.logits[0, -1].numpy()
        return last

    def decode(self, token: int) -> np.ndarray:
        """Logits [vocabulary] float32 after one token more."""
        given = self._model(input_ids=torch.tensor([[token]]), past_key_values=self._cache, use_cache=True)
        self._cache = given.past_key_values
        last: np.ndarray = given.logits[0, -1].numpy()
        return last


def tensor(values: np.ndarray) -> Tensor:
    """An array as PyTorch takes it: what a session keeps must not be written to, which PyTorch would warn of."""
    return torch.from_numpy(np.require(values, requirements="W"))


def bytes_needed(geometry: Geometry, frames: int, voxels: int, text: int) -> dict[str, int]:
    """Bytes that each part takes at its peak, from sizes alone: float32 weights, and the largest arrays of a run.

    Args:
        geometry: of the model.
        frames: frames of the clip.
        voxels: voxels of the scene.
        text: tokens of the prompt, and of the answer.
    """
    vision, aligner, llm = geometry.vision, geometry.aligner, geometry.llm
    patches, pooled = frames * vision.patches, frames * vision.grid**2
    rows = aligner.latents + pooled + text
    positions = aligner.latents + frames * vision.grid * (vision.grid + 1) + text
    values = {
        # a layer's feed-forward part, or the projector
        "vision": patches * max(2 * vision.mlp + 4 * vision.width, 3 * llm.width + vision.width),
        # int32 tables, of which the first convolution's is the largest, and features on both sides of the last layers
        "points": voxels * (2 * 125 + 4 * 27 + 4 * geometry.points.features),
        # scores and their softmax, of all heads at once; rays of 765 columns, their sines and their cosines
        "aligner": 2 * aligner.heads * rows * max(rows, voxels)
        + 3 * rows * aligner.ffn
        + (voxels + pooled) * 4 * RAY_COLUMNS,
        # logits of all positions; keys and values of all layers; a layer's feed-forward part
        "llm": positions * (llm.vocabulary + 2 * llm.layers * llm.kv_heads * llm.head_width + 3 * llm.ffn),
    }
    held = weights(geometry)
    return {part: LIBRARIES + FLOAT * (held[part] + count) for part, count in values.items()}


def weights(geometry: Geometry) -> dict[str, int]:
    """Numbers that each part holds."""
    parts = build(geometry).items()
    held = {part: sum(tensor.numel() for tensor in module.state_dict().values()) for part, module in parts}
    if geometry.llm.tied:
        held["llm"] -= geometry.llm.vocabulary * geometry.llm.width
    return held
