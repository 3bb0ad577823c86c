"""The tokenizer inside a GGUF file: text to ids, ids to text."""

import codecs
import ctypes
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadInput, StllmError
from .libllama import libllama, load_model

__all__ = ["Vocabulary", "decode_text"]


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
