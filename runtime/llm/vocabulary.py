"""The tokenizer inside a GGUF file: text to ids, ids to text.

A text is cut at added tokens here, as the `tokenizers` library does it: GGUF has no word for a token that takes the
spaces beside it, and a cut before the text is normalised is not the same as one after. What lies between is libllama's.
"""

import codecs
import ctypes
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadBundle, BadInput, StllmError
from .libllama import libllama, load_model, metadata
from .unicode import WHITE, normalise, pieces

__all__ = ["ADDED_TOKENS", "Vocabulary", "decode_text", "until_stop"]

# metadata: a JSON object, for each added token's id a list of `special`, `normalized`, `lstrip`, `rstrip`
ADDED_TOKENS = "stllm.tokenizer.added_tokens"
# pieces of the template whose ids are kept
TEMPLATES = 32


@dataclass(frozen=True)
class AddedToken:
    """A token that is found before a text is split: its id, its text, and what `ADDED_TOKENS` says of it."""

    token: int
    text: str
    flags: frozenset[str]


class Cuts:
    """Where a text is cut: at some of the added tokens, the first, and of those the longest."""

    def __init__(self, added: list[AddedToken]):
        self._added = {entry.text: entry for entry in added}
        longest = sorted(self._added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest))) if added else None

    def of(self, text: str, special: bool) -> Iterator[str | int]:
        """The text's pieces in their order, and the ids of the tokens between them."""
        done = 0
        for found in self._pattern.finditer(text) if self._pattern else ():
            entry = self._added[found[0]]
            if "special" in entry.flags and not special:
                continue
            # what an earlier token took is not there any more
            start, stop = max(found.start(), done), found.end()
            if "lstrip" in entry.flags:
                start = done + len(text[done:start].rstrip(WHITE))
            if "rstrip" in entry.flags:
                stop = len(text) - len(text[stop:].lstrip(WHITE))
            if start > done:
                yield text[done:start]
            yield entry.token
            done = stop
        if done < len(text):
            yield text[done:]


class Vocabulary:
    """The tokenizer inside a GGUF file, loaded without the weights; as a context manager, it frees itself."""

    def __init__(self, path: Path):
        """Load the vocabulary; raises BadBundle when libllama refuses the file."""
        self._llama = libllama()
        self._model = load_model(path, vocab_only=True)
        self._vocab = self._llama.llama_model_get_vocab(self._model)
        self._known: dict[str, tuple[int, ...]] = {}
        stated = metadata(self._model, ADDED_TOKENS)
        # without it, libllama cuts at the tokens that the file calls special
        self._cuts = None if stated is None else self._read_added(path, stated)

    def __len__(self) -> int:
        self._require_open()
        return int(self._llama.llama_vocab_n_tokens(self._vocab))

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Ids of a text, which is normalised to NFC; raises BadInput when it is not valid UTF-8.

        Args:
            text: any text.
            special: whether the spelling of a special token is that token, rather than text as any other.
        """
        self._require_open()
        if special and text in self._known:
            return list(self._known[text])
        ids = self._ids(text, special)
        # what has special tokens is of the template, and stands in every prompt
        if special and len(self._known) < TEMPLATES:
            self._known[text] = tuple(ids)
        return ids

    def _ids(self, text: str, special: bool) -> list[int]:
        if self._cuts is None:
            return self._split(normalise(text), special)
        ids: list[int] = []
        before, after = self._cuts
        for found in before.of(text, special):
            for part in [found] if isinstance(found, int) else after.of(normalise(found), special):
                if isinstance(part, int):
                    ids.append(part)
                else:
                    ids += [token for word in pieces(part) for token in self._split(word, False)]
        return ids

    def _read_added(self, path: Path, stated: str) -> tuple[Cuts, Cuts]:
        """Cuts before a text is normalised, and after; raises BadBundle where the metadata makes no sense."""
        try:
            rows = {int(row): frozenset(map(str, flags)) for row, flags in json.loads(stated).items()}
            if beyond := [row for row in rows if not 0 <= row < len(self)]:
                raise ValueError(f"id {beyond[0]} of {len(self)}")
        except (ValueError, TypeError, AttributeError) as error:
            self.close()
            raise BadBundle(f"{path}: misstates {ADDED_TOKENS} ({error}); export it again") from None
        text = self._llama.llama_vocab_get_text
        added = [AddedToken(row, text(self._vocab, row).decode(), flags) for row, flags in rows.items()]
        late = [entry for entry in added if "normalized" in entry.flags]
        return Cuts([entry for entry in added if entry not in late]), Cuts(late)

    def _split(self, text: str, special: bool) -> list[int]:
        """Ids of a text by libllama."""
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
