"""A question of a workload, as the process that answers it takes it."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.fit.reading import Reading
from ...runtime.inputs.clip import Clip
from ...runtime.inputs.recordings.choices import BagChoices
from ...runtime.inputs.scene import Scene
from ...runtime.options import Recording
from ...runtime.request import read

if TYPE_CHECKING:
    from ..rea.dataset import Sample

__all__ = ["Question"]

RECORDING, SAMPLE = "recording", "sample"


@dataclass(frozen=True)
class Question:
    """A question and where its scene and clip are.

    Attributes:
        id: unique within a workload.
        text: in words.
        other: another question about the same scene and clip.
        source: their files.
    """

    id: str
    text: str
    other: str
    source: "Recording | Sample"

    def load(self) -> tuple[Scene, Clip, Reading | None]:
        """Scene, clip and what is known of their units; raises BadInput where a file is not what it has to be."""
        if isinstance(self.source, Recording):
            return *read(self.source), Reading.of(self.source.scale, self.source.intrinsics_of)
        return *self.source.load(), None

    def to_json(self) -> dict[str, Any]:
        """As another process takes it."""
        kind = RECORDING if isinstance(self.source, Recording) else SAMPLE
        told = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.source).items()}
        return {"id": self.id, "text": self.text, "other": self.other, kind: told}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Question":
        """From `to_json`."""
        kind: type[Any] = Recording
        if SAMPLE in told:
            # a process that is measured imports what its own question needs
            from ..rea.dataset import Sample

            kind = Sample
        values = told.get(RECORDING) or told[SAMPLE]
        for each in fields(kind):
            if "Path" in str(each.type) and values[each.name] is not None:
                values[each.name] = Path(values[each.name])
        if "bag_choices" in values:
            values["bag_choices"] = BagChoices(**values["bag_choices"])
        return cls(told["id"], told["text"], told["other"], kind(**values))
