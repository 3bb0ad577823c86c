"""What a calibration set is chosen from: questions of a data set in REA's layout, or one recording."""

from pathlib import Path

from ...calib.collection import Candidate, chosen_frames, from_recording
from ...runtime.errors import BadInput
from ...runtime.inputs.scene import Scene
from ...runtime.inputs.selection import Selection
from ...runtime.options import Recording
from ...runtime.request import read
from ..rea.dataset import ReaDataset, Sample
from ..rea.subset import Subset

__all__ = ["candidates"]


def candidates(rea: Path | None, root: Path | None, subset: str, recording: Recording, count: int) -> list[Candidate]:
    """Questions to choose from; `count` are made of a recording.

    Raises:
        BadInput: neither a data set nor a recording is given, or both, or one of them in part.
    """
    if (rea is None) == (recording.scene is None and recording.video is None):
        raise BadInput("give either --rea FILE with --root DIR, or --scene with --video")
    if rea is None:
        if recording.scene is None or recording.video is None:
            raise BadInput("--scene and --video go together")
        scene, clip = read(recording)
        return from_recording(scene, clip, count)
    if root is None:
        raise BadInput(f"--rea {rea}: --root is missing, the folder that its paths are relative to")
    return [candidate(sample) for sample in Subset(subset).of(ReaDataset(rea, root).samples)]


def candidate(sample: Sample) -> Candidate:
    """A question of the data set."""

    def load(frames: int) -> tuple[Scene, Selection]:
        return chosen_frames(*sample.load(), frames)

    return Candidate(sample.id, sample.question_type, sample.scene_id, sample.question, load)
