"""Prompts on disk: embeddings with the class of each position, written one by one, so that a run can go on."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import BadInput

__all__ = ["CLASSES", "Prompt", "PromptStore"]

# of a position: what it stands for
CLASSES = ("text", "prefix", "video")
HEADER, JOURNAL, KINDS = "header.json", "prompts.jsonl", "classes.u8"
HIDDEN = ("hidden.0.f32", "hidden.1.f32")


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        name: of the sample.
        embeddings: [L, d] float32.
        classes: [L] uint8, places in `CLASSES`.
    """

    name: str
    embeddings: np.ndarray
    classes: np.ndarray


class PromptStore:
    """A working folder: prompts in one file, and room for what each layer makes of them in another.

    Attributes:
        folder: its place.
        width: columns of an embedding.
    """

    def __init__(self, folder: Path, width: int, header: Mapping[str, Any]):
        """Open a folder, or go on in one; `header` says what the prompts are of.

        Raises:
            BadInput: the folder is of something else.
        """
        self.folder, self.width = folder, width
        described = json.loads(json.dumps(dict(header)))
        file = folder / HEADER
        if file.exists():
            try:
                found = json.loads(file.read_text())
            except ValueError:
                found = None
            if found != described:
                raise BadInput(f"{folder}: holds the work of another run; delete it, or give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(described, indent=1))
        self._entries: list[tuple[str, int]] = list(self._read())

    def _read(self) -> Iterator[tuple[str, int]]:
        """Prompts that are whole; what an interrupt cut off is not."""
        journal = self.folder / JOURNAL
        if not journal.exists():
            return
        for line in journal.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break
            yield str(entry["name"]), int(entry["length"])

    @property
    def names(self) -> set[str]:
        """Of the prompts that are there."""
        return {name for name, _ in self._entries}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def longest(self) -> int:
        """Positions of the longest prompt."""
        return max(length for _, length in self._entries)

    @property
    def positions(self) -> int:
        """Of all prompts together."""
        return sum(length for _, length in self._entries)

    def append(self, prompt: Prompt) -> None:
        """Add a prompt; it counts once all of it is on disk."""
        at, length = self.positions, len(prompt.embeddings)
        for name, row, data in (
            (HIDDEN[0], 4 * self.width, np.ascontiguousarray(prompt.embeddings, np.float32)),
            (KINDS, 1, np.ascontiguousarray(prompt.classes, np.uint8)),
        ):
            with (self.folder / name).open("ab") as file:
                # what an interrupt left behind the last whole prompt
                file.truncate(at * row)
                file.write(data.tobytes())
                file.flush()
                os.fsync(file.fileno())
        with (self.folder / JOURNAL).open("a") as file:
            file.write(json.dumps({"name": prompt.name, "length": length}) + "\n")
        self._entries.append((prompt.name, length))

    def classes(self) -> list[np.ndarray]:
        """Of each prompt, [L] uint8."""
        return np.split(np.fromfile(self.folder / KINDS, np.uint8, self.positions), self._cuts())

    def hidden(self, layer: int, mode: str = "r") -> list[np.ndarray]:
        """What enters a layer, [L, d] float32 of each prompt, mapped; with mode `w+`, room for it."""
        file = self.folder / HIDDEN[layer % 2]
        mapped = np.memmap(file, np.float32, "r+" if mode == "r" else "w+", 0, (self.positions, self.width))
        return np.split(mapped, self._cuts())

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _cuts(self) -> np.ndarray:
        return np.cumsum([length for _, length in self._entries])[:-1]
