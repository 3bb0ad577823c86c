"""What the stages that stay loaded hold of this process's memory."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from .counters import anonymous_bytes

__all__ = ["Holdings"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Holdings:
    """Bytes by stage: how much this process's anonymous memory grew while the stage, and nothing else, was at work.

    The kernel does not say whose memory is whose; what the caller of a session has, before or since, is never in it.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def work(
        self, stage: str, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Let a stage load or run; what it leaves behind is its own, but for an array that it returns."""
        before = anonymous_bytes()
        result: Any = None
        try:
            result = work(*arguments, **named)
        finally:
            growth = anonymous_bytes() - before
            # an array that lies in memory that was there before did not make it grow
            returned = min(getattr(result, "nbytes", 0), max(growth, 0))
            self._held[stage] = max(self._held.get(stage, 0) + growth - returned, 0)
        return result

    def within(self, bounds: Mapping[str, float]) -> int:
        """All that is held, bytes; of each stage at most what is planned for it."""
        return int(sum(min(held, bounds[stage]) for stage, held in self._held.items()))

    def clear(self) -> None:
        """Forget all stages, which have been freed."""
        self._held.clear()
