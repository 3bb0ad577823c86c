"""A bundle and the PyTorch model side by side, stage by stage."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..runtime.answer import View
from ..runtime.bundle.manifest import CPU, PORTABLE, TENSORRT, Bundle, BundleWriter
from ..runtime.console import Progress
from ..runtime.encoders.engines import read_sidecar, require_current
from ..runtime.errors import BadBundle
from ..runtime.host.pixels import pixel_values
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.llm.model import Vocabulary
from ..runtime.llm.prompt import Prompt
from ..runtime.options import Options
from ..runtime.session import Session, prefill
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .checkpoint.tokenizer import reference_ids
from .gguf.writer import weight_errors
from .model.aligner import encode_all
from .model.parts import load_part
from .model.points import MapTensors
from .model.streaming import last_logits, round_q8_0, token_embeddings

__all__ = ["POSITIONS", "Row", "Verification"]

LOG = logging.getLogger(__name__)
QUESTION = "After finishing the action in the video, in which direction should the person turn to face the table?"
POSITIONS = 256
BF16_NOTE = "(libllama rounds activations to BF16 too; F16 is closer)"
# whose graphs are compared, in this order; one that several share is run once
COMPARED = (CPU, PORTABLE, TENSORRT)
ENCODER_STAGES = ("vision", "points", "aligner")
# the aligner of a float32 bundle for TensorRT, whose attention has FP16 factors
FUSED = "fp32, FP16 attention"
REL_RMS_LIMITS = {
    (FUSED, "aligner"): 2e-3,
    ("fp32", "vision"): 5e-6,
    ("fp32", "points"): 5e-6,
    ("fp32", "aligner"): 3e-5,
    ("F32", "prefill"): 1e-4,
    ("F16", "prefill"): 2e-3,
    ("BF16", "prefill"): 2e-3,
    ("Q8_0", "prefill"): 0.08,
}
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
COSINE_LIMITS = {("fp16", stage): 0.999 for stage in ENCODER_STAGES}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        part: precision or quantisation.
        stage: stage of the pipeline.
        rel_rms: root mean square of the difference over that of the reference.
        cosine: of the angle between the two.
        passed: whether the limit is kept; None where there is none.
        limit: the limit in words.
        file: the bundle's file that was run.
    """

    part: str
    stage: str
    rel_rms: float
    cosine: float
    passed: bool | None
    limit: str
    file: str = ""

    @classmethod
    def compare(
        cls, part: str, stage: str, ours: np.ndarray, reference: np.ndarray, file: str = "", bounds: str = ""
    ) -> "Row":
        """Compare two arrays of the same shape under the limit of stage and part, or of another part, `bounds`."""
        a, b = (np.asarray(values, np.float64).ravel() for values in (ours, reference))
        rel_rms = float(np.linalg.norm(a - b) / max(np.linalg.norm(b), np.finfo(float).tiny))
        cosine = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny))
        bounds = bounds or part
        if (bounds, stage) in COSINE_LIMITS:
            bound = COSINE_LIMITS[bounds, stage]
            return cls(part, stage, rel_rms, cosine, cosine >= bound, f"cosine >= {bound}", file)
        if (bounds, stage) in REL_RMS_LIMITS:
            bound = REL_RMS_LIMITS[bounds, stage]
            return cls(part, stage, rel_rms, cosine, rel_rms <= bound, f"rel-rms <= {bound:g}", file)
        return cls(part, stage, rel_rms, cosine, None if np.isfinite(rel_rms) else False, "reported", file)

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for what is not a number."""
        return {key: None if value != value else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "·"}[self.passed]
        rel_rms = "" if np.isnan(self.rel_rms) else f"rel-rms {self.rel_rms:.1e}"
        cosine = "" if np.isnan(self.cosine) else f"cosine {self.cosine:.7f}"
        numbers = f"{rel_rms:<15}  {cosine:<16}"
        return f"{mark} {self.part:<7}{self.stage:<8} {numbers}  {self.limit}  {self.file}".rstrip()


@dataclass(frozen=True)
class Reference:
    """What the PyTorch model computes from frames, voxels and the text's embeddings."""

    vision: np.ndarray
    points: np.ndarray
    aligner: np.ndarray


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
        self.checkpoint, self.inventory, self.progress = checkpoint, inventory, progress
        self.scene, self.clip = scene, clip
        self._reference: Reference | None = None
        self._view: View | None = None

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
            rows: list[Row] = []
            files: dict[str, None] = {}
            for provider in COMPARED:
                session = self._session(precision, quants[0], provider)
                new = [name for name in session.files[:-1] if name not in files]
                if not new:
                    continue
                rows += [*self._files(precision, new), *(row for row in self._encoders(session) if row.file in new)]
                files |= dict.fromkeys(new)
            rows += self._engines(precision)
            records[precision] = {"files": list(files), "rows": [row.to_json() for row in rows]}
            yield from rows
        for quant in quants:
            session = self._session(precisions[0], quant)
            rows = [*self._files(quant, session.files[-1:]), *self._language_model(session, positions)]
            records[quant] = {"files": session.files[-1:], "rows": [row.to_json() for row in rows]}
            yield from rows
        with BundleWriter.open(self.bundle.path) as writer:
            for name, record in records.items():
                writer.record_parity(name, record)

    def _require_files(self, precisions: Sequence[str], quants: Sequence[str]) -> None:
        """Raise BadBundle for a file that is not there, before anything is computed."""
        sessions = [self._session(precision, quants[0], provider) for precision in precisions for provider in COMPARED]
        sessions += [self._session(precisions[0], quant) for quant in quants]
        for name in dict.fromkeys(name for session in sessions for name in session.files):
            self.bundle.require_file(name)

    def _session(self, precision: str, quant: str, provider: str = CPU) -> Session:
        options = Options(
            precision=precision,
            quant=quant,
            kv="f32",
            flash_attention=False,
            device="cpu",
            provider=provider,
            literal=precision == "fp16" or provider == TENSORRT,
            repack=False,
        )
        return Session(self.bundle, options, check=False)

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

    def _encoders(self, session: Session) -> Iterator[Row]:
        view = session.look(self.scene, self.clip, frames=self._frames())
        prompt = self._prompt(session, view)
        text = token_embeddings(self.checkpoint, torch.from_numpy(prompt.aligner_token_ids))
        if self._reference is None:
            self._reference = self._compute_reference(view, text)
        self._view = self._view or view
        ours = {"vision": view.video_tokens, "points": view.pcd_features, "aligner": session.align(view, text.numpy())}
        for stage, values in ours.items():
            reference = getattr(self._reference, stage).reshape(values.shape)
            fused = stage == "aligner" and (session.provider, session.precision) == (TENSORRT, "fp32")
            bounds = FUSED if fused else session.precision
            yield Row.compare(session.precision, stage, values, reference, session.graphs[stage].file, bounds)

    def _language_model(self, session: Session, positions: int) -> Iterator[Row]:
        if self._view is None or self._reference is None:
            list(self._encoders(session))
        view, reference = self._view, self._reference
        assert view is not None
        assert reference is not None
        prompt = self._prompt(session, view)
        yield self._compare_prompt(session.quant, prompt)
        yield self._compare_weights(session)

        room = positions - (len(prompt.token_ids) - 2) - len(reference.aligner)
        video = reference.vision.reshape(-1, reference.vision.shape[-1])[: max(room, 1)]
        with session.load_llm(len(prompt.token_ids) + len(reference.aligner) + len(video)) as model:
            prefill(model, prompt, reference.aligner, video)
            ours = model.logits()
        tokens = [
            token_embeddings(self.checkpoint, torch.tensor(ids)) for ids in (prompt.head, prompt.between, prompt.tail)
        ]
        prefix, clip = torch.from_numpy(reference.aligner), torch.from_numpy(video)
        embeddings = torch.cat([tokens[0], prefix, tokens[1], clip, tokens[2]])
        expected = last_logits(self.checkpoint, self.inventory, embeddings, self.progress)
        row = Row.compare(session.quant, "prefill", ours, expected.numpy())
        if session.quant == "Q8_0" and row.passed is False:
            row = self._allow_for_rounding(row, embeddings, expected)
        yield replace(row, limit=f"{row.limit} {BF16_NOTE}") if session.quant == "BF16" else row

    def _allow_for_rounding(self, row: Row, embeddings: Tensor, expected: Tensor) -> Row:
        """Accept what rounding to Q8_0 costs the PyTorch model itself: some models are hard to quantise."""
        rounded = last_logits(self.checkpoint, self.inventory, embeddings, self.progress, round_q8_0)
        bound = 2 * Row.compare(row.part, row.stage, rounded.numpy(), expected.numpy()).rel_rms
        limit = f"{row.limit}, or {bound:.2g}: twice what Q8_0 rounding costs in PyTorch"
        return replace(row, passed=row.rel_rms <= bound, limit=limit)

    def _compare_weights(self, session: Session) -> Row:
        """The tensor of the GGUF file that is furthest from the checkpoint, for its type."""
        errors = weight_errors(self.bundle.file(session.llm.file), self.checkpoint, self.inventory)
        name, (kind, error) = max(errors.items(), key=lambda item: item[1][1] / WEIGHT_LIMITS[item[1][0]])
        bound = WEIGHT_LIMITS[kind]
        passed = bool(error <= bound)
        return Row(session.quant, "weights", error, float("nan"), passed, f"rel-rms <= {bound:g} for {kind} ({name})")

    def _compare_prompt(self, quant: str, prompt: Prompt) -> Row:
        """Token ids by libllama against the tokenizer's own implementation."""
        ours = [*prompt.head, *prompt.between, *prompt.tail]
        pieces = prompt.text.replace("<image>", "<pointcloud>").split("<pointcloud>")
        expected = [reference_ids(self.checkpoint, piece) for piece in pieces]
        if None in expected:
            return Row(quant, "prompt", 0.0, 1.0, None, "no tokenizer.json to compare with")
        same = ours == [token for ids in expected if ids for token in ids]
        return Row(quant, "prompt", 0.0 if same else 1.0, float(same), same, "token ids identical")

    def _prompt(self, session: Session, view: View) -> Prompt:
        vocabulary = Vocabulary(self.bundle.file(session.llm.file))
        timed = None if self.clip.times else False
        return session.prompt(view, QUESTION, vocabulary, time_instruction=timed)

    def _frames(self) -> int | None:
        """The bundle's number of frames, or as many as the clip has."""
        return min(self.bundle.defaults.frames, len(self.clip)) if len(self.clip) else None

    def _compute_reference(self, view: View, text: Tensor) -> Reference:
        size = self.bundle.geometry.vision.image_size
        frames = view.selection.clip.read(view.selection.indices)
        with torch.inference_mode():
            with self.progress.bar("vision in PyTorch", len(view.selection)) as advance:
                vision = load_part(self.checkpoint, self.inventory, "vision")
                pooled = []
                for frame in frames:
                    pooled.append(vision(torch.from_numpy(pixel_values(frame, size))[None]))
                    advance(1)
                tokens = vision.video_tokens(torch.cat(pooled))
            del vision
            with self.progress.stage("points in PyTorch"):
                encoder = load_part(self.checkpoint, self.inventory, "points")
                maps = MapTensors.build(view.voxels.coords)
                points = encoder(torch.from_numpy(view.voxels.feats), maps)
            with self.progress.stage("aligner in PyTorch"):
                aligner = load_part(self.checkpoint, self.inventory, "aligner")
                rays = [encode_all(torch.from_numpy(view.rays.voxels))]
                rays.append(encode_all(torch.from_numpy(view.rays.frames.reshape(-1, 3))))
                prefix = aligner(points, rays[0], torch.cat(pooled).flatten(0, 1), rays[1], text)
        return Reference(tokens.numpy(), points.numpy(), prefix.numpy())
