"""The entries of REA's JSON files, of which every reader asks for what it needs and no more (SPEC section 9)."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BadInput

__all__ = ["field", "parse_conversation", "read_entries", "without_placeholders"]

Parsed = TypeVar("Parsed")
PLACEHOLDERS = re.compile("<pointcloud>|<image>")
ADVICE = "give a JSON file of the REA release"


def read_entries(option: str, file: Path, parse: Callable[[Any], Parsed]) -> list[Parsed]:
    """What is needed of each entry of a JSON file, in its order.

    Args:
        option: that names the file, for messages.
        file: JSON list of at least one entry.
        parse: from an entry to what is needed of it; raises ValueError or TypeError with what is wrong.

    Raises:
        BadInput: the file is no such list, or an entry lacks what is needed; the message names the entry.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{option} {file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{option} {file}: not JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else type(entries).__name__
        raise BadInput(f"{option} {file}: expected a list of entries, found {found}; {ADVICE}")
    parsed = []
    for place, entry in enumerate(entries):
        try:
            parsed.append(parse(entry))
        except (ValueError, TypeError) as error:
            name = f" (id {entry['id']!r})" if isinstance(entry, dict) and "id" in entry else ""
            raise BadInput(f"{option} {file}: entry {place}{name} {error}; {ADVICE}") from None
    return parsed


def field(entry: Any, path: str, kind: Any) -> Any:
    """The value at a dotted path; raises ValueError when it is absent, TypeError when of another type."""
    value = entry
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"lacks {path}")
        value = value[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"has {path} {value!r}, expected {getattr(kind, '__name__', kind)}")
    return value


def parse_conversation(entry: Any) -> tuple[str, str]:
    """Question without the placeholders, and answer; raises ValueError or TypeError with what is wrong."""
    turns = field(entry, "conversations", list)
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if speakers != ["human", "gpt"]:
        raise ValueError(f"has conversations from {speakers}, expected ['human', 'gpt']")
    question, answer = (field(turn, "value", str) for turn in turns)
    question = without_placeholders(question)
    if not question:
        raise ValueError("has no question beside the placeholders")
    return question, answer.strip()


def without_placeholders(question: str) -> str:
    """A question without the tokens that stand for point cloud and clip."""
    return PLACEHOLDERS.sub("", question).strip()
