"""The prompt: template, time instruction, pieces around the placeholders (SPEC section 8)."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import BadInput

__all__ = [
    "ASSISTANT_HEADER",
    "IMAGE_ID",
    "POINT_CLOUD_ID",
    "Prompt",
    "build_prompt",
    "check_question",
    "follow_up",
    "time_instruction",
    "without_header",
]

SYSTEM = (
    "You are a helpful assistant.The first 64 tokens by user encode learnable queries representing objects and "
    "locations in the 3D scene. The following tokens represent egocentric video of recent actions. Use both to reason "
    "about spatial references and temporal context when answering."
)
POINT_CLOUD, IMAGE = "<pointcloud>", "<image>"
POINT_CLOUD_ID, IMAGE_ID = -300, -200
ASSISTANT_HEADER = "<|im_start|>assistant\n"
USER, END = "<|im_start|>user\n", "<|im_end|>\n"


class Tokenize(Protocol):
    """Ids of a text, in which the spelling of a special token is that token unless `special` is false."""

    def __call__(self, text: str, special: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class Prompt:
    """Token ids of one question.

    Attributes:
        text: the prompt with its two placeholders.
        head: ids before the point cloud.
        between: ids between the point cloud and the video.
        tail: ids after the video.
        user_start: how many ids of `head` belong to the system turn.
        user_length: how many ids of `tail` belong to the user turn; the rest is the assistant's header.
    """

    text: str
    head: tuple[int, ...]
    between: tuple[int, ...]
    tail: tuple[int, ...]
    user_start: int
    user_length: int

    def __len__(self) -> int:
        """Tokens of text; the placeholders do not count."""
        return len(self.head) + len(self.between) + len(self.tail)

    def segments(self, prefix: np.ndarray, video: np.ndarray) -> list[np.ndarray]:
        """What the language model reads, piece by piece: ids [L] int64, or embeddings [L, d] in place of placeholders.

        Args:
            prefix: [latents, d] float32, in place of the point cloud.
            video: [V, d] float32, in place of the video.
        """
        return [np.array(self.head), prefix, np.array(self.between), video, np.array(self.tail)]

    @property
    def token_ids(self) -> np.ndarray:
        """All ids with -300 for the point cloud and -200 for the video, [L] int64."""
        return np.array([*self.head, POINT_CLOUD_ID, *self.between, IMAGE_ID, *self.tail], np.int64)

    @property
    def aligner_token_ids(self) -> np.ndarray:
        """Ids of the user turn without the placeholders, which the aligner reads, [L'] int64."""
        return np.array([*self.head[self.user_start :], *self.between, *self.tail[: self.user_length]], np.int64)


def build_prompt(
    question: str,
    tokenize: Tokenize,
    *,
    timing: tuple[float, Sequence[float]] | None = None,
    assistant_header: bool = True,
) -> Prompt:
    """Fill the template and tokenise its pieces.

    Args:
        question: what the user asks; normalised to NFC as the model's tokenizer does.
        tokenize: text to ids, special tokens recognised; with `special=False` they are text, as all that a user writes.
        timing: length of the clip and times of the frames, seconds, for the time instruction; None leaves it out.
        assistant_header: whether to end with the assistant's header; without it the model writes it itself.

    Raises:
        BadInput: the question is empty or holds a placeholder.
    """
    check_question(question)
    question = unicodedata.normalize("NFC", question)
    system, user = f"<|im_start|>system\n{SYSTEM}{END}", USER
    line = f"{time_instruction(*timing)}\n" if timing else ""
    # a tokenizer cuts at special tokens before all else, so that a cut before one changes no id
    said, end = f"\n{line}{question}", END
    header = ASSISTANT_HEADER if assistant_header else ""
    system_ids, tail_ids = tokenize(system), [*tokenize(said, special=False), *tokenize(end)]
    return Prompt(
        text=f"{system}{user}{POINT_CLOUD}\n{IMAGE}{said}{end}{header}",
        head=(*system_ids, *tokenize(user)),
        between=tuple(tokenize("\n")),
        tail=(*tail_ids, *tokenize(header)),
        user_start=len(system_ids),
        user_length=len(tail_ids),
    )


def follow_up(question: str, tokenize: Tokenize, *, assistant_header: bool = True) -> list[int]:
    """Ids of a question after an answer, from the end of the answer's turn on; arguments as in `build_prompt`."""
    check_question(question)
    said = tokenize(unicodedata.normalize("NFC", question), special=False)
    end = f"{END}{ASSISTANT_HEADER if assistant_header else ''}"
    return [*tokenize(f"{END}{USER}"), *said, *tokenize(end)]


def check_question(question: str) -> None:
    """Raise BadInput for a question that cannot stand in the template."""
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise BadInput("the question is not valid UTF-8 text")
    for placeholder in (POINT_CLOUD, IMAGE):
        if placeholder in unicodedata.normalize("NFC", question):
            raise BadInput(f"the question holds {placeholder}, which the prompt template places; leave it out")
    if not question.strip():
        raise BadInput("the question is empty; give one with -q")


def time_instruction(seconds: float, frame_times: Sequence[float]) -> str:
    """One line on the clip's length and the sampled frames' times, all in seconds."""
    times = ",".join(f"{time:.2f}s" for time in frame_times)
    return (
        f"The video lasts for {seconds:.2f} seconds, and {len(frame_times)} frames are uniformly sampled from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )


def without_header(ids: Iterator[int], header: tuple[int, ...]) -> Iterator[int]:
    """Leave out the assistant's header where the model writes it itself at the start."""
    held: list[int] = []
    for token in ids:
        held.append(token)
        if tuple(held) == header[: len(held)]:
            if len(held) == len(header):
                held = []
                break
            continue
        break
    yield from held
    yield from ids
