"""Train the small ST-LLM on a generated data set: encoders on what they see, then the rest on answers.

stllm-bench rea synth --out world --scenes 2200 --seed 1
python -m stllm_edge.benchmarks.training.train --rea world --out small
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from ...export.model.points import MapTensors
from ...runtime.errors import StllmError
from ...runtime.host.pixels import normalised
from ...runtime.llm.prompt import SYSTEM
from ..rea.dataset import ReaDataset
from ..world.furniture import COLOURS, KINDS
from .checkpoint import save
from .features import FLOOR, Clip, Question, Room, load_rooms
from .language import Guides, SeenClip, answers
from .model import SMALL, SmallModel
from .stage import Stage
from .text import Tokens, encode, train_tokenizer

__all__ = ["main"]

LOG = logging.getLogger(__name__)
THREADS = 2
ROOMS_A_STEP = 2
FRAMES_A_STEP = 64
CLIPS_A_STEP = 4
LABELLED_FRAMES = 2  # at a clip's end, where the target fills the view


@dataclass(frozen=True)
class Steps:
    """Steps of each stage."""

    points: int
    vision: int
    language: int


def main() -> None:
    """Train and write a checkpoint."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rea", type=Path, required=True, help="folder of `stllm-bench rea synth`")
    parser.add_argument("--out", type=Path, required=True, help="gets the checkpoint, and state/ to take up from")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument(
        "--steps", type=int, nargs=3, default=(1500, 1500, 1000), metavar=("POINTS", "VISION", "LANGUAGE")
    )
    parser.add_argument("--blind", action="store_true", help="train a model that reads the questions alone")
    values = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(THREADS)
    try:
        train(values.rea, values.out, values.seed, Steps(*values.steps), values.blind)
    except StllmError as error:
        parser.exit(2, f"{error}\n")


def train(rea: Path, out: Path, seed: int, steps: Steps, blind: bool) -> None:
    dataset, unseen = (ReaDataset(rea / f"{part}.json", rea) for part in ("train", "val"))
    state, origin = out / "state", f"seed {seed}, {dataset.digest}"
    state.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts(dataset), SMALL.llm.vocabulary)
    rooms = load_rooms(dataset, rea / "world", SMALL)
    model = SmallModel(SMALL, seed)
    model.specialise()
    if not blind:
        train_points(model, rooms, Stage("points", steps.points, 2e-3, state, origin), seed)
        train_vision(model, rooms, Stage("vision", steps.vision, 1e-3, state, origin), seed)
    items = [Item.of(model, room, tokenizer, blind) for room in rooms]
    train_language(model, items, Stage("blind" if blind else "language", steps.language, 1e-3, state, origin), seed)
    if not blind:
        save(model, tokenizer, out / "checkpoint")
    held_back = load_rooms(unseen, rea / "world", SMALL)
    for line in evaluate(model, [Item.of(model, room, tokenizer, blind) for room in held_back]):
        LOG.info("%s", line)


def texts(dataset: ReaDataset) -> Iterator[str]:
    """What the tokenizer learns from."""
    yield from [SYSTEM, "system\n", "user\n", "assistant\n"] * 100
    for sample in dataset.samples:
        yield sample.question
        yield sample.answer


def train_points(model: SmallModel, rooms: Sequence[Room], stage: Stage, seed: int) -> None:
    """The point encoder learns kind, colour and height of every voxel, as the released one was trained on labels."""
    torch.manual_seed(seed)
    outputs = len(KINDS) + 2, len(COLOURS) + 1, 1
    head = nn.Linear(model.geometry.points.features, sum(outputs))

    def step(number: int) -> dict[str, Tensor]:
        # by the number of the step: a run that was stopped continues with the batches that it would have had
        generator = np.random.default_rng([seed, 1, number])
        chosen = [rooms[index] for index in generator.choice(len(rooms), ROOMS_A_STEP)]
        predicted, kinds, colours, heights = [], [], [], []
        for room in chosen:
            coords, feats = flipped(room, generator)
            predicted.append(head(model.points(feats, MapTensors.build(coords))))
            known = room.pieces >= 0
            kinds.append(np.where(known, room.kinds[room.pieces], len(KINDS) + (room.pieces == FLOOR)))
            colours.append(np.where(known, room.colours[room.pieces], len(COLOURS)))
            heights.append(room.heights)
        kind, colour, height = torch.cat(predicted).split(outputs, dim=1)
        truth = torch.from_numpy(np.concatenate(kinds))
        return {
            "loss kind": F.cross_entropy(kind, truth, weight=class_weights),
            "loss colour": F.cross_entropy(colour, torch.from_numpy(np.concatenate(colours))),
            "loss height": F.mse_loss(height[:, 0], torch.from_numpy(np.concatenate(heights))),
            "kinds right": (kind.argmax(1) == truth)[truth < len(KINDS)].float().mean(),
        }

    # most voxels are floor or wall
    class_weights = torch.tensor([1.0] * len(KINDS) + [0.3] * 2)
    modules = nn.ModuleDict({"points": model.points, "head": head})
    stage.run(modules, modules.parameters(), step)


def flipped(room: Room, generator: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """A room turned by quarters and mirrored at random: voxels [N, 3] and colours [N, 3]."""
    # kind, colour and height stay the same wherever x and y point
    coords = room.coords.copy()
    if generator.random() < 0.5:
        coords[:, :2] = coords[:, 1::-1]
    for axis in range(2):
        if generator.random() < 0.5:
            coords[:, axis] = coords[:, axis].max() - coords[:, axis]
    return coords, torch.from_numpy(room.feats)


def train_vision(model: SmallModel, rooms: Sequence[Room], stage: Stage, seed: int) -> None:
    """Tower and projector learn kind and colour of what fills the last frames."""
    clips = [(room, clip) for room in rooms for clip in room.clips]
    torch.manual_seed(seed)
    outputs = len(KINDS), len(COLOURS)
    head = nn.Linear(model.geometry.llm.width, sum(outputs))

    def step(number: int) -> dict[str, Tensor]:
        generator = np.random.default_rng([seed, 2, number])
        chosen = [clips[index] for index in generator.choice(len(clips), FRAMES_A_STEP)]
        frames = []
        for _, clip in chosen:
            frame = clip.pixels[-1 - generator.integers(LABELLED_FRAMES)]
            frames.append(shaken(frame, generator))
        pooled = model.vision(pixels(np.stack(frames)))
        kind, colour = head(pooled.mean(dim=1)).split(outputs, dim=1)
        kinds = torch.tensor([room.kinds[clip.target] for room, clip in chosen])
        colours = torch.tensor([room.colours[clip.target] for room, clip in chosen])
        return {
            "loss kind": F.cross_entropy(kind, kinds),
            "loss colour": F.cross_entropy(colour, colours),
            "kinds right": (kind.argmax(1) == kinds).float().mean(),
            "colours right": (colour.argmax(1) == colours).float().mean(),
        }

    modules = nn.ModuleDict({"vision": model.vision, "head": head})
    stage.run(modules, modules.parameters(), step)


def shaken(frame: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A frame [S, S, 3] mirrored and moved a little at random."""
    if generator.random() < 0.5:
        frame = frame[:, ::-1]
    down, right = generator.integers(-6, 7, 2)
    padded = np.pad(frame, ((6, 6), (6, 6), (0, 0)), mode="edge")
    return padded[6 + down :, 6 + right :][: len(frame), : len(frame)]


def pixels(frames: np.ndarray) -> Tensor:
    """[T, S, S, 3] uint8 as the tower takes them."""
    return torch.from_numpy(normalised(frames).transpose(0, 3, 1, 2).copy())


@dataclass(frozen=True)
class Item:
    """A room with its clips as the encoders, which train no more, see them, and tokens of the questions."""

    room: Room
    clips: tuple[Clip, ...]
    points: Tensor
    frames: tuple[Tensor, ...]
    videos: tuple[Tensor, ...]
    tokens: tuple[tuple[Tokens, ...], ...]

    @classmethod
    @torch.inference_mode()
    def of(cls, model: SmallModel, room: Room, tokenizer: Tokenizer, blind: bool) -> "Item":
        tokens = tuple(tuple(encode(tokenizer, q.text, q.answer) for q in clip.questions) for clip in room.clips)
        if blind:
            return cls(room, room.clips, torch.empty(0), (), (), tokens)
        model.eval()
        points = model.points(torch.from_numpy(room.feats), MapTensors.build(room.coords))
        pooled = [model.vision(pixels(clip.pixels)) for clip in room.clips]
        # in half precision, because all rooms are kept at once
        videos = tuple(model.vision.video_tokens(each).half() for each in pooled)
        return cls(room, room.clips, points.half(), tuple(each.flatten(0, 1).half() for each in pooled), videos, tokens)

    def seen(self, clip: int) -> SeenClip | None:
        """What the encoders make of a clip; None for a model that only reads."""
        if not self.frames:
            return None
        rays = self.clips[clip]
        return SeenClip(
            points=self.points.float(),
            point_rays=torch.from_numpy(rays.point_rays),
            frames=self.frames[clip].float(),
            frame_rays=torch.from_numpy(rays.frame_rays),
            video=self.videos[clip].float(),
        )


def train_language(model: SmallModel, items: Sequence[Item], stage: Stage, seed: int) -> None:
    """Aligner and language model learn to answer."""
    torch.manual_seed(seed)
    guides = Guides(model)
    clips = [(item, clip) for item in items for clip in range(len(item.clips))]

    def step(number: int) -> dict[str, Tensor]:
        generator = np.random.default_rng([seed, 3, number])
        chosen = [clips[index] for index in generator.choice(len(clips), CLIPS_A_STEP)]
        outcome = answers(
            model, [item.seen(clip) for item, clip in chosen], [item.tokens[clip] for item, clip in chosen]
        )
        terms = {"loss": outcome.loss, "right": outcome.correct.float().mean()}
        questions = [question for item, clip in chosen for question in item.clips[clip].questions]
        if len(outcome.prefix):
            places = torch.from_numpy(np.stack([question.place for question in questions]))
            inside = [asked_voxels(item.room, item.clips[clip].questions) for item, clip in chosen]
            terms |= {
                "loss place": guides.place_loss(outcome.prefix, places),
                "loss attention": 0.1 * guides.attention_loss(inside),
            }
        return terms

    modules = nn.ModuleDict({"aligner": model.aligner, "llm": model.llm, "guides": guides})
    stage.run(modules, modules.parameters(), step)


def asked_voxels(room: Room, questions: Sequence[Question]) -> Tensor:
    """Which voxels belong to the object of each question, [Q, N] bool."""
    # a number that no voxel has: -1 is the floor's
    pieces = np.array([question.piece if question.piece >= 0 else np.iinfo(np.int16).max for question in questions])
    return torch.from_numpy(room.pieces == pieces[:, None])


@torch.inference_mode()
def evaluate(model: SmallModel, items: Sequence[Item]) -> Iterator[str]:
    """Share of complete answers that greedy decoding gets right, by question type."""
    model.eval()
    right: dict[str, list[bool]] = {}
    for item in items:
        for clip in range(len(item.clips)):
            outcome = answers(model, [item.seen(clip)], [item.tokens[clip]])
            for question, correct in zip(item.clips[clip].questions, outcome.correct.tolist(), strict=True):
                right.setdefault(question.type, []).append(correct)
    for name, values in right.items():
        yield f"{name}: {100 * np.mean(values):.1f} % of {len(values)}"
    yield f"all: {100 * np.mean([value for values in right.values() for value in values]):.1f} %"


if __name__ == "__main__":
    main()
