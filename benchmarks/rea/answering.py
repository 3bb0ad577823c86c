"""Questions about one clip after the other, answered by one session that looks at each clip once."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import BadInput, DoesNotFit, require_at_least
from ...runtime.options import Options
from ...runtime.session import Session
from .dataset import Broken, Sample
from .results import Record, record_of

__all__ = ["Request", "answer_clip"]


@dataclass(frozen=True)
class Request:
    """How samples are answered.

    Attributes:
        bundle: its folder.
        options: of the session.
        frames: frames to sample from a clip; None takes the bundle's number.
        max_new_tokens: longest answer.
        digest: of the bundle, once it is open; where samples are answered elsewhere, the bundle there has to have the
            same.
    """

    bundle: Path
    options: Options
    frames: int | None = None
    max_new_tokens: int = 256
    digest: str | None = None

    def check(self) -> None:
        """Raise BadInput when a number is out of range."""
        require_at_least({"--max-new-tokens": (self.max_new_tokens, 1), "--frames": (self.frames, 1)})

    def settled(self, session: Session) -> "Request":
        """As a session of it answers: with the bundle's digest and what the options left open."""
        options = replace(self.options, precision=session.setup.precision, quant=session.setup.quant)
        return replace(self, bundle=self.bundle.resolve(), options=options, digest=session.digest)

    def deciding(self) -> dict[str, object]:
        """The options that decide answers; how many threads there are and where they run does not."""
        options = self.options
        reuse = {"reuse_video": options.reuse_video, "recompute": options.recompute or 0.0}
        return {
            **(reuse if options.reuse_video else {}),
            "precision": options.precision,
            "quant": options.quant,
            "kv": options.kv,
            "flash_attention": options.flash_attention,
            "frames": self.frames,
            "max_new_tokens": self.max_new_tokens,
        }


def answer_clip(session: Session, samples: Sequence[Sample], request: Request) -> Iterator[Record | Broken]:
    """Answer samples about the same scene and clip with the best token each time.

    Yields:
        A record a sample as it is answered: id, question_type, scene_id, query, gt, pred, counts of tokens,
        `seconds` that this sample took (looking counts for the first), and `milliseconds` by stage, looking included.
        A sample whose files cannot be used, or that needs more memory than is free, is broken.
    """
    start = time.perf_counter()
    try:
        view = session.look(*samples[0].load(), frames=request.frames, max_new_tokens=request.max_new_tokens)
    except (BadInput, DoesNotFit, OSError) as error:
        yield from (Broken(sample.id, str(error)) for sample in samples)
        return
    for sample in samples:
        try:
            answer = session.answer(view, sample.question, max_new_tokens=request.max_new_tokens)
            text = "".join(answer)
        except (BadInput, DoesNotFit) as error:
            yield Broken(sample.id, str(error))
        else:
            now = time.perf_counter()
            yield record_of(
                sample,
                text,
                prompt_tokens=answer.prompt_tokens,
                new_tokens=len(answer.token_ids),
                **({"approximate": answer.approximate} if answer.approximate else {}),
                seconds=round(now - start, 4),
                milliseconds={stage: round(spent, 3) for stage, spent in answer.meter.milliseconds.items()},
            )
            start = now
