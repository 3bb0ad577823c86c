"""The commands: options and dispatch only; everything heavy is imported by the command that needs it."""

from .bench import bench
from .export import export
from .run import run

__all__ = ["bench", "export", "run"]
