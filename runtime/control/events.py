"""What a session tells of its work while it runs, as small typed records."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Done", "Event", "Listener", "StageFinished", "StageStarted", "Text", "to_json"]


@dataclass(frozen=True)
class StageStarted:
    """A stage began; stages are those of the table, and `video` runs inside `vision`."""

    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A stage ended.

    Attributes:
        stage: which.
        milliseconds: that it has taken for this question so far, as reports have them.
    """

    stage: str
    milliseconds: float


@dataclass(frozen=True)
class Text:
    """A piece of an answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """An answer was read to its end.

    Attributes:
        text: the whole answer.
        ended: why it ended: `stop`, `length`, `stop string` or `time`.
        new_tokens: how many were generated.
        milliseconds: by stage.
    """

    text: str
    ended: str
    new_tokens: int
    milliseconds: dict[str, float] = field(default_factory=dict)


Event = StageStarted | StageFinished | Text | Done
# what is called with each event, if anything is
Listener = Callable[[Event], None] | None
NAMES = {StageStarted: "stage_started", StageFinished: "stage_finished", Text: "text", Done: "done"}


def to_json(event: Event) -> dict[str, Any]:
    """An event as JSON takes it, its kind under `event`."""
    return {"event": NAMES[type(event)], **asdict(event)}
