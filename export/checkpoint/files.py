"""Files of a checkpoint: JSON, and what lies in place of a file that was not fetched, was cut, or is another."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ...runtime.errors import BadInput

__all__ = ["read_json", "reading"]

LFS_POINTER = b"version https://git-lfs"
WEB_PAGES = (b"<!doctype html", b"<html", b"<?xml")
BEGINNING = 200


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises BadInput when the file is missing or is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: {in_place_of(path) or f'not JSON ({error})'}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what readers of weights raise on a bad file into BadInput, with the cause that its first bytes show."""
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if cause := in_place_of(path):
            raise BadInput(f"{path}: {cause}") from None
        if isinstance(error, pickle.UnpicklingError):
            raise BadInput(f"{path}: holds pickled objects, which are never loaded; save plain tensors") from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"{path}: truncated or damaged ({reason})") from None


def in_place_of(path: Path) -> str | None:
    """What a file is where it only lies in place of another, by its first bytes; None where they do not show it."""
    try:
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
    except OSError:
        return None
    if not beginning:
        return "truncated or damaged (no byte in it); copy or download it again"
    if beginning.startswith(LFS_POINTER):
        return "is a Git LFS pointer, which stands for a file that was not fetched; run git lfs pull in its folder"
    if beginning.lstrip().lower().startswith(WEB_PAGES):
        return "is a web page, as a failed download leaves it; download the file again"
    if path.suffix != ".json" and (text := printable(beginning)):
        return f"is text that begins with {text!r}, as a failed download leaves it; download the file again"
    return None


def printable(data: bytes) -> str | None:
    """The first line of a text; None for other data."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    return text.split("\n")[0][:60] if all(letter.isprintable() or letter in "\r\n\t" for letter in text) else None
