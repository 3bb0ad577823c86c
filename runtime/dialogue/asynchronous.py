"""Answers for `asyncio`: pieces as they come, from a thread that answers one question after the other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor

from ..answer import Answer
from ..control.control import Control
from ..errors import Cancelled

__all__ = ["stream"]


async def stream(executor: Executor, begin: Callable[[Control], Answer], control: Control) -> AsyncIterator[str]:
    """Text piece by piece.

    Whoever leaves the loop, or is cancelled in it, ends the question, wherever it is.

    Args:
        executor: of one thread, in which questions wait for those before them.
        begin: begins the answer with a control.
        control: of the question.

    Raises:
        StllmError: what the answer raises.
    """
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | BaseException | None]()

    def tell(piece: str | BaseException | None) -> None:
        # a loop that has ended has nobody who listens
        if not loop.is_closed():
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def work() -> None:
        try:
            with begin(control) as answer:
                for piece in answer:
                    tell(piece)
            tell(None)
        except BaseException as error:  # raised again where it is waited for
            tell(error)

    executor.submit(work)
    ended = False
    try:
        while not ended:
            told = await pieces.get()
            ended = not isinstance(told, str)
            if isinstance(told, BaseException):
                raise told
            if told is not None:
                yield told
    finally:
        if not ended:
            control.cancel()
            # the next question finds the session free
            while not isinstance(await asyncio.shield(pieces.get()), Cancelled | None):
                pass
