"""The errors that a user can cause; every message says what was asked, what was found and what to do."""

__all__ = ["BadBundle", "BadInput", "DoesNotFit", "MissingDependency", "StllmError"]


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
