"""Ids of added tokens, and of strings of every script, by libllama and by the tokenizers library."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.errors import BadBundle
from stllm_edge.runtime.llm.vocabulary import ADDED_TOKENS, Vocabulary

# first and last character of what is drawn from; the scripts of Unicode 15 are far apart
RANGES = (
    *((0x00, 0x7F), (0x80, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F)),
    *(
        (0x530, 0x5FF),
        (0x600, 0x77F),
        (0x780, 0x8FF),
        (0x900, 0xDFF),
        (0xE00, 0xFFF),
        (0x1000, 0x11FF),
        (0x1200, 0x139F),
    ),
    *((0x13A0, 0x18AF), (0x1900, 0x1CFF), (0x1D00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x23FF), (0x2400, 0x27BF)),
    *((0x27C0, 0x2BFF), (0x2C00, 0x2E7F), (0x2E80, 0x303F), (0x3040, 0x31FF), (0x3200, 0x4DFF), (0x4E00, 0x9FFF)),
    *((0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xFAFF), (0xFB00, 0xFFFF), (0x10000, 0x1107F), (0x11080, 0x12FFF)),
    *((0x13000, 0x18CFF), (0x1AFF0, 0x1D7FF), (0x1D800, 0x1FAFF), (0x20000, 0x323AF), (0xE0000, 0x10FFFF)),
)
MIXED = (
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'s",
    "'S",
    "'\u017f",
    "1",
    "23",
    "a",
    "The",
    "\u200d",
    "\ufe0f",
    "\U0001f3fd",
    "👩",
    "🇫",
)
ALIKE = (
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|im_end|",
    "|im_end|>",
    "<|",
    "|>",
    "<|IM_END|>",
    "<|im_end|>\u0338",
)


def strings_of_every_script(count: int) -> Iterator[str]:
    """Characters of one range or of several, with spaces, digits, line ends, emoji's parts and special spellings."""
    generator = np.random.default_rng(1)
    for number in range(count):
        ranges = generator.choice(RANGES, generator.integers(1, 3)) if number % 5 else np.array(RANGES)
        pieces = [*MIXED, *ALIKE] if number % 3 == 0 else [*MIXED]
        for low, high in ranges:
            pieces += [chr(c) for c in generator.integers(low, high + 1, 12) if not 0xD800 <= c <= 0xDFFF]
        text = "".join(generator.choice(pieces, generator.integers(1, 40)))
        yield text + " " * int(generator.integers(0, 300)) * (number % 50 == 0)


def test_six_thousand_strings_of_every_script_give_the_same_ids(qwen2: Any) -> None:
    texts = list(strings_of_every_script(6000))
    assert [text for text in texts if not qwen2.same(text)] == []
    assert [text for text in texts if not qwen2.same(text, special=False)] == []


def add_token(path: Path, **entry: Any) -> None:
    """Add a token to a `tokenizer.json`."""
    file = path / "tokenizer.json"
    content = json.loads(file.read_text())
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append(token | entry)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_give_the_same_ids(
    special: bool, normalized: bool, pair_of: Any, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    """One that holds another one is no reason to refuse, nor is one without brackets."""
    path = alter()
    for row, content in ((1003, "<obj>"), (1004, "<obj>_left"), (1005, "fridge")):
        add_token(path, id=row, content=content, special=special, normalized=normalized)
    result = stllm("export", "gguf", "--ckpt", path, "--out", tmp_path / "bundle", "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = pair_of(path, tmp_path / "bundle/llm/BF16.gguf")
    texts = ("find the <obj> near me", "<obj>_left<obj>_lef fridges <obj><|im_end|>", "<<obj>> a fridge_left fridg")
    assert [text for text in texts if not pair.same(text)] == []
    pair.vocabulary.close()


STRIPPING = (
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\u00a0",
    "\u2003",
    "\x1c",
    "\u200b",
    "a",
    "é",
    "e\u0301",
    "\u0338",
    ".",
    "1",
)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_that_take_spaces_give_the_same_ids(
    special: bool, normalized: bool, pair_of: Any, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    path = alter()
    flags: tuple[dict[str, bool], ...] = ({"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {})
    tokens = ("<left>", "<right>", "<both>", "<none>")
    for row, (content, strips) in enumerate(zip(tokens, flags, strict=True), start=1003):
        add_token(path, id=row, content=content, special=special, normalized=normalized, **strips)
    result = stllm("export", "gguf", "--ckpt", path, "--out", tmp_path / "bundle", "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = pair_of(path, tmp_path / "bundle/llm/BF16.gguf")
    generator = np.random.default_rng(0)
    pieces = np.array([*STRIPPING, *tokens, *tokens, "<|im_end|>"])
    texts = ["".join(generator.choice(pieces, length)) for length in generator.integers(1, 12, 1500)]
    assert [text for text in texts if not pair.same(text)] == []
    assert [text for text in texts if not pair.same(text, special=False)] == []
    pair.vocabulary.close()


def test_case_of_an_added_token_that_takes_spaces(
    field_case: Callable[[str], Path], stllm: Any, tmp_path: Path
) -> None:
    folder = field_case("30-added-tokens/special_strips")
    result = stllm("export", "gguf", "--ckpt", folder / "checkpoint", "--out", tmp_path / "bundle", "--quant", "F32")
    assert result.exit_code == 0, result.output
    with Vocabulary(tmp_path / "bundle/llm/F32.gguf") as vocabulary:
        assert vocabulary.tokenize("find the <obj> near me") == [69, 414, 258, 650, 77, 68, 276, 299, 68]


@pytest.mark.parametrize("stated", ["[1]", "{", '{"7": 1}', '{"1024": []}', '{"x": []}'])
def test_file_that_misstates_its_added_tokens_is_refused(stated: str, tiny_bundle: Path, tmp_path: Path) -> None:
    import gguf

    copy = tmp_path / "F32.gguf"
    source = gguf.GGUFReader(tiny_bundle / "llm/F32.gguf")
    out = gguf.GGUFWriter(copy, arch="qwen2")
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = stated if key == ADDED_TOKENS else field.contents()
        out.add_key_value(key, value, field.types[0], kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    with pytest.raises(BadBundle, match=f"misstates {ADDED_TOKENS}"):
        Vocabulary(copy)
