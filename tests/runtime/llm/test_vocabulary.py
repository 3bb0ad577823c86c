from collections.abc import Iterator
from pathlib import Path

import pytest
from stllm_edge.runtime import BadBundle, StllmError
from stllm_edge.runtime.llm.vocabulary import Vocabulary, decode_text, until_stop

TEXTS = [
    "Where is the cup?",
    "",
    " ",
    "\n",
    "\nWhere?<|im_end|>\n",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "0.23s,0.67s,1.10s.Please answer",
    "  two  spaces\tand a tab\r\n\r\n",
    "It's they're I'LL don't",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f600 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "12345 3.14159 -7",
    "x" * 300,
    "<|im_end|><|im_end|>nothing<|im_start|>",
    "not special: <|im_star|> <im_end>",
]


@pytest.fixture(scope="module")
def vocabulary(gguf: Path) -> Iterator[Vocabulary]:
    with Vocabulary(gguf) as loaded:
        yield loaded


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_checkpoint_s_tokenizer(vocabulary, tiny_checkpoint, text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    assert vocabulary.tokenize(text) == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", [text for text in TEXTS if "<|im_" not in text])
def test_pieces_join_to_the_text(vocabulary, text: str) -> None:
    assert b"".join(vocabulary.piece(token) for token in vocabulary.tokenize(text)).decode() == text


def test_special_tokens_have_no_text(vocabulary) -> None:
    (token,) = vocabulary.tokenize("<|im_end|>")
    assert vocabulary.piece(token) == b""


def test_a_lone_surrogate_is_refused(vocabulary) -> None:
    """What Python makes of a command line that is not UTF-8."""
    with pytest.raises(StllmError):
        vocabulary.tokenize("caf\udce9?")


def test_size(vocabulary) -> None:
    assert len(vocabulary) == 1024


@pytest.mark.parametrize("content", [b"", b"no gguf", b"GGUF\x03\0\0\0"])
def test_files_that_libllama_refuses(tmp_path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(BadBundle, match=r"broken\.gguf: libllama could not load it"):
        Vocabulary(file)


def test_a_closed_vocabulary_says_so(gguf) -> None:
    with Vocabulary(gguf) as vocabulary:
        pass
    for use in (lambda: vocabulary.piece(5), lambda: vocabulary.tokenize("a"), lambda: len(vocabulary)):
        with pytest.raises(StllmError, match="the vocabulary was closed"):
            use()


def test_closing_twice_is_harmless(gguf) -> None:
    vocabulary = Vocabulary(gguf)
    vocabulary.close()
    vocabulary.close()


@pytest.mark.parametrize("text", ["plain", "na\u00efve \u4f60\u597d", "\U0001f600\U0001f600", ""])
def test_text_cut_anywhere_is_joined(text: str) -> None:
    data = text.encode()
    for size in (1, 2, 3, 5):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert "".join(decode_text(iter(pieces))) == text


def test_characters_wait_for_their_end() -> None:
    assert list(decode_text(iter([b"a\xe4", b"\xbd", b"\xa0b"]))) == ["a", "\u4f60b"]


def test_broken_text_is_marked() -> None:
    assert "".join(decode_text(iter([b"a\xffb", b"\xe4"]))) == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        (["On the ", "table. And"], ["."], "On the table"),
        (["a", "b", "c", "d"], ["bc"], "a"),
        (["a", "b", "x"], ["bc"], "abx"),
        (["ab"], ["abc"], "ab"),
        (["stop"], ["stop"], ""),
        (["one two"], ["two", "one"], ""),
        (["aab"], ["ab"], "a"),
        (["a", "a", "b"], ["ab"], "a"),
    ],
)
def test_a_text_ends_before_the_first_stop_however_it_is_cut(pieces: list[str], stops: list[str], shown: str) -> None:
    found: list[bool] = []
    assert "".join(until_stop(iter(pieces), stops, lambda: found.append(True))) == shown
    assert bool(found) == any(stop in "".join(pieces) for stop in stops)
