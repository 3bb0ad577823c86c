"""A calibration set on disk: what the encoders take, of a sample of questions, scenes and clips.

    SET/
      set.json            what it was made with, and its samples
      samples/NNN.npz     one question with its scene and clip, as far as the host takes them

Pixels are stored as bytes and directions and colours as bfloat16, which they are: nothing is lost.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...runtime.bundle.digests import joint_digest, sha256
from ...runtime.bundle.files import atomic_path
from ...runtime.bundle.geometry import VisionGeometry
from ...runtime.bundle.manifest import Defaults
from ...runtime.bundle.values import typed
from ...runtime.errors import BadInput
from ...runtime.host.maps import KernelMaps
from ...runtime.host.pixels import normalised
from ...runtime.host.rays import encode_directions
from ..checkpoint.checkpoint import Checkpoint
from ..model.streaming import token_embeddings
from ..onnx.inputs import EncoderInputs

__all__ = ["LEAST_SAMPLES", "CalibrationSet", "Described", "Sample", "preprocessing", "write_description"]

SCHEMA = 1
FILE, FOLDER = "set.json", "samples"
# one in four is held out, so that nothing is judged by what it was fitted to
HELD_OUT = 4
LEAST_SAMPLES = HELD_OUT
# changes with what `runtime.host` makes of the same files
HOST_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One question with its scene and clip.

    Attributes:
        frames: [T, S, S, 3] uint8, resized.
        coords: [N, 3] int32 voxels.
        feats: [N, 3] float32 colours, exact bfloat16 values.
        voxel_rays: [N, 3] float32 directions, exact bfloat16 values.
        frame_rays: [T, n, n, 3] float32 directions, exact bfloat16 values.
        ids: [L] int64 tokens that the aligner reads.
    """

    frames: np.ndarray
    coords: np.ndarray
    feats: np.ndarray
    voxel_rays: np.ndarray
    frame_rays: np.ndarray
    ids: np.ndarray

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        arrays = asdict(self)
        for name in ("feats", "voxel_rays", "frame_rays"):
            arrays[name] = (arrays[name].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Sample":
        """Read it; raises BadInput where it is not what `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in cls.__dataclass_fields__}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise BadInput(f"{path}: is no sample of a calibration set ({error}); collect the set again") from None
        for name in ("feats", "voxel_rays", "frame_rays"):
            arrays[name] = (arrays[name].astype(np.uint32) << 16).view(np.float32)
        return cls(**arrays)


@dataclass(frozen=True)
class Described:
    """What the description of a set says of one sample.

    Attributes:
        file: inside the set.
        sha256: of the file.
        id: of the question.
        kind: type of the question.
        scene: which scene.
        question: in words.
        timing: length of the clip and times of the frames, where the prompt states them.
    """

    file: str
    sha256: str
    id: str
    kind: str
    scene: str
    question: str
    timing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Description:
    """What a set was made with.

    Attributes:
        schema: of this file.
        checkpoint: SHA-256.
        preprocessing: what the host's stages depend on, by name.
        seed: of the choice.
        chosen: ids of all samples that belong to it, in their order.
        samples: those that are there.
    """

    schema: int
    checkpoint: str
    preprocessing: dict[str, Any]
    seed: int
    chosen: list[str]
    samples: list[Described]


def preprocessing(vision: VisionGeometry, defaults: Defaults) -> dict[str, Any]:
    """What the stages on the host depend on; the number of frames is a set's own."""
    return {
        "host": HOST_VERSION,
        "image_size": vision.image_size,
        "grid": vision.grid,
        "voxel_size": defaults.voxel_size,
        "time_instruction": defaults.time_instruction,
    }


class CalibrationSet:
    """A set opened for reading.

    Attributes:
        path: its folder.
        description: what it was made with.
    """

    def __init__(self, path: Path):
        """Read the description.

        Raises:
            BadInput: it is no calibration set.
        """
        self.path = path
        try:
            found = json.loads((path / FILE).read_text(encoding="utf-8"))
            self.description: Description = typed(Description, found, "set")
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"{path}: no {FILE}; make a set with stllm-calib collect --out {path}") from None
        except OSError as error:
            raise BadInput(f"{path / FILE}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path / FILE}: damaged ({error}); collect the set again") from None
        if self.description.schema != SCHEMA:
            raise BadInput(f"{path}: schema {self.description.schema}, this program reads {SCHEMA}; collect it again")

    def require(self, checkpoint: str, expected: Mapping[str, Any]) -> None:
        """Check that the set is whole, large enough, and of this checkpoint and preprocessing.

        Raises:
            BadInput: it is not; the message says what differs.
        """
        described = self.description
        if described.checkpoint != checkpoint:
            raise BadInput(
                f"--calibration {self.path}: was collected for the checkpoint {described.checkpoint[:12]}, this one is "
                f"{checkpoint[:12]}; collect a set for it"
            )
        for name, value in expected.items():
            if described.preprocessing.get(name) != value:
                raise BadInput(
                    f"--calibration {self.path}: was collected with {name} {described.preprocessing.get(name)}, the "
                    f"bundle has {value}; collect it again"
                )
        if len(described.samples) < len(described.chosen):
            raise BadInput(
                f"--calibration {self.path}: holds {len(described.samples)} of {len(described.chosen)} samples; run "
                "the same stllm-calib collect again, it goes on where it stopped"
            )
        if len(described.samples) < LEAST_SAMPLES:
            raise BadInput(
                f"--calibration {self.path}: holds {len(described.samples)} samples, at least {LEAST_SAMPLES} are "
                f"needed: one in {HELD_OUT} is held out to judge by"
            )
        for sample in described.samples:
            file = self.path / sample.file
            if not file.resolve().is_relative_to(self.path.resolve()) or not file.is_file():
                raise BadInput(f"{file}: missing; run the same stllm-calib collect again")
            if sha256(file) != sample.sha256:
                raise BadInput(f"{file}: its SHA-256 is not that in {FILE}; collect the set again")

    def __len__(self) -> int:
        return len(self.description.samples)

    @property
    def held_out(self) -> list[int]:
        """Samples that nothing is fitted to."""
        return [place for place in range(len(self)) if place % HELD_OUT == HELD_OUT - 1]

    @property
    def fitted(self) -> list[int]:
        """The others."""
        return [place for place in range(len(self)) if place % HELD_OUT != HELD_OUT - 1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all samples."""
        return joint_digest({sample.file: sample.sha256 for sample in self.description.samples})

    def sample(self, place: int) -> Sample:
        """One sample; raises BadInput where its file is damaged."""
        return Sample.load(self.path / self.description.samples[place].file)

    def inputs(self, place: int, checkpoint: Checkpoint, map_format: str = "slabs") -> EncoderInputs:
        """What the encoders take for one sample."""
        sample = self.sample(place)
        pixels = normalised(sample.frames.transpose(0, 3, 1, 2))
        rays = (encode_directions(sample.voxel_rays), encode_directions(sample.frame_rays.reshape(-1, 3)))
        return EncoderInputs(
            torch.from_numpy(np.ascontiguousarray(pixels)),
            torch.from_numpy(sample.feats.copy()),
            KernelMaps.build(sample.coords, map_format),
            (torch.from_numpy(rays[0]), torch.from_numpy(rays[1])),
            token_embeddings(checkpoint, torch.from_numpy(sample.ids)),
        )


def write_description(
    path: Path,
    checkpoint: str,
    made_with: Mapping[str, Any],
    seed: int,
    chosen: Sequence[str],
    samples: Sequence[Described],
) -> None:
    """Write what a set is, whole or not at all; `Description` says what the arguments are."""
    described = Description(SCHEMA, checkpoint, dict(made_with), seed, list(chosen), list(samples))
    with atomic_path(path / FILE) as temporary:
        temporary.write_text(json.dumps(asdict(described), indent=1) + "\n", encoding="utf-8")
