"""The errors that a user can cause; every message says what was asked, what was found and what to do."""

from collections.abc import Mapping

__all__ = [
    "BadBundle",
    "BadInput",
    "Cancelled",
    "DoesNotFit",
    "MissingDependency",
    "StllmError",
    "require_at_least",
]


class StllmError(Exception):
    """Base of all errors that the command line prints as one line, with exit status 2."""


class BadInput(StllmError):
    """A file, an option or a checkpoint is not what it has to be."""


class BadBundle(StllmError):
    """A bundle is incomplete, damaged or made for something else."""


class MissingDependency(StllmError):
    """An optional package is needed; the message names the extra that brings it."""


class DoesNotFit(StllmError):
    """Memory or disk is too small for what was asked; the message says what would fit."""


class Cancelled(StllmError):
    """A question was ended before its answer, by `cancel` or by its deadline; the session can be asked again."""


def require_at_least(bounds: Mapping[str, tuple[int | None, int]]) -> None:
    """Raise BadInput unless each option's value, if it has one, is its bound or more."""
    for option, (value, least) in bounds.items():
        if value is not None and value < least:
            raise BadInput(f"{option} {value}: expected at least {least}")
