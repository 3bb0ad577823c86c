"""Progress on stderr: bars for what takes over a second, and nothing when it is not wanted."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress"]

DELAY = 1.0


class Progress:
    """Bars and stage lines; silent when quiet or when stderr is not a terminal."""

    def __init__(self, quiet: bool = False):
        self._shown = not quiet and sys.stderr.isatty()

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over `total` units, shown once it has run for a second; yields a function that advances it."""
        if not self._shown:
            yield lambda amount: None
            return
        from rich.console import Console
        from rich.progress import Progress as Bars

        start = time.monotonic()
        with Bars(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(title, total=total, visible=False)

            def advance(amount: int) -> None:
                bars.update(task, advance=amount, visible=time.monotonic() - start > DELAY)

            yield advance

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """A spinner for work of unknown length; yields a function that changes its title."""
        if not self._shown:
            yield lambda title: None
            return
        from rich.console import Console

        with Console(stderr=True).status(title) as status:
            yield status.update
