"""Poses of one file each, in a folder, read when they are asked for, and those of any source that can be used."""

import logging
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...errors import BadInput
from .numbers import read_rows
from .poses import require_convention, to_pose, to_square

__all__ = ["PoseFiles", "load_poses", "usable"]

LOG = logging.getLogger(__name__)
SUFFIX = ".txt"
MOST_BYTES = 65_536
Key = TypeVar("Key", bound=Hashable)


class PoseFiles(Mapping[str, np.ndarray]):
    """Poses of a folder by file stem, [4, 4] float64; a file is read and checked when its pose is asked for.

    A folder holds a pose for every frame of a long recording, of which a question needs a few.
    """

    def __init__(self, folder: Path, files: Mapping[str, str], convention: str):
        """Read nothing yet; `files` are the files' names by stem, in their order."""
        self._folder, self._files, self._convention = folder, files, convention

    def __getitem__(self, stem: str) -> np.ndarray:
        """Raises BadInput unless the file holds a rigid pose."""
        file = self._folder / self._files[stem]
        source = f"pose {file}"
        return to_pose(to_square(read_rows(file, source, MOST_BYTES), source), source, self._convention)

    def __contains__(self, stem: object) -> bool:
        return stem in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def load_poses(folder: Path, convention: str = "c2w", stems: Sequence[str] | None = None) -> PoseFiles:
    """Camera-to-world poses with OpenCV axes, by file stem; no file is read yet.

    Args:
        folder: text files of 4x4 or 3x4 numbers, named like the frames. Hidden files, `._` files of macOS among them,
            are passed over, and so are those without a number in their names where others have one.
        convention: how they are meant, one of `POSE_CONVENTIONS`.
        stems: frames whose poses are looked for, which is quicker than to list a long recording; by default all.

    Raises:
        BadInput: there are none, or the convention is not known.
    """
    require_convention(convention)
    expected = "expected a folder of 4x4 .txt files named like the frames"
    if stems is not None:
        found = {stem: f"{stem}{SUFFIX}" for stem in stems if (folder / f"{stem}{SUFFIX}").is_file()}
        if not found:
            raise BadInput(f"poses {folder}: no poses among {stems[0]}..{stems[-1]}; {expected}")
        return PoseFiles(folder, found, convention)
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIX))
    except NotADirectoryError:
        raise BadInput(f"poses {folder}: no poses; {expected} (one file of all poses is given as --cameras)") from None
    except OSError as error:
        raise BadInput(f"poses {folder}: no poses; {expected} ({error.strerror})") from None
    files = {name[: -len(SUFFIX)]: name for name in names if not name.startswith(".")}
    numbered = {stem: name for stem, name in files.items() if any(map(str.isdigit, stem))}
    if numbered and len(numbered) < len(files):
        other = next(name for stem, name in files.items() if stem not in numbered)
        LOG.info("poses %s: %d without a number passed over, first %s", folder, len(files) - len(numbered), other)
    if not files:
        raise BadInput(f"poses {folder}: no poses; {expected}")
    return PoseFiles(folder, numbered or files, convention)


def usable(posed: Mapping[Key, np.ndarray]) -> tuple[dict[Key, np.ndarray], str]:
    """The poses that can be used, and words on the others, which count as absent; empty where there are none.

    All are read, since a choice of frames is one among those that have a pose (SPEC section 6), and an invalid pose
    that is not looked at would count as one.

    Raises:
        BadInput: none can be used; the message is that of the first.
    """
    found: dict[Key, np.ndarray] = {}
    lost = []
    for key in posed:
        try:
            found[key] = posed[key]
        except BadInput as error:
            lost.append(str(error))
    if lost and not found:
        raise BadInput(f"{lost[0]}; none of {len(lost)} poses can be used" if len(lost) > 1 else lost[0])
    if not lost:
        return found, ""
    return found, f"{len(lost)} of {len(posed)} poses cannot be used and count as absent; first {lost[0]}"
