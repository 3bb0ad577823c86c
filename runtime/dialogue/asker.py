"""From a view and a question to an answer that is about to be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np

from ..answer import Answer, Transcript, View
from ..errors import BadInput
from ..inputs.clip import Clip
from ..llm.libllama import Flag
from ..llm.prompt import ASSISTANT_HEADER, Prompt, build_prompt, without_header
from ..llm.speaker import Opened
from ..llm.vocabulary import decode_text, until_stop
from ..memory.meter import Meter
from ..options import Request
from ..stages import Stages
from .gate import Gate
from .revisit import Revisit

__all__ = ["Asker", "Opening"]


@dataclass(frozen=True)
class Opening:
    """What the language model reads first.

    Attributes:
        prompt: the prompt and its ids.
        prefix: [latents, d] float32, what the aligner made of scene, clip and question.
        segments: all of it, as `Stages.prefill` takes it.
    """

    prompt: Prompt
    prefix: np.ndarray
    segments: Sequence[np.ndarray]


class Asker:
    """Opens prompts and begins answers, for single questions and for conversations."""

    def __init__(self, stages: Stages, gate: Gate):
        """Take what computes, and what lets one thread at a time compute."""
        self.stages, self.gate, self._bundle = stages, gate, stages.setup.bundle
        # weak: an answer that its caller drops frees itself
        self._answers: WeakSet[Answer] = WeakSet()
        recompute = stages.setup.recompute
        self.revisit = None if recompute is None else Revisit(stages, recompute)

    def prompt(self, view: View, request: Request) -> Prompt:
        """The prompt for a question about a view; raises BadInput where it states times that are not known."""
        timing = view.selection.timing() if self.timed(request) else None
        tokenize = self.stages.speaker.vocabulary.tokenize
        return build_prompt(request.question, tokenize, timing=timing, assistant_header=not request.bare_prompt)

    def require_possible(self, clip: Clip, request: Request) -> None:
        """Raise BadInput for what would be refused after encoders have run: a clip without times, an endless answer."""
        self.require_positions(request.max_new_tokens)
        if self.timed(request):
            clip.timing()

    def timed(self, request: Request) -> bool:
        """Whether the prompt states length and times of the clip."""
        told = request.time_instruction
        return self._bundle.defaults.time_instruction if told is None else told

    def open(self, view: View, request: Request, meter: Meter) -> Opening:
        """Run the aligner for a question; it is not the same for two questions, and neither is what follows it."""
        stages = self.stages
        # the vocabulary is read here the first time
        with meter.measure("prompt"):
            prompt = self.prompt(view, request)
            text = stages.embed(prompt.aligner_token_ids)
        rays = view.encoded_rays or stages.host.encode_rays(view.rays, meter)
        prefix = stages.aligner(view.points, rays, view.pooled_features, text, meter)
        return Opening(prompt, prefix, prompt.segments(prefix, view.video))

    def answer(self, view: View, request: Request, meter: Meter) -> Answer:
        """An answer to a question by itself."""
        opening, lent = self.open(view, request, meter), None
        if self.revisit is not None:
            lent = self.revisit.lender(view, opening.segments, request.max_new_tokens, meter)
        return self.begin(view, opening, request, meter, opened=lent)

    def begin(
        self,
        view: View,
        opening: Opening,
        request: Request,
        meter: Meter,
        segments: Sequence[np.ndarray] | None = None,
        opened: Callable[[Flag], AbstractContextManager[Opened]] | None = None,
    ) -> Answer:
        """An answer that is about to be read.

        Args:
            view: what it is about.
            opening: of its first question.
            request: the question that it answers.
            meter: what it took so far.
            segments: all that the language model reads; by default the opening.
            opened: a language model that may have read the first positions of it.

        Raises:
            BadInput: the model was not made for so many positions, or the grammar allows nothing.
        """
        read = opening.segments if segments is None else segments
        positions = sum(map(len, read))
        self.require_positions(positions + request.max_new_tokens)
        choose = self.stages.sampler(request)
        steps = self.stages.generate(read, choose, request.max_new_tokens, meter, opened)
        transcript = Transcript(steps, self._bundle.stop_ids)
        pieces = self._pieces(transcript, request, meter)
        answer = Answer(view, opening.prompt, opening.prefix, meter, transcript, pieces, positions, self.gate.entered)
        self._answers.add(answer)
        self.gate.reading(answer)
        return answer

    def _pieces(self, transcript: Transcript, request: Request, meter: Meter) -> Iterator[str]:
        """Text of an answer as it comes; without the header in the prompt, the model writes it itself."""
        vocabulary = self.stages.speaker.vocabulary
        header = tuple(vocabulary.tokenize(ASSISTANT_HEADER)) if request.bare_prompt else ()

        def piece(token: int) -> bytes:
            with meter.clock("detokenise"):
                return vocabulary.piece(token)

        text = decode_text(map(piece, without_header(iter(transcript), header)))
        return until_stop(text, request.stop, transcript.stop_found) if request.stop else text

    def require_positions(self, positions: int) -> None:
        """Raise BadInput when prompt and answer are longer than the model was made for."""
        limit = self._bundle.geometry.llm.context
        if positions > limit:
            raise BadInput(
                f"the prompt and the answer need {positions} positions, the model was made for {limit}; "
                "lower --frames or --max-new-tokens"
            )

    def close(self) -> None:
        """End answers that are not read to their end."""
        for answer in list(self._answers):
            answer.close()
        if self.revisit is not None:
            self.revisit.close()
