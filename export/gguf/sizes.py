"""Types that fill a size: the largest drop in loss a byte is bought first."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .quantiser import ALIGNMENT
from .types import tensor_bytes

__all__ = ["Step", "frontier", "padded", "spend"]


@dataclass(frozen=True)
class Step:
    """A type that a matrix may have, its bytes in a file, and what it costs, nats."""

    type: str
    bytes: int
    loss: float


def padded(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor in a file."""
    return -(-tensor_bytes(shape, kind) // ALIGNMENT) * ALIGNMENT


def frontier(steps: Sequence[Step]) -> list[Step]:
    """From the smallest to the finest, those that cost less than all that are not larger."""
    found: list[Step] = []
    for step in sorted(steps, key=lambda step: (step.bytes, step.loss, step.type)):
        if not found or step.loss < found[-1].loss:
            found.append(step)
    return found


def spend(steps: Mapping[str, Sequence[Step]], begin: Mapping[str, Step], room: int) -> dict[str, Step]:
    """Finer types for as many bytes as there are.

    Args:
        steps: of each matrix, its frontier.
        begin: where each starts.
        room: bytes that may be added.
    """
    chosen = dict(begin)
    heap = [offer for name in steps if (offer := best(name, steps[name], chosen[name], room))]
    heapq.heapify(heap)
    while heap:
        _, name, step = heapq.heappop(heap)
        more = step.bytes - chosen[name].bytes
        if more <= room:
            chosen[name], room = step, room - more
        # what did not fit is looked for again among what is smaller
        if offer := best(name, steps[name], chosen[name], room):
            heapq.heappush(heap, offer)
    return chosen


def best(name: str, steps: Sequence[Step], now: Step, room: int) -> "tuple[float, str, Step] | None":
    """The finer type of a matrix that saves most a byte, as an entry of a heap; None where none fits."""
    offers = [
        (-(now.loss - step.loss) / max(step.bytes - now.bytes, 1), name, step)
        for step in steps
        if step.loss < now.loss and step.bytes - now.bytes <= room
    ]
    return min(offers, key=lambda offer: (offer[0], offer[2].bytes), default=None)
