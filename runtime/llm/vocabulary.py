"""The tokenizer inside a GGUF file: text to ids, ids to text."""

import codecs
import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput, StllmError
from .libllama import libllama, load_model

__all__ = ["Vocabulary", "decode_text", "until_stop"]


class Vocabulary:
    """The tokenizer inside a GGUF file, loaded without the weights; as a context manager, it frees itself."""

    def __init__(self, path: Path):
        """Load the vocabulary; raises BadBundle when libllama refuses the file."""
        self._llama = libllama()
        self._model = load_model(path, vocab_only=True)
        self._vocab = self._llama.llama_model_get_vocab(self._model)

    def __len__(self) -> int:
        self._require_open()
        return int(self._llama.llama_vocab_n_tokens(self._vocab))

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Ids of a text; raises BadInput when it is not valid UTF-8.

        Args:
            text: any text.
            special: whether the spelling of a special token is that token, rather than text as any other.
        """
        self._require_open()
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput(f"{text!r} is not valid UTF-8 text") from None
        # a token stands for one byte at least
        ids = (self._llama.llama_token * max(len(data), 1))()
        # False: a piece of a prompt gets no token before it
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, special)
        if count < 0:
            raise StllmError(f"libllama could not tokenise {text[:40]!r}")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for special tokens."""
        self._require_open()
        buffer = ctypes.create_string_buffer(64)
        count = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if count < 0:
            # too short: libllama returns the negative of what it needs
            buffer = ctypes.create_string_buffer(-count)
            count = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def ends(self, token: int) -> bool:
        """Whether the tokenizer says that a token ends an answer."""
        self._require_open()
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    def grammar(self, text: str) -> Any:
        """A sampler of libllama's that allows only what a grammar does; the caller frees it.

        Raises:
            BadInput: libllama does not take the grammar.
        """
        self._require_open()
        sampler = self._llama.llama_sampler_init_grammar(self._vocab, text.encode(), b"root")
        if not sampler:
            raise BadInput("libllama does not take the grammar of --choices or --json-schema; the log (-v) says why")
        return sampler

    def close(self) -> None:
        """Free the vocabulary."""
        if self._model is not None:
            self._llama.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> "Vocabulary":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _require_open(self) -> None:
        """Raise StllmError once the vocabulary has been freed; libllama would read freed memory."""
        if self._model is None:
            raise StllmError("the vocabulary was closed; ask again")


def decode_text(pieces: Iterator[bytes]) -> Iterator[str]:
    """Text of byte pieces as they come; a character cut between two pieces waits for its end."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def until_stop(pieces: Iterator[str], stops: Sequence[str], found: Callable[[], None]) -> Iterator[str]:
    """Pieces up to the first of some texts, which may be cut between two pieces; the beginning of one waits.

    Args:
        pieces: of an answer.
        stops: texts that end it.
        found: is called when one has come.
    """
    held = ""
    for piece in pieces:
        held += piece
        places = [place for stop in stops if (place := held.find(stop)) >= 0]
        if places:
            found()
            if min(places):
                yield held[: min(places)]
            return
        # as much as may be the beginning of a stop waits
        longest = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        if shown := held[: len(held) - longest]:
            yield shown
        held = held[len(held) - longest :]
    if held:
        yield held
