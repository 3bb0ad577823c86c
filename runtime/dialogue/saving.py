"""A conversation on disk: features of scene and clip, the transcript, and its keys and values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..answer import View
from ..bundle.files import atomic_path
from ..bundle.table import CLOCKED
from ..cache.packing import pack, unpack
from ..errors import BadInput
from ..inputs.clip import Clip
from ..inputs.frames import Content
from ..inputs.selection import Selection
from ..llm.prompt import Prompt
from ..memory.meter import Meter
from ..setup import Setup
from .asker import Asker, Opening
from .conversation import Conversation, Turn

__all__ = ["key_of", "load", "save"]

# another number is another version's file
FORMAT = 1
NOTHING = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class SavedFrames:
    """Frames of which only the names were kept."""

    times_hint: ClassVar[str] = "ask with time_instruction=False"

    title: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.title

    def __len__(self) -> int:
        return len(self.names)

    def name(self, place: int) -> str:
        """As it was called."""
        return self.names[place]

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Never: they were not kept; raises BadInput."""
        raise BadInput(f"{self.title}: its frames were not saved, only what was computed of them; look again")

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """As `read`."""
        raise BadInput(f"{self.title}: its frames were not saved, only what was computed of them; look again")

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """None of them; raises BadInput."""
        raise BadInput(f"{self.title}: its frames were not saved, only what was computed of them; look again")


def save(path: Path, key: Mapping[str, str], conversation: Conversation) -> None:
    """Write a conversation; the file is whole or absent.

    Args:
        path: the file.
        key: what has to be the same when it is loaded, by name.
        conversation: what is kept.

    Raises:
        BadInput: the file cannot be written.
    """
    view, kept = conversation.view, conversation.kept()
    selection, clip = view.selection, view.selection.clip
    described = {
        "format": FORMAT,
        "key": dict(key),
        "turns": [[turn.question, list(turn.ids)] for turn in conversation.turns],
        "prompt": asdict(kept.opening.prompt) if kept.opening else None,
        "position": kept.position,
        "clip": [str(clip), [clip.frames.name(place) for place in range(len(clip))]],
        "timing": [list(clip.size), None if clip.times is None else list(clip.times), clip.seconds],
        "indices": list(selection.indices),
    }
    features = (view.voxels, view.rays, view.pcd_features, view.video_tokens, selection.poses)
    prefix = kept.opening.prefix if kept.opening else NOTHING
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(pack((described, features, prefix, tuple(kept.segments), kept.state)))
    except OSError as error:
        raise BadInput(f"{path}: the session cannot be saved ({error})") from None


def load(path: Path, key: Mapping[str, str], asker: Asker) -> Conversation:
    """A conversation that was saved.

    Args:
        path: the file.
        key: as `save` had it.
        asker: of the session that goes on with it.

    Raises:
        BadInput: the file cannot be read, is damaged, or is of another bundle or other options.
    """
    try:
        described, features, prefix, segments, state = unpack(path.read_bytes())
        if described["format"] != FORMAT:
            raise BadInput(f"{path}: was saved by another version; look again")
        for name, value in key.items():
            if (found := described["key"][name]) != value:
                raise BadInput(f"{path}: was saved with another {name} ({found[:20]}), this one is {value[:20]}")
        title, names = described["clip"]
        size, times, seconds = described["timing"]
        voxels, rays, points, video, poses = features
        frames = SavedFrames(title, tuple(names))
        clip = Clip(frames, tuple(size), None if times is None else tuple(times), seconds)
        selection = Selection(clip, tuple(described["indices"]), poses)
        view = View(selection, voxels, rays, points, video, Meter(CLOCKED))
        turns = [Turn(question, tuple(ids)) for question, ids in described["turns"]]
        conversation = Conversation(asker, view, turns)
        if described["prompt"] is not None:
            words: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in described["prompt"].items()
            }
            opening = Opening(Prompt(**words), prefix, list(segments[:5]))
            conversation.take(opening, list(segments), state, described["position"])
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError) as error:
        raise BadInput(f"{path}: is no saved session, or is damaged ({error})") from None
    return conversation


def key_of(digest: str, setup: Setup) -> dict[str, str]:
    """What has to be the same, by the name that a message gives it."""
    return {"bundle": digest, "--precision": setup.precision, "--quant": setup.quant, "--kv": setup.kv}
