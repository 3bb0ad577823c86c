"""Collecting a calibration set: a stratified sample of questions, as far as the host takes their scenes and clips."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..export.checkpoint.checkpoint import Checkpoint
from ..export.checkpoint.geometry import Inventory, take_inventory
from ..export.checkpoint.tokenizer import reference_ids
from ..export.int8.calibration import (
    LEAST_SAMPLES,
    CalibrationSet,
    Described,
    Sample,
    preprocessing,
    write_description,
)
from ..runtime.bundle.digests import sha256
from ..runtime.bundle.manifest import Defaults
from ..runtime.console import Progress
from ..runtime.errors import BadInput, require_at_least
from ..runtime.host.pixels import resized
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.inputs.selection import Selection, select_frames, upright
from ..runtime.llm.prompt import build_prompt
from ..runtime.stages import HostStages

__all__ = ["Candidate", "Collection", "chosen_frames", "from_recording", "stratified"]

LOG = logging.getLogger(__name__)
# about clips that come without a question
QUESTIONS = (
    "Where is the table?",
    "How far away is the chair?",
    "Where did the person put the cup?",
    "Which way should I go to reach the door?",
    "Where can I sit down?",
)


@dataclass(frozen=True)
class Candidate:
    """A question that a set may hold.

    Attributes:
        id: of the question.
        kind: its type.
        scene: which scene it is about.
        question: in words.
        load: reads scene and clip, and chooses so many frames.
    """

    id: str
    kind: str
    scene: str
    question: str
    load: Callable[[int], tuple[Scene, Selection]]


def stratified(candidates: Sequence[Candidate], count: int, seed: int) -> list[Candidate]:
    """So many candidates, types in turn and scenes that were taken least first; the same on every machine."""

    def rank(candidate: Candidate) -> bytes:
        return hashlib.sha256(f"{seed} {candidate.id}".encode()).digest()

    left = sorted(candidates, key=rank)
    kinds: Counter[str] = Counter({candidate.kind: 0 for candidate in left})
    scenes: Counter[str] = Counter()
    chosen: list[Candidate] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda one: (kinds[one.kind], scenes[one.scene], rank(one)))
        left.remove(best)
        chosen.append(best)
        kinds[best.kind] += 1
        scenes[best.scene] += 1
    return chosen


def from_recording(scene: Scene, clip: Clip, count: int) -> list[Candidate]:
    """So many candidates of one recording: each takes other frames of the clip, evenly over its length."""

    def load(frames: int, place: int) -> tuple[Scene, Selection]:
        every = select_frames(clip, scene.poses, frames=None, default=count * frames, offset=scene.offset)
        part = slice(place, None, count)
        return upright(scene, clip), Selection(clip, every.indices[part], every.poses[part])

    return [
        Candidate(f"{place}", "recording", "recording", question, partial(load, place=place))
        for place, question in zip(range(count), QUESTIONS * count, strict=False)
    ]


@dataclass(frozen=True)
class Collection:
    """A set that is being written.

    Attributes:
        out: its folder.
        checkpoint: whose tokens the questions become.
        inventory: its sizes.
        defaults: voxels, frames a sample, and whether the prompt states times.
        seed: of the choice.
    """

    out: Path
    checkpoint: Checkpoint
    inventory: Inventory
    defaults: Defaults
    seed: int

    @classmethod
    def open(cls, out: Path, checkpoint: Path, defaults: Defaults, seed: int) -> "Collection":
        """Read what is needed of a checkpoint; raises BadInput where it is no whole ST-LLM."""
        if not defaults.possible:
            raise BadInput(f"--voxel-size {defaults.voxel_size}, --frames {defaults.frames}: expected positive numbers")
        opened = Checkpoint(checkpoint)
        inventory = take_inventory(opened)
        inventory.require_complete(opened.path)
        if reference_ids(opened, "") is None:
            raise BadInput(f"{checkpoint}: has no tokenizer.json, which the questions' tokens come from")
        return cls(out, opened, inventory, defaults, seed)

    def run(self, candidates: Sequence[Candidate], count: int, progress: Progress) -> int:
        """Write the samples that are not there yet; the number that is written now.

        Raises:
            BadInput: there are too few candidates, or the folder holds another set.
        """
        require_at_least({"--samples": (count, LEAST_SAMPLES), "--seed": (self.seed, 0)})
        chosen = stratified(candidates, count, self.seed)
        if len(chosen) < LEAST_SAMPLES:
            raise BadInput(f"there are {len(chosen)} questions to choose from, a set needs at least {LEAST_SAMPLES}")
        made_with = preprocessing(self.inventory.geometry.vision, self.defaults) | {"frames": self.defaults.frames}
        ids, digest = [candidate.id for candidate in chosen], self.checkpoint.digest()
        done = self._resume(digest, made_with, ids)
        begun = len(done)
        if begun:
            LOG.info("%s: goes on after %d of %d samples", self.out, begun, len(chosen))
        with progress.bar("collect", len(chosen) - begun) as advance:
            for place, candidate in enumerate(chosen[begun:], start=begun):
                done.append(self._write(place, candidate))
                write_description(self.out, digest, made_with, self.seed, ids, done)
                advance(1)
        return len(done) - begun

    def _resume(self, digest: str, made_with: dict[str, object], ids: list[str]) -> list[Described]:
        """Samples that an earlier run wrote, as far as they are whole."""
        if not (self.out / "set.json").exists():
            if self.out.exists() and any(self.out.iterdir()):
                raise BadInput(f"--out {self.out}: holds something else; choose an empty folder")
            return []
        found = CalibrationSet(self.out).description
        same = (found.checkpoint, found.preprocessing, found.seed, found.chosen) == (digest, made_with, self.seed, ids)
        if not same:
            raise BadInput(
                f"--out {self.out}: holds a set of another checkpoint, choice or preprocessing; choose an empty folder"
            )
        whole = []
        for sample in found.samples:
            file = self.out / sample.file
            if not file.is_file() or sha256(file) != sample.sha256:
                break
            whole.append(sample)
        return whole

    def _write(self, place: int, candidate: Candidate) -> Described:
        """One sample into its file."""
        scene, selection = candidate.load(self.defaults.frames)
        host = HostStages(self.inventory.geometry.vision, self.defaults.voxel_size)
        voxels = host.voxels(scene)
        rays = host.rays(scene, selection, voxels)
        timing = selection.timing() if self.defaults.time_instruction and selection.clip.times else None
        prompt = build_prompt(candidate.question, self._tokenize, timing=timing)
        size = host.vision.image_size
        frames = np.stack([resized(frame, size) for frame in selection.clip.read(selection.indices)])
        sample = Sample(frames, voxels.coords, voxels.feats, rays.voxels, rays.frames, prompt.aligner_token_ids)
        name = f"samples/{place:03d}.npz"
        sample.save(self.out / name)
        digest = sha256(self.out / name)
        times = None if timing is None else (timing[0], *timing[1])
        return Described(name, digest, candidate.id, candidate.kind, candidate.scene, candidate.question, times)

    def _tokenize(self, text: str, special: bool = True) -> list[int]:
        return reference_ids(self.checkpoint, text, special) or []


def chosen_frames(scene: Scene, clip: Clip, frames: int) -> tuple[Scene, Selection]:
    """A clip's frames, evenly over its length."""
    selection = select_frames(clip, scene.poses, frames=None, default=frames, offset=scene.offset)
    return upright(scene, clip), selection
