"""The loss of answers: aligner and language model over batches of questions about the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ...export.model.llm import Qwen2, rotary_tables
from .model import SmallModel, low_rays
from .text import Tokens

__all__ = ["Guides", "Outcome", "SeenClip", "answers", "hidden_after"]

IGNORED = -100


@dataclass(frozen=True)
class SeenClip:
    """What encoders make of a scene and a clip.

    Attributes:
        points: [N, features] float32 point features.
        point_rays: [N, 3] float32 directions from the first camera to the voxels.
        frames: [T*n*n, d] float32 pooled features.
        frame_rays: [T*n*n, 3] float32 directions of the pooled pixels.
        video: [V, d] float32 video tokens.
    """

    points: Tensor
    point_rays: Tensor
    frames: Tensor
    frame_rays: Tensor
    video: Tensor


@dataclass(frozen=True)
class Outcome:
    """The outcome of a batch of questions.

    Attributes:
        loss: mean cross-entropy of the answers' tokens.
        correct: [B] bool, whether greedy decoding gives the complete answer: every token is the most likely after
            the right ones before it.
        prefix: [B, latents, d].
    """

    loss: Tensor
    correct: Tensor
    prefix: Tensor


class Guides(nn.Module):
    """What training asks of the aligner besides answers: to attend to the object in question, and to know where it is.

    Nothing of it is part of the checkpoint.
    """

    def __init__(self, model: SmallModel):
        super().__init__()
        self.place = nn.Linear(model.geometry.llm.width, 3)
        self.latents = model.geometry.aligner.latents // 2
        self.attentions = [
            layer.crossattention.attention
            for layer in model.aligner.qformer.encoder["layer"]
            if layer.crossattention is not None
        ]
        self.seen: list[tuple[Any, Tensor, Tensor]] = []
        for attention in self.attentions:
            attention.register_forward_hook(self._keep)

    def _keep(self, attention: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        if self.training:
            self.seen.append((attention, inputs[0], inputs[1]))

    def attention_loss(self, objects: Sequence[Tensor]) -> Tensor:
        """Negative logarithm of what the first head of half the latents gives to the objects in question.

        Args:
            objects: for each clip [Q, N] bool, the voxels of each question's object; a question without one has none.
        """
        losses = []
        layers = len(self.attentions)
        for index, (attention, rows, points) in enumerate(self.seen):
            inside = objects[index // layers]
            width = attention.query.out_features // attention.heads
            asked = inside.any(dim=1)
            query = F.linear(rows[asked, : self.latents], attention.query.weight[:width], attention.query.bias[:width])
            # without its bias, which adds the same to all scores of a row
            key = F.linear(points, attention.key.weight[:width])
            scores = (query @ key.T) * width**-0.5
            hidden = scores.masked_fill(~inside[asked][:, None], float("-inf"))
            losses.append((scores.logsumexp(-1) - hidden.logsumexp(-1)).mean(dim=1))
        self.seen.clear()
        found = torch.cat(losses)
        return found.mean() if len(found) else found.sum()

    def place_loss(self, prefix: Tensor, places: Tensor) -> Tensor:
        """Mean square error of direction (cosine, sine) and log distance [B, 3], without rows that are NaN."""
        known = places.isfinite().all(dim=1)
        error = (self.place(prefix[known].mean(dim=1)) - places[known]) ** 2
        return error.mean() if known.any() else error.sum()


def answers(model: SmallModel, clips: Sequence[SeenClip | None], questions: Sequence[Sequence[Tokens]]) -> Outcome:
    """Read questions about clips and judge the answers' tokens.

    Args:
        model: the model.
        clips: what was seen; None for a model that only reads.
        questions: for each clip its questions.
    """
    embed = model.llm.model["embed_tokens"]
    prompt = questions[0][0].prompt
    head = embed(torch.tensor([prompt.head]))
    between = embed(torch.tensor(prompt.between)).expand(sum(map(len, questions)), -1, -1)
    prefix = [align(model, clip, group) for clip, group in zip(clips, questions, strict=True) if clip is not None]
    video = [
        clip.video.expand(len(group), -1, -1) for clip, group in zip(clips, questions, strict=True) if clip is not None
    ]
    before = [*([torch.cat(prefix)] if prefix else []), between, *([torch.cat(video)] if video else [])]

    asked = [torch.tensor([*q.prompt.tail, *q.answer]) for group in questions for q in group]
    targets = [torch.tensor([IGNORED] * len(q.prompt.tail) + list(q.answer)) for group in questions for q in group]
    ids = pad_sequence(asked, batch_first=True)
    target = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    hidden = hidden_after(model.llm, head, torch.cat([*before, embed(ids)], dim=1))[:, -ids.shape[1] - 1 : -1]
    judged = target != IGNORED
    logits = model.llm.lm_head(hidden[judged])
    right = judged.new_ones(judged.shape)
    right[judged] = logits.argmax(dim=1) == target[judged]
    return Outcome(
        loss=F.cross_entropy(logits, target[judged]),
        correct=right.all(dim=1),
        prefix=torch.cat(prefix) if prefix else torch.empty(0),
    )


def hidden_after(llm: Qwen2, head: Tensor, rest: Tensor) -> Tensor:
    """What `llm.hidden` gives at the ends of sequences with a common beginning, which is computed once.

    Args:
        llm: the language model.
        head: [1, H, d] embeddings that all sequences begin with.
        rest: [B, L, d] embeddings of the remainders.
    """
    split = head.shape[1]
    tables = rotary_tables(llm.geometry, split + rest.shape[1])
    first, then = tuple(table[:split] for table in tables), tuple(table[split:] for table in tables)
    # moved by the common beginning, all of which every position sees
    seen = torch.ones(rest.shape[1], split + rest.shape[1], dtype=torch.bool).tril(split)
    layers: Any = llm.model["layers"]
    for layer in layers:
        attention = layer.self_attn
        _, *shared = attention.project(layer.input_layernorm(head), first)
        query, *own = attention.project(layer.input_layernorm(rest), then)
        key, value = (torch.cat([a.expand(len(rest), -1, -1, -1), b], dim=2) for a, b in zip(shared, own, strict=True))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        rest = rest + attention.mix(mixed)
        rest = rest + layer.mlp(layer.post_attention_layernorm(rest))
        head = layer(head, first)
    return llm.model["norm"](rest)


def align(model: SmallModel, clip: SeenClip, questions: Sequence[Tokens]) -> Tensor:
    """Prefix tokens [Q, latents, d]."""
    ids = [torch.from_numpy(question.prompt.aligner_token_ids) for question in questions]
    text = model.llm.model["embed_tokens"](pad_sequence(ids, batch_first=True))
    mask = torch.arange(text.shape[1]) < torch.tensor([[len(row)] for row in ids])
    return model.aligner(clip.points, low_rays(clip.point_rays), clip.frames, low_rays(clip.frame_rays), text, mask)
