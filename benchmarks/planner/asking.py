"""A question about a generated room, asked in a process of its own: time and memory by stage."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.bundle.manifest import Bundle
from ...runtime.errors import StllmError
from ...runtime.inputs.clip import load_clip
from ...runtime.inputs.scene import load_scene
from ...runtime.options import Options
from ...runtime.session import Session
from ..world.rooms import write_room

__all__ = ["Asked", "Taken", "ask"]

QUESTION = "Where is the cup?"
WORD = " then"


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        quant: of the language model.
        frames: of the clip.
        voxels: of the room.
        context: words that the question is longer by.
        questions: one after the other, about the same room and clip.
        new_tokens: of each answer, at the most.
    """

    quant: str
    frames: int
    voxels: int
    context: int = 0
    questions: int = 1
    new_tokens: int = 16


@dataclass(frozen=True)
class Taken:
    """What it took, in all questions together.

    Attributes:
        positions: of a prompt.
        tokens: of an answer.
        voxels: that were occupied.
        milliseconds: by stage.
        peak_mb: by stage, over all processes.
    """

    positions: int
    tokens: int
    voxels: int
    milliseconds: dict[str, float]
    peak_mb: dict[str, float]


def ask(bundle: Path, folder: Path, asked: Asked) -> Taken:
    """Write the room into a folder, and ask; raises StllmError where the question fails, as it says why."""
    if not (folder / "scene").exists():
        write_room(folder, asked.voxels, asked.frames, voxel_size=Bundle(bundle).defaults.voxel_size)
    command = [sys.executable, "-m", __name__, str(bundle), str(folder), json.dumps(asdict(asked))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StllmError(f"{asked}: the question failed ({said[-1]})")
    return Taken(**json.loads(done.stdout))


def answer(bundle: Path, folder: Path, asked: Asked) -> Taken:
    """The work of `ask` inside its process; as `stllm-run` does it, and further questions about what was looked at."""
    with Session(bundle, Options(quant=asked.quant, precision="fp32", cache_memory=0)) as session:
        session.prepare()
        scene, clip = load_scene(folder / "scene"), load_clip(folder / "video")
        view = session.look(scene, clip, frames=asked.frames, max_new_tokens=asked.new_tokens)
        spent, tokens = dict(view.meter.milliseconds), 0
        for _ in range(asked.questions):
            text = QUESTION + WORD * asked.context
            with session.answer(view, text, time_instruction=False, max_new_tokens=asked.new_tokens) as found:
                for _ in found:
                    pass
                tokens = len(found.token_ids)
                for stage, taken in found.meter.milliseconds.items():
                    spent[stage] = spent.get(stage, 0.0) + taken - view.meter.milliseconds.get(stage, 0.0)
                peak, positions = found.meter.peak_bytes, found.prompt_tokens
        return Taken(
            positions=positions,
            tokens=tokens,
            voxels=len(view.voxels),
            milliseconds={stage: round(taken, 3) for stage, taken in spent.items()},
            peak_mb={stage: round(size / 1e6, 1) for stage, size in peak.items()},
        )


if __name__ == "__main__":
    place, room, described = sys.argv[1:]
    try:
        print(json.dumps(asdict(answer(Path(place), Path(room), Asked(**json.loads(described))))))
    except StllmError as error:
        sys.exit(str(error))
