"""A further question about what was seen before: the video's keys and values stay, the rest is read again.

The tokens that the aligner makes of a question stand before the video, so this is an approximation, and off by default.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import numpy as np

from ..answer import View
from ..errors import StllmError
from ..llm.early import EarlyLayer
from ..llm.libllama import Flag
from ..llm.placement import ALL_LAYERS
from ..llm.rereading import RereadingModel
from ..llm.speaker import Opened
from ..memory.meter import Meter
from ..stages import Stages

__all__ = ["Revisit", "changed_most"]

LOG = logging.getLogger(__name__)
# positions that a longer question is likely to need
ROOM = 256
# of the prompt's segments: what stands before the aligner's tokens, and the video
HEAD, VIDEO = 0, 3
# runs of positions that are read again at most, each by a call of its own, which reads all weights
RUNS = 16


def changed_most(change: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Positions whose change [V] is largest, `count` of them, as runs: each its first and the one after its last.

    They are taken in blocks that are as long as it takes for there to be no more than `RUNS` of them.
    """
    size = -(-count // RUNS)
    means = [float(change[at : at + size].mean()) for at in range(0, len(change), size)]
    chosen: list[int] = []
    for block in np.argsort(means, kind="stable")[::-1]:
        chosen += range(int(block) * size, min((int(block) + 1) * size, len(change)))
    runs: list[tuple[int, int]] = []
    for place in sorted(chosen[:count]):
        before = runs.pop() if runs and runs[-1][1] == place else (place, place)
        runs.append((before[0], place + 1))
    return runs


class Revisit:
    """The language model after a question, and what it was about.

    The system's tokens are the same for every question and stay exactly. The video's are those of the first question
    about the same points and frames. Of these, the positions that change most can be read again: as in CacheBlend
    (Yao et al. 2025), by how far apart their keys and values are in the second layer, the first in which they differ.
    What these are made of is the output of the first layer, which is run by itself for every question.

    Attributes:
        choose: gives the runs of positions that are read again, by how much each position changes, and how many.
    """

    choose: Callable[[np.ndarray, int], list[tuple[int, int]]] = staticmethod(changed_most)

    def __init__(self, stages: Stages, recompute: float):
        """Keep nothing yet; `recompute` is the share of the video's positions that are read again, 0..1."""
        self._stages, self._recompute = stages, recompute
        self._stack = ExitStack()
        self._opened: Opened | None = None
        self._early: EarlyLayer | None = None
        self._seen: tuple[np.ndarray, ...] = ()
        # of the video's positions, after the first question
        self._outputs: np.ndarray | None = None

    def lender(
        self, view: View, segments: Sequence[np.ndarray], new_tokens: int, meter: Meter
    ) -> Callable[[Flag], AbstractContextManager[Opened]]:
        """Gives the language model for an answer, with what it may keep of the question before it."""
        return partial(self._lend, view, segments, new_tokens, meter)

    @contextmanager
    def _lend(
        self, view: View, segments: Sequence[np.ndarray], new_tokens: int, meter: Meter, flag: Flag
    ) -> Iterator[Opened]:
        lengths = [len(segment) for segment in segments]
        begin = sum(lengths[:VIDEO])
        end, seen = begin + lengths[VIDEO], (view.pcd_features, *segments[HEAD : HEAD + 1], segments[VIDEO])
        count = round(self._recompute * lengths[VIDEO])
        # what is read again is held beside what it takes the place of
        positions = sum(lengths) + new_tokens + count
        model = self._kept(seen, (begin, end), positions)
        if model is None:
            self.close()
            self._opened = self._stack.enter_context(self._stages.speaker.model(positions + ROOM, flag))
            outputs = self._run_early(segments, begin, end, meter, flag) if count else None
        else:
            model.forget(lengths[HEAD])
            model.reread = self._chosen(count, segments, (begin, end), meter, flag)
            meter.reused["video_keys"] = {"hits": end - begin - count, "misses": count}
            LOG.warning(
                "approximate: keys and values of %d of %d video positions are those of an earlier question "
                "(--reuse-video approximate)",
                lengths[VIDEO] - count,
                lengths[VIDEO],
            )
        assert self._opened is not None
        opened = self._opened[0]
        try:
            yield self._opened
        finally:
            if model is None and isinstance(opened, RereadingModel) and opened.position >= end:
                opened.set_aside(begin, end)
                self._seen, self._outputs = seen, outputs

    def _chosen(
        self, count: int, segments: Sequence[np.ndarray], place: tuple[int, int], meter: Meter, flag: Flag
    ) -> list[tuple[int, int]]:
        """The runs of positions that are read again."""
        if not count or self._outputs is None:
            return []
        change = np.square(self._run_early(segments, *place, meter, flag) - self._outputs).sum(axis=1)
        return [(place[0] + first, place[0] + last) for first, last in self.choose(change, count)]

    def _run_early(self, segments: Sequence[np.ndarray], begin: int, end: int, meter: Meter, flag: Flag) -> np.ndarray:
        """What the second layer takes of the video's positions, [V, width] float32."""
        if self._early is None:
            self._early = self._stack.enter_context(first_layer(self._stages, flag))
        with meter.measure("prefill"):
            read = [self._stages.embed(part) if part.ndim == 1 else part for part in segments[: VIDEO + 1]]
            return self._early.outputs(np.concatenate(read)[:end], begin, flag)

    def _kept(self, seen: tuple[np.ndarray, ...], place: tuple[int, int], positions: int) -> RereadingModel | None:
        """The language model, where it read the same video at the same place, and nobody has used it since."""
        if self._opened is None or not isinstance(model := self._opened[0], RereadingModel):
            return None
        try:
            self._opened[1]()
        except StllmError:
            return None
        same = len(self._seen) == len(seen) and all(map(np.array_equal, self._seen, seen))
        return model if same and model.aside == place and positions <= model.room() else None

    def close(self) -> None:
        """Free what is kept."""
        self._opened, self._early, self._seen, self._outputs = None, None, (), None
        self._stack.close()


def first_layer(stages: Stages, flag: Flag) -> EarlyLayer:
    """The first layer of the language model, run as that is; the caller closes it."""
    setup, pace = stages.setup, stages.pace.pace if stages.pace else None
    return EarlyLayer(
        setup.bundle.file(setup.llm.file),
        threads=pace.threads if pace else setup.threads,
        packed=bool(pace and pace.packed),
        on_gpu=setup.gpu_layers == ALL_LAYERS,
        flag=flag,
    )
