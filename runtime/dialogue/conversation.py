"""Questions about one view that follow each other: keys and values of all that was read are kept."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..answer import Answer, View
from ..bundle.table import CLOCKED
from ..control.control import Control
from ..control.events import Listener
from ..errors import StllmError
from ..llm.libllama import Flag
from ..llm.model import LanguageModel
from ..llm.prompt import follow_up
from ..llm.speaker import Opened
from ..memory.meter import Meter
from ..options import Request
from .asker import Asker, Opening

__all__ = ["Conversation", "Turn"]

LOG = logging.getLogger(__name__)
# positions that further questions are likely to need; more are made when they are needed, by copying what is kept
ROOM = 512


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: in words.
        ids: tokens of the answer, without the one that ended it.
    """

    question: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """What a conversation keeps for later.

    Attributes:
        opening: what was read first; None before the first question.
        segments: all that belongs to the transcript.
        state: keys and values of its first positions, [bytes] uint8.
        position: how many these are.
    """

    opening: Opening | None
    segments: Sequence[np.ndarray]
    state: np.ndarray
    position: int


class Conversation:
    """A first question about a view, and others that follow it.

    A follow-up reads its own tokens and answers as if the whole transcript had been read anew. What the aligner made
    of the first question stays: in the model's template it stands before the video, and there is one of it. For a
    question that has nothing to do with those before it, `reset`, or `Session.answer`, runs the aligner again.

    It keeps a language model until it is closed; in a resident session it has the session's, and when another answer
    has used that one meanwhile, the transcript is read again. As a context manager, it closes itself.

    Attributes:
        view: what it is about.
        turns: what was asked and answered.
    """

    def __init__(self, asker: Asker, view: View, turns: Sequence[Turn] = ()):
        """Begin, or go on with a transcript, which is read with the next question."""
        self.view, self.turns = view, list(turns)
        self._asker = asker
        self._opening: Opening | None = None
        self._segments: list[np.ndarray] = []
        # positions up to which what the language model has read is this transcript
        self._common = 0
        self._asked: tuple[Request, Answer] | None = None
        self._stack = ExitStack()
        self._opened: Opened | None = None

    def ask(self, question: str, *, listen: Listener = None, **how: Any) -> Answer:
        """Answer a question; arguments and errors as in `Session.answer`.

        An answer before it that was not read to its end is closed, and counts as far as it was read.
        """
        request = Request.of(question, **how)
        with self._asker.gate.question(Control(listen, request.max_time)) as control:
            self._settle()
            # looking counts for the first question
            meter = Meter(CLOCKED, control=control) if self._opening else self.view.meter.copy(control)
            opening = self._opening or self._open(request, meter)
            segments = [*self._segments, *([] if not self.turns else [self._follow(request)])]
            lent = partial(self._lend, sum(map(len, segments)) + request.max_new_tokens)
            answer = self._asker.begin(self.view, opening, request, meter, segments, lent)
            self._asked = request, answer
            return answer

    def _open(self, request: Request, meter: Meter) -> Opening:
        """Read what was said before, or begin."""
        asked = request.about(self.turns[0].question) if self.turns else request
        self._opening = self._asker.open(self.view, asked, meter)
        self._segments, self._common = list(self._opening.segments), 0
        for number, turn in enumerate(self.turns):
            if number:
                self._segments.append(self._follow(request.about(turn.question)))
            self._segments.append(np.array(turn.ids, np.int64))
        return self._opening

    def _follow(self, request: Request) -> np.ndarray:
        """Ids of a question that follows an answer."""
        tokenize = self._asker.stages.speaker.vocabulary.tokenize
        return np.array(follow_up(request.question, tokenize, assistant_header=not request.bare_prompt), np.int64)

    def _settle(self) -> None:
        """Take the last answer into the transcript; a question that was ended before its first token never was."""
        if self._asked is None:
            return
        (request, answer), self._asked = self._asked, None
        answer.close()
        stops = self._asker.stages.setup.bundle.stop_ids
        ids = tuple(token for token in answer.token_ids if token not in stops)
        if not answer.token_ids:
            if not self.turns:
                self._opening, self._segments = None, []
            return
        if self.turns:
            self._segments.append(self._follow(request))
        self._segments.append(np.array(ids, np.int64))
        self.turns.append(Turn(request.question, ids))
        self._common = sum(map(len, self._segments))

    @contextmanager
    def _lend(self, positions: int, flag: Flag) -> Iterator[Opened]:
        """The language model with what is kept of the transcript, for one answer."""
        model, require_turn = self._kept() or self._reopen(positions, flag)
        model.reserve(positions)
        # what a question that was ended early left behind
        model.forget(min(model.position, self._common))
        yield model, require_turn

    def _kept(self) -> Opened | None:
        """The language model, unless it was never opened or has been taken over."""
        if self._opened is None:
            return None
        try:
            self._opened[1]()
        except StllmError:
            LOG.info("the language model was used by another answer, or freed, so the conversation is read again")
            return None
        return self._opened

    def _reopen(self, positions: int, flag: Flag | None = None) -> Opened:
        self._stack.close()
        self._opened = self._stack.enter_context(self._asker.stages.speaker.model(positions + ROOM, flag))
        return self._opened

    def kept(self) -> Kept:
        """What there is to save; an answer that is not read to its end counts as far as it was read."""
        with self._asker.gate.entered():
            self._settle()
            opened = self._kept()
            if opened is None or not self._segments:
                return Kept(self._opening, self._segments, np.zeros(0, np.uint8), 0)
            model = opened[0]
            model.forget(min(model.position, self._common))
            return Kept(self._opening, self._segments, model.state(), model.position)

    def take(self, opening: Opening, segments: list[np.ndarray], state: np.ndarray, position: int) -> None:
        """Go on with what was kept; raises BadInput where keys and values are not of this language model."""
        with self._asker.gate.entered():
            self._opening, self._segments, self._common = opening, segments, position
            if position:
                model, _ = self._reopen(sum(map(len, segments)))
                model.restore(state, position)

    @property
    def model(self) -> LanguageModel | None:
        """The language model with keys and values of the transcript; None where there is none at the moment."""
        kept = self._kept()
        return kept[0] if kept else None

    def reset(self) -> None:
        """Forget what was said; the next question is a first one."""
        with self._asker.gate.entered():
            self._settle()
            self.turns, self._opening, self._segments = [], None, []

    def close(self) -> None:
        """Free the language model; the transcript stays, and is read again by the next question."""
        with self._asker.gate.entered():
            self._settle()
            self._opened = None
            self._stack.close()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
