"""Prompts on which types are judged: a scene and a clip through the PyTorch encoders, with questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...runtime.bundle.manifest import Defaults
from ...runtime.console import Progress
from ...runtime.options import Recording
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from ..encoders import EncoderComparison
from ..language import ask
from ..material import Material
from ..model.reference import Reference
from ..views import opened
from .writer import vocabulary_of

__all__ = ["Prompt", "prompts_of"]

# of a clip, which would drown the text, and would take hours on a large model
MOST_VIDEO_TOKENS = 192


@dataclass(frozen=True)
class Prompt:
    """What a language model reads.

    Attributes:
        embeddings: [L, d] float32.
        text: [L] bool, whose rows are those of the embedding matrix.
    """

    embeddings: Tensor
    text: Tensor

    @classmethod
    def of(cls, pieces: Sequence[tuple[np.ndarray, bool]]) -> "Prompt":
        """From pieces [n, d] float32 and whether each is text."""
        text = np.repeat([said for _, said in pieces], [len(rows) for rows, _ in pieces])
        return cls(torch.from_numpy(np.concatenate([rows for rows, _ in pieces])), torch.from_numpy(text))


def prompts_of(
    checkpoint: Checkpoint, inventory: Inventory, defaults: Defaults, recording: Recording, progress: Progress
) -> list[Prompt]:
    """The questions of a comparison, about one scene and clip; of a long clip, tokens spread over it.

    Raises:
        BadInput: scene or clip cannot be read.
    """
    reference = Reference(checkpoint, inventory, progress)
    with opened(recording, defaults.voxel_size) as (scene, clip), vocabulary_of(checkpoint, inventory) as vocabulary:
        material = Material.read(inventory.geometry.vision, defaults, scene, clip)
        asked = ask(vocabulary.tokenize, material)
        text = reference.embed(asked[0].aligner_token_ids)
        expected = EncoderComparison(checkpoint, inventory, reference, material, text).expected
    video = expected["vision"].reshape(-1, expected["vision"].shape[-1])
    video = video[np.unique(np.linspace(0, len(video) - 1, MOST_VIDEO_TOKENS).astype(int))]
    found = []
    for prompt in asked:
        head, between, tail = (reference.embed(ids) for ids in (prompt.head, prompt.between, prompt.tail))
        pieces = [(head, True), (expected["aligner"], False), (between, True), (video, False), (tail, True)]
        found.append(Prompt.of(pieces))
    return found
