"""A language model that sets keys and values aside, to take them back after other ones."""

import functools
from collections.abc import Sequence

from .model import LanguageModel

__all__ = ["RereadingModel"]

READ, ASIDE = 0, 1


class RereadingModel(LanguageModel):
    """Reads a prompt again of which an early part is another, and keeps what stood behind it.

    libllama appends to a sequence alone. So what is kept is held by a second sequence too, which shares its memory; the
    first one is cut, appended to, and given the rest back. What it gets back was computed after the old part: an answer
    is an approximation then.

    Attributes:
        aside: first position that is set aside, and the one after the last; None where nothing is.
        reread: runs of positions among them that are read again with a prompt, each its first and the one after its
            last, ascending; the others are taken back.
    """

    aside: tuple[int, int] | None = None
    reread: Sequence[tuple[int, int]] = ()

    def _open_context(self, context: int) -> None:
        self.aside = None
        self._allocate = functools.partial(self._allocate, sequences=2)
        super()._open_context(context)

    def restart(self, context: int) -> None:
        """As `LanguageModel.restart`; nothing is set aside any more."""
        self.aside = None
        super().restart(context)

    def room(self) -> int:
        """Positions that there is room for."""
        return int(self._context.capacity)

    def set_aside(self, begin: int, end: int) -> None:
        """Keep the keys and values of these positions, whatever is forgotten."""
        memory = self._llama.llama_get_memory(self._context.pointer)
        self._llama.llama_memory_seq_rm(memory, ASIDE, -1, -1)
        self._llama.llama_memory_seq_cp(memory, READ, ASIDE, begin, end)
        self.aside = begin, end

    def take_back(self, end: int) -> None:
        """Go on at a position, with those that were set aside before it from the next one on."""
        if end > self.position:
            memory = self._llama.llama_get_memory(self._context.pointer)
            self._llama.llama_memory_seq_cp(memory, ASIDE, READ, self.position, end)
            self.position = end
