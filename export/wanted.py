"""Which language models a user asks for, as the options of stllm-export state it."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["USUAL", "Wanted"]

USUAL = "Q4_K_M"


@dataclass(frozen=True)
class Wanted:
    """Options as they were given.

    Attributes:
        quants: types of files.
        tensors: PATTERN=TYPE texts, which come before those of recipe files.
        files: recipe files.
        matrix: importance matrix, where a recipe file names none.
        name: of the one language model that there is.
        size: that a file is to have, for which types are chosen.
    """

    quants: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    matrix: Path | None = None
    name: str | None = None
    size: str | None = None
