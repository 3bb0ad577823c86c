"""A bundle and the PyTorch model side by side, stage by stage."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.bundle.manifest import CPU, PORTABLE, TENSORRT, Bundle
from ..runtime.bundle.table import FUSED
from ..runtime.bundle.writer import record_comparisons
from ..runtime.console import Progress
from ..runtime.encoders.engines import read_sidecar, require_current
from ..runtime.errors import BadBundle
from ..runtime.host.rays import Rays
from ..runtime.host.voxels import Voxels
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.inputs.selection import Selection, select_frames
from ..runtime.llm.prompt import Prompt, build_prompt
from ..runtime.llm.vocabulary import Vocabulary
from ..runtime.setup import Setup
from ..runtime.stages import HostStages, Stages
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .checkpoint.tokenizer import reference_ids
from .comparison import Row
from .gguf.writer import weight_errors
from .model.reference import Reference
from .model.streaming import round_q8_0

__all__ = ["POSITIONS", "Verification"]

LOG = logging.getLogger(__name__)
QUESTION = "After finishing the action in the video, in which direction should the person turn to face the table?"
POSITIONS = 256
BF16_NOTE = "(libllama rounds activations to BF16 too; F16 is closer)"
# whose graphs are compared, in this order; one that several share is run once
COMPARED = (CPU, PORTABLE, TENSORRT)
# what rounding to a GGUF type may cost a tensor; about twice what it costs normally distributed values
WEIGHT_LIMITS = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.012,
    "Q6_K": 0.04,
    "Q5_K": 0.08,
    "Q5_0": 0.08,
    "Q5_1": 0.08,
    "Q4_K": 0.16,
    "Q4_0": 0.2,
    "Q4_1": 0.16,
    "IQ4_NL": 0.16,
    "IQ4_XS": 0.16,
    "Q3_K": 0.32,
    "Q2_K": 0.6,
}


@dataclass(frozen=True)
class Material:
    """What both sides start from: one scene, clip and question, as far as the host takes them.

    Attributes:
        host: the stages on the host.
        selection: the chosen frames.
        voxels: of the scene.
        rays: view directions.
    """

    host: HostStages
    selection: Selection
    voxels: Voxels
    rays: Rays

    @classmethod
    def of(cls, bundle: Bundle, scene: Scene, clip: Clip) -> "Material":
        """A scene and a clip in the sizes of a bundle; the clip's frames, at most the bundle's number of them."""
        host = HostStages(bundle.geometry.vision, bundle.defaults.voxel_size)
        frames = min(bundle.defaults.frames, len(clip)) if len(clip) else None
        selection = select_frames(clip, scene.poses, frames=frames, default=bundle.defaults.frames, offset=scene.offset)
        voxels = host.voxels(scene)
        return cls(host, selection, voxels, host.rays(scene, selection, voxels))


class Verification:
    """One scene, clip and question through a bundle and through the PyTorch model."""

    def __init__(
        self, bundle: Path, checkpoint: Checkpoint, inventory: Inventory, scene: Scene, clip: Clip, progress: Progress
    ):
        """Open the bundle.

        Raises:
            BadBundle: it cannot be read, or its model has other sizes than the checkpoint.
        """
        self.bundle = Bundle(bundle)
        if self.bundle.geometry != inventory.geometry:
            raise BadBundle(f"{bundle}: was made from a model of other sizes than {checkpoint.path}")
        if not self.bundle.is_of(checkpoint.digest()):
            LOG.warning("%s is not the checkpoint that %s was made from", checkpoint.path, bundle)
        self.checkpoint, self.inventory = checkpoint, inventory
        self.scene, self.clip = scene, clip
        self.reference = Reference(checkpoint, inventory, progress)

    def run(
        self, precisions: Sequence[str] = (), quants: Sequence[str] = (), positions: int = POSITIONS
    ) -> Iterator[Row]:
        """Compare parts, by default all, and keep the result in the manifest.

        Each encoder gets on either side what that side computed before. The language model gets the same embeddings
        of scene and clip on both sides.

        Args:
            precisions: encoders.
            quants: language models.
            positions: longest prompt for the language model; what is too long is cut from the clip's end.

        Raises:
            BadBundle: a part or its file is not there.
        """
        precisions, quants = precisions or self.bundle.precisions, quants or self.bundle.quants
        if not self.bundle.precisions or not self.bundle.quants:
            raise BadBundle(
                f"{self.bundle.path}: verifying takes encoders and a language model, it holds "
                f"{self.bundle.precisions or 'no encoders'} and {self.bundle.quants or 'no language model'}"
            )
        self._require_files(precisions, quants)
        records: dict[str, Any] = {}
        for precision in precisions:
            rows = list(self._encoders(precision, quants[0]))
            files = list(
                dict.fromkeys(name for setup in self._setups(precision, quants[0]) for name in setup.files[:-1])
            )
            records[precision] = {"files": files, "rows": [row.to_json() for row in rows]}
            yield from rows
        for quant in quants:
            setup = self._setup(precisions[0], quant)
            rows = [*self._files(quant, setup.files[-1:]), *self._language_model(setup, positions)]
            records[quant] = {"files": setup.files[-1:], "rows": [row.to_json() for row in rows]}
            yield from rows
        record_comparisons(self.bundle, records)

    def _require_files(self, precisions: Sequence[str], quants: Sequence[str]) -> None:
        """Raise BadBundle for a file that is not there, before anything is computed."""
        setups = [setup for precision in precisions for setup in self._setups(precision, quants[0])]
        setups += [self._setup(precisions[0], quant) for quant in quants]
        for name in dict.fromkeys(name for setup in setups for name in setup.files):
            self.bundle.require_file(name)

    def _setups(self, precision: str, quant: str) -> list[Setup]:
        return [self._setup(precision, quant, provider) for provider in COMPARED]

    def _setup(self, precision: str, quant: str, provider: str = CPU) -> Setup:
        """How a part is run: as exactly as it can be."""
        return Setup(
            self.bundle,
            precision,
            quant,
            kv="f32",
            flash_attention=False,
            provider=provider,
            literal=precision == "fp16" or provider == TENSORRT,
            repack=False,
        )

    @cached_property
    def _material(self) -> Material:
        return Material.of(self.bundle, self.scene, self.clip)

    @cached_property
    def _prompt(self) -> Prompt:
        """The prompt; tokenizers of all language models are compared with the checkpoint's own."""
        return self._tokenised(self.bundle.quants[0])

    def _tokenised(self, quant: str) -> Prompt:
        timed = self.bundle.defaults.time_instruction and self.clip.times
        timing = self._material.selection.timing() if timed else None
        with Vocabulary(self.bundle.file(self.bundle.llm(quant).file)) as vocabulary:
            return build_prompt(QUESTION, vocabulary.tokenize, timing=timing)

    @cached_property
    def _text(self) -> np.ndarray:
        return self.reference.embed(self._prompt.aligner_token_ids)

    @cached_property
    def _expected(self) -> dict[str, np.ndarray]:
        """What PyTorch computes at each encoder's stage."""
        material, reference = self._material, self.reference
        vision = reference.vision(material.host.frames(material.selection), len(material.selection))
        points = reference.points(material.voxels)
        aligner = reference.aligner(points, material.rays, vision[:, :, :-1], self._text)
        return {"vision": vision, "points": points, "aligner": aligner}

    def _encoders(self, precision: str, quant: str) -> Iterator[Row]:
        """Every graph of a precision, each run once, on what the graphs of its provider computed before."""
        computed: dict[tuple[str, ...], np.ndarray] = {}
        checked: set[str] = set()
        for setup in self._setups(precision, quant):
            new = [name for name in setup.files[:-1] if name not in checked]
            checked |= set(new)
            yield from self._files(precision, new)
            with Stages(setup) as stages:
                for stage, values in self._run_encoders(stages, computed):
                    fused = stage == "aligner" and (setup.provider, precision) == (TENSORRT, "fp32")
                    file, bounds = setup.graphs[stage].file, FUSED if fused else precision
                    yield Row.compare(precision, stage, values, self._expected[stage], file, bounds)
        yield from self._engines(precision)

    def _run_encoders(
        self, stages: Stages, computed: dict[tuple[str, ...], np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Outputs of the graphs that have not been run on the same inputs; `computed` remembers all."""
        material, graphs = self._material, stages.setup.graphs
        vision, points = (graphs["vision"].file,), (graphs["points"].file,)
        aligner = (graphs["aligner"].file, *vision, *points)
        if vision not in computed:
            frames = material.host.frames(material.selection)
            computed[vision] = stages.vision(frames, len(material.selection))
            yield "vision", computed[vision]
        if points not in computed:
            computed[points] = np.asarray(stages.points(material.voxels, stages.host.maps(material.voxels)))
            yield "points", computed[points]
        if aligner not in computed:
            rays = material.host.encode_rays(material.rays)
            computed[aligner] = stages.aligner(computed[points], rays, computed[vision][:, :, :-1], self._text)
            yield "aligner", computed[aligner]

    def _files(self, part: str, names: list[str]) -> Iterator[Row]:
        """A failed row where a file is not the one that the manifest describes."""
        try:
            self.bundle.check(names, fresh=True)
        except BadBundle as error:
            LOG.warning("%s", error)
            yield Row(part, "files", float("nan"), float("nan"), False, "SHA-256 as in the manifest")

    def _engines(self, precision: str) -> Iterator[Row]:
        """Whether engines could be loaded on their devices; they are not run."""
        for target, precisions in self.bundle.engines.items():
            if precision not in precisions:
                continue
            passed = True
            for entry in precisions[precision].values():
                try:
                    require_current(self.bundle, entry, read_sidecar(self.bundle, entry), fresh=True)
                except BadBundle as error:
                    LOG.warning("%s; run stllm-export tensorrt --target %s again with --force", error, target)
                    passed = False
            limit = f"{target}: whole, and built from these graphs"
            yield Row(precision, "engines", float("nan"), float("nan"), passed, limit)

    def _language_model(self, setup: Setup, positions: int) -> Iterator[Row]:
        prompt, quant = self._tokenised(setup.quant), setup.quant
        yield compare_prompt(quant, prompt, self.checkpoint)
        yield compare_weights(setup, self.checkpoint, self.inventory)

        prefix, video = self._expected["aligner"], self._expected["vision"]
        room = positions - len(prompt) - len(prefix)
        video = video.reshape(-1, video.shape[-1])[: max(room, 1)]
        with Stages(setup) as stages, stages.speaker.load(len(prompt) + len(prefix) + len(video)) as model:
            ours = stages.prefill(model, prompt, prefix, video)
        expected = self.reference.prefill(prompt, prefix, video)
        row = Row.compare(quant, "prefill", ours, expected)
        if quant == "Q8_0" and row.passed is False:
            # some models are hard to quantise: what rounding costs PyTorch itself is allowed twice
            rounded = self.reference.prefill(prompt, prefix, video, round_q8_0)
            bound = 2 * Row.compare(quant, "prefill", rounded, expected).rel_rms
            limit = f"{row.limit}, or {bound:.2g}: twice what Q8_0 rounding costs in PyTorch"
            row = replace(row, passed=row.rel_rms <= bound, limit=limit)
        yield replace(row, limit=f"{row.limit} {BF16_NOTE}") if quant == "BF16" else row


def compare_weights(setup: Setup, checkpoint: Checkpoint, inventory: Inventory) -> Row:
    """The tensor of the GGUF file that is furthest from the checkpoint, for its type."""
    errors = weight_errors(setup.bundle.file(setup.llm.file), checkpoint, inventory)
    name, (kind, error) = max(errors.items(), key=lambda item: item[1][1] / WEIGHT_LIMITS[item[1][0]])
    bound = WEIGHT_LIMITS[kind]
    passed = bool(error <= bound)
    return Row(setup.quant, "weights", error, float("nan"), passed, f"rel-rms <= {bound:g} for {kind} ({name})")


def compare_prompt(quant: str, prompt: Prompt, checkpoint: Checkpoint) -> Row:
    """Token ids by libllama against the tokenizer's own implementation."""
    ours = [*prompt.head, *prompt.between, *prompt.tail]
    pieces = prompt.text.replace("<image>", "<pointcloud>").split("<pointcloud>")
    expected = [reference_ids(checkpoint, piece) for piece in pieces]
    if None in expected:
        return Row(quant, "prompt", 0.0, 1.0, None, "no tokenizer.json to compare with")
    same = ours == [token for ids in expected if ids for token in ids]
    return Row(quant, "prompt", 0.0 if same else 1.0, float(same), same, "token ids identical")
