"""Folders for results: new, empty, or made on the way."""

from pathlib import Path

from ..runtime.errors import BadInput

__all__ = ["make_folder", "make_new_folder", "require_new"]


def require_new(out: Path) -> None:
    """Raise BadInput where a folder would be mixed with what is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out}: exists and is not an empty folder; name a new one")


def make_new_folder(out: Path) -> None:
    """Make a folder, or take an empty one; raises BadInput where there is something, or none can be made."""
    require_new(out)
    make_folder(out)


def make_folder(out: Path) -> None:
    """Make the folder of results; raises BadInput where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: no folder can be made there ({error.strerror})") from None
