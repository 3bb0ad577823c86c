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
from ..llm.libllama import Flag
from ..llm.rereading import RereadingModel
from ..llm.speaker import Opened, Speaker
from ..memory.meter import Meter

__all__ = ["Revisit"]

LOG = logging.getLogger(__name__)
# positions that a longer question is likely to need
ROOM = 256
# of the prompt's segments: what stands before the aligner's tokens, and the video
HEAD, VIDEO = 0, 3


class Revisit:
    """The language model after a question, and what it was about.

    The system's tokens are the same for every question and stay exactly. The video's are those of the first question
    about the same points and frames; the first of them, which attend to the fewest others and so most to what stands
    before the video, can be read again.
    """

    def __init__(self, speaker: Speaker, recompute: float):
        """Keep nothing yet; `recompute` is the share of the video's positions that are read again, 0..1."""
        self._speaker, self._recompute = speaker, recompute
        self._stack = ExitStack()
        self._opened: Opened | None = None
        self._seen: tuple[np.ndarray, ...] = ()

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
        begin, positions = sum(lengths[:VIDEO]), sum(lengths) + new_tokens
        end, seen = begin + lengths[VIDEO], (view.pcd_features, *segments[HEAD : HEAD + 1], segments[VIDEO])
        model = self._kept(seen, (begin, end), positions)
        if model is None:
            self.close()
            self._opened = self._stack.enter_context(self._speaker.model(positions + ROOM, flag))
        else:
            model.forget(lengths[HEAD])
            model.resume = begin + round(self._recompute * lengths[VIDEO])
            meter.reused["video_keys"] = {"hits": end - model.resume, "misses": model.resume - begin}
            LOG.warning(
                "approximate: keys and values of %d of %d video positions are those of an earlier question "
                "(--reuse-video approximate)",
                end - model.resume,
                lengths[VIDEO],
            )
        assert self._opened is not None
        opened = self._opened[0]
        try:
            yield self._opened
        finally:
            if model is None and isinstance(opened, RereadingModel) and opened.position >= end:
                opened.set_aside(begin, end)
                self._seen = seen

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
        self._opened, self._seen = None, ()
        self._stack.close()
