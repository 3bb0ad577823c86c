"""A data set answered by the PyTorch model, greedily: what an exported bundle's answers are compared with.

python -m stllm_edge.benchmarks.training.answer --ckpt small --rea world/val.json --root world --out pytorch
stllm-bench rea compare bundle-run/results.jsonl pytorch/results.jsonl
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.model.aligner import encode_all
from ...export.model.points import MapTensors
from ...runtime.console import Progress
from ...runtime.errors import StllmError
from ...runtime.inputs.selection import select_frames
from ...runtime.stages import HostStages
from ..rea.dataset import ReaDataset, Sample, by_clip
from ..rea.results import Header, Record, record_of, write_predictions, write_results
from ..rea.swap import SWAPS, swap
from ..scoring.score import score
from .checkpoint import load
from .features import FRAMES, VOXEL_SIZE
from .model import SmallModel
from .text import END, encode

__all__ = ["main"]

LONGEST = 32


def main() -> None:
    """Answer all questions of a JSON file; the score goes to stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint that training wrote")
    parser.add_argument("--rea", type=Path, required=True, help="JSON file")
    parser.add_argument("--root", type=Path, required=True, help="folder that its paths are relative to")
    parser.add_argument("--out", type=Path, required=True, help="gets results.jsonl and predictions.json")
    parser.add_argument("--swap", choices=SWAPS, help="show what belongs to the next room")
    values = parser.parse_args()
    try:
        answer(values.ckpt, values.rea, values.root, values.out, values.swap)
    except StllmError as error:
        parser.exit(2, f"{error}\n")


def answer(checkpoint: Path, rea: Path, root: Path, out: Path, swapped: str | None) -> None:
    """Answer all questions of a JSON file, write results and predictions, and print the score."""
    dataset = ReaDataset(rea, root)
    samples = swap(dataset.samples, swapped) if swapped else list(dataset.samples)
    model, tokenizer = load(checkpoint)
    records: list[Record] = []
    with Progress(False).bar("answer", len(samples)) as advance, torch.inference_mode():
        for group in by_clip(samples):
            records += answer_clip(model, tokenizer, group)
            advance(len(group))
    header = Header(
        bundle=Checkpoint(checkpoint).digest(),
        rea=dataset.digest,
        options={"swap": swapped},
        subset={},
        ids=[sample.id for sample in samples],
    )
    out.mkdir(parents=True, exist_ok=True)
    write_results(out / "results.jsonl", header, records)
    write_predictions(out / "predictions.json", header, records)
    print(score(records))


def answer_clip(model: SmallModel, tokenizer: Tokenizer, samples: Sequence[Sample]) -> Iterator[Record]:
    """Answers to samples about the same scene and clip."""
    scene, clip = samples[0].load()
    host = HostStages(model.geometry.vision, VOXEL_SIZE)
    voxels = host.voxels(scene)
    selection = select_frames(clip, scene.poses, frames=FRAMES, default=FRAMES, offset=scene.offset)
    rays = host.rays(scene, selection, voxels)
    frames = [torch.from_numpy(pixels) for pixels in host.frames(selection)]
    pooled = model.vision(torch.stack(frames))
    points = model.points(torch.from_numpy(voxels.feats), MapTensors.build(voxels.coords))
    point_rays, frame_rays = (encode_all(torch.from_numpy(r.reshape(-1, 3))) for r in (rays.voxels, rays.frames))
    embed, (end,) = model.llm.model["embed_tokens"], tokenizer.encode(END).ids
    for sample in samples:
        prompt = encode(tokenizer, sample.question, "").prompt
        text = embed(torch.from_numpy(prompt.aligner_token_ids))
        prefix = model.aligner(points, point_rays, pooled.flatten(0, 1), frame_rays, text)
        head, between, tail = (embed(torch.tensor(ids)) for ids in (prompt.head, prompt.between, prompt.tail))
        embeddings = torch.cat([head, prefix, between, model.vision.video_tokens(pooled), tail])
        yield record_of(sample, tokenizer.decode(greedy(model, embeddings, end)))


def greedy(model: SmallModel, embeddings: Tensor, end: int) -> list[int]:
    """Ids of the most likely continuation of a prompt [L, d], without the end token."""
    ids: list[int] = []
    while len(ids) < LONGEST:
        # nothing is kept from token to token: prompts are short, and a cache would be one more thing to compare
        token = int(model.llm(embeddings[None])[0].argmax())
        if token == end:
            break
        ids.append(token)
        embeddings = torch.cat([embeddings, model.llm.model["embed_tokens"](torch.tensor([token]))])
    return ids


if __name__ == "__main__":
    main()
