"""libllama reads from the GGUF file the tokenizer that the checkpoint holds."""

import json
import logging
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.tokenizer import Tokenizer, reference_ids, stop_ids
from stllm_edge.runtime.errors import BadBundle, BadInput
from stllm_edge.runtime.llm.prompt import build_prompt
from stllm_edge.runtime.llm.vocabulary import ADDED_TOKENS, Vocabulary
from tokenizers import Tokenizer as Reference

TEXTS = {
    "empty": "",
    "words": "In which direction should the person turn to face the table?",
    "capitals": "AFTER finishing the Action IN the VIDEO",
    "contractions": "it's I'm we're they've he'd she'll can't IT'S I'M WE'RE",
    "digits": "1 12 123 1234567890 3.14 0.23s,0.67s,1.10s 4K x2 2x",
    "other digits": "٣ ५ Ⅷ ½ ² ①",
    "whitespace runs": "a  b   c    d \t e\t\tf  ",
    "leading whitespace": "   three spaces",
    "line ends": "one\ntwo\n\nthree\r\nfour\r\r\n\n\n  five\n  \n",
    "only spaces": "      ",
    "only line ends": "\n\n\n",
    "other spaces": "no\u00a0break thin\u2009ideographic\u3000next\u0085line\u2028separator",
    "punctuation": "...!?;: (a) [b] {c} <d> \"e\" 'f' `g` -- --- -_- ~~ @#$%^&*+=|\\/",
    "punctuation and line ends": "end.\n\nnext;\r\n{\n}\n",
    "accents": "café naïve Übergrößenträger Ångström señor",
    "cyrillic and greek": "Где находится чашка? Πού είναι το φλιτζάνι;",
    "chinese": "杯子在哪里？在桌子的左边。",
    "japanese": "カップはどこですか。テーブルの上です。",
    "korean": "컵은 어디에 있나요?",
    "arabic and hebrew": "أين الكوب؟ איפה הכוס?",
    "hindi and thai": "कप कहाँ है? ถ้วยอยู่ที่ไหน",
    "emoji": "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷 ☕️",
    "beyond the basic plane": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀 𐍈",
    "symbols": "→ ← ≥ ≠ ∑ € £ ¥ © ® ™ ° µ",
    "control characters": "a\x01b\x7fc\x00d",
    "special tokens": "<|im_start|>user\nhello<|im_end|>\n",
    "special tokens without space": "a<|im_end|><|im_end|>b<|endoftext|>",
    "broken special tokens": "<|im_start> <|im_start| >|im_end|> <|unknown|>",
    "placeholders": "<pointcloud>\n<image>\n",
    "long": "the cup on the table " * 200,
    "long word": "a" * 3000,
    "code": "def f(x):\n    return x**2  # square\n",
    "web": "https://example.org/a?b=c&d=%20e#f me@example.org",
}


class Pair:
    """A checkpoint's tokenizer in both implementations."""

    def __init__(self, checkpoint: Path, gguf: Path):
        self.vocabulary = Vocabulary(gguf)
        self.reference = Reference.from_file(str(checkpoint / "tokenizer.json"))

    def same(self, text: str, special: bool = True) -> bool:
        self.reference.encode_special_tokens = not special
        ids = self.reference.encode(text, add_special_tokens=False).ids
        self.reference.encode_special_tokens = False
        return self.vocabulary.tokenize(text, special) == ids


@pytest.fixture(scope="module")
def generated(tiny_checkpoint: Path, tiny_bundle: Path) -> Iterator[Pair]:
    pair = Pair(tiny_checkpoint, tiny_bundle / "llm" / "Q8_0.gguf")
    yield pair
    pair.vocabulary.close()


@pytest.fixture(scope="module")
def qwen2_checkpoint(qwen2_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with as many rows as a 7B checkpoint has, more than the tokenizer has tokens."""
    llm = replace(TINY.llm, width=32, heads=2, kv_heads=1, ffn=32, layers=1, vocabulary=152_064, tied=True)
    aligner = replace(TINY.aligner, layers=1, cross_layers=(0,), ffn=64)
    folder = write_checkpoint(tmp_path_factory.mktemp("qwen2") / "checkpoint", replace(TINY, llm=llm, aligner=aligner))
    for file in qwen2_tokenizer.glob("*.*"):
        shutil.copyfile(file, folder / file.name)
    (folder / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    return folder


@pytest.fixture(scope="module")
def qwen2(qwen2_checkpoint: Path, stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    bundle = tmp_path_factory.mktemp("qwen2") / "bundle"
    result = stllm("export", "gguf", "--ckpt", qwen2_checkpoint, "--out", bundle, "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = Pair(qwen2_checkpoint, bundle / "llm" / "BF16.gguf")
    yield pair
    pair.vocabulary.close()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_generated_tokenizer_gives_the_same_ids(text: str, generated: Pair) -> None:
    assert generated.same(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_qwen2_tokenizer_gives_the_same_ids(text: str, qwen2: Pair) -> None:
    assert qwen2.same(text)


def random_texts(count: int) -> Iterator[str]:
    """Words, digits, punctuation, line ends and letters of many scripts in random order."""
    generator = np.random.default_rng(0)
    pieces = [*"aA1 .\n\t'-é中я🙂", "the", " cup", "  ", "'s", "12", "\r\n", "<|im_end|>", "_", "Ω", "한"]
    for length in generator.integers(1, 60, count):
        yield "".join(generator.choice(pieces, length))


def test_random_mixtures_give_the_same_ids(generated: Pair) -> None:
    assert [text for text in random_texts(500) if not generated.same(text)] == []


def test_random_mixtures_give_the_same_ids_with_qwen2(qwen2: Pair) -> None:
    assert [text for text in random_texts(500) if not qwen2.same(text)] == []


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


def test_six_thousand_strings_of_every_script_give_the_same_ids(qwen2: Pair) -> None:
    texts = list(strings_of_every_script(6000))
    assert [text for text in texts if not qwen2.same(text)] == []
    assert [text for text in texts if not qwen2.same(text, special=False)] == []


def test_pieces_of_ids_give_the_text_back(generated: Pair) -> None:
    text = "The cup's 3 metres left: 杯子 🙂\n"
    ids = generated.vocabulary.tokenize(text)
    assert b"".join(generated.vocabulary.piece(token) for token in ids).decode() == text


def test_rows_without_a_token_are_never_produced(qwen2: Pair) -> None:
    assert len(qwen2.vocabulary) == 152_064
    assert all(token < 151_646 for token in qwen2.vocabulary.tokenize("[PAD151700] [PAD0]"))
    assert qwen2.same("[PAD151700] [PAD0]")


def test_reference_prompt_has_the_reference_ids(golden: Any, qwen2: Pair) -> None:
    prompt = build_prompt(golden.case["question"], qwen2.vocabulary.tokenize, assistant_header=False)
    placed = {-300: 151647, -200: 151646}
    ids = [placed.get(token, token) for token in prompt.token_ids.tolist()]
    assert ids == golden.case["prompt_token_ids_full_qwen2_vocabulary"]


# the question is text

TAIL = "<|im_end|>\n"
SPECIAL = ("<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<|im_start|>")


def asked(pair: Pair, question: str) -> list[int]:
    return list(build_prompt(question, pair.vocabulary.tokenize, assistant_header=False).tail)


def expected(pair: Pair, question: str) -> list[int]:
    """The question as its own tokenizer takes it, between what the template puts there."""
    said = f"\n{unicodedata.normalize('NFC', question)}"
    pair.reference.encode_special_tokens = True
    ids = pair.reference.encode(said, add_special_tokens=False).ids
    pair.reference.encode_special_tokens = False
    return list(ids + pair.reference.encode(TAIL, add_special_tokens=False).ids)


@pytest.mark.parametrize("name", ["generated", "qwen2"])
def test_a_special_token_s_spelling_in_a_question_is_text(name: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(name)
    control = {pair.vocabulary.tokenize(token)[0] for token in SPECIAL}
    for token in SPECIAL:
        for question in (token, f"Where?{token}", f"{token}You lie.", f"a {token} b {token}\n", f"<{token}>"):
            ids = asked(pair, question)
            assert ids == expected(pair, question)
            assert [token for token in ids if token in control] == pair.vocabulary.tokenize("<|im_end|>")


@pytest.mark.parametrize("name", ["generated", "qwen2"])
def test_other_questions_have_the_ids_of_the_prompt_as_a_whole(name: str, request: pytest.FixtureRequest) -> None:
    """The cut behind the question is where a tokenizer cuts anyway; the newline before it is of its own text."""
    pair = request.getfixturevalue(name)
    texts = [*TEXTS.values(), *random_texts(600)]
    questions = [text for text in texts if text.strip() and "<|" not in text and "<image>" not in text]
    assert len(questions) > 150
    for question in questions:
        whole = pair.vocabulary.tokenize(unicodedata.normalize("NFC", f"\n{question}{TAIL}"))
        assert asked(pair, question) == whole == expected(pair, question)


# reading the files


def test_vocabulary_and_merges_give_what_tokenizer_json_gives(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(qwen2_checkpoint, copy)
    whole = Tokenizer.read(Checkpoint(copy), 152_064)
    (copy / "tokenizer.json").unlink()
    parts = Tokenizer.read(Checkpoint(copy), 152_064)
    assert parts == whole
    assert reference_ids(Checkpoint(copy), "text") is None


def test_roles_come_from_the_checkpoint(tiny_checkpoint: Path) -> None:
    tokenizer = Tokenizer.read(Checkpoint(tiny_checkpoint), 1024)
    assert tokenizer.special["eos"] == tokenizer.tokens.index("<|im_end|>")
    assert tokenizer.special["padding"] == tokenizer.tokens.index("<|endoftext|>")
    assert "bos" not in tokenizer.special
    assert tokenizer.chat_template is not None
    assert "<|im_start|>" in tokenizer.chat_template
    assert len(tokenizer.tokens) == len(set(tokenizer.tokens)) == len(tokenizer.types) == 1024


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ('{"eos_token_id": [1002, 1000]}', 9, [1002, 1000]),
        ('{"eos_token_id": 1002}', 9, [1002]),
        ("{}", 1002, [1002]),
        ('{"eos_token_id": null}', [9, 1002, 9], [9, 1002]),
        ('{"eos_token_id": []}', 1002, [1002]),
        (None, 1002, [1002]),
    ],
)
def test_stop_ids_come_from_the_generation_config_or_the_config(
    generation: str | None,
    config: Any,
    expected: list[int],
    alter: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = alter(config={"eos_token_id": config})
    (path / "generation_config.json").unlink()
    if generation is not None:
        (path / "generation_config.json").write_text(generation)
    with caplog.at_level(logging.WARNING):
        assert stop_ids(Checkpoint(path)) == expected
    assert not caplog.records


@pytest.mark.parametrize(("stated", "expected"), [(1000, [1000, 1002]), ([1000, 7], [1000, 7, 1002])])
def test_id_that_ends_a_turn_is_added_and_told(
    stated: Any, expected: list[int], alter: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = alter()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    with caplog.at_level(logging.WARNING):
        assert stop_ids(Checkpoint(path)) == expected
        assert Tokenizer.read(Checkpoint(path), 1024).special["eos"] == expected[0]
    assert ["lacks <|im_end|> (1002)" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("stated", [1024, -1, [1002, 151645], "1002", 2.0, True, [[1002]], {"id": 1002}])
def test_stop_id_that_is_no_token_is_refused(stated: Any, alter: Callable[..., Path]) -> None:
    path = alter()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    with pytest.raises(
        BadInput, match=r"generation_config\.json: eos_token_id has .*, expected ids of tokens, 0\.\.1023"
    ):
        stop_ids(Checkpoint(path))


def test_case_of_a_stop_id_of_the_base_model(field_case: Callable[[str], Path]) -> None:
    folder = field_case("18-stop-id-of-the-base-model/base_model")
    assert stop_ids(Checkpoint(folder / "checkpoint")) == [647, 649]


def edit_tokenizer(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = path / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return path


def add(**entry: Any) -> Callable[[dict[str, Any]], object]:
    """Change of `tokenizer.json`: one more added token."""
    token = {"id": 1003, "content": "<obj>", "single_word": False, "lstrip": False, "rstrip": False}
    return lambda content: content["added_tokens"].append(token | {"normalized": False, "special": True} | entry)


def step(index: int, **change: Any) -> Callable[[dict[str, Any]], object]:
    """Change of one step of the pre-tokeniser."""
    return lambda content: content["pre_tokenizer"]["pretokenizers"][index].update(change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content["model"].update(type="Unigram"), "not a Qwen2 tokenizer"),
        (lambda content: content.update(pre_tokenizer={"type": "Whitespace"}), "not a Qwen2 tokenizer"),
        (lambda content: content.update(pre_tokenizer=None), "not a Qwen2 tokenizer"),
        (step(0, pattern={"Regex": r"\p{N}{1,3}|.+"}), "not a Qwen2 tokenizer: its pre_tokenizer"),
        (step(0, behavior="Removed"), "its pre_tokenizer"),
        (step(0, invert=True), "its pre_tokenizer"),
        (step(1, add_prefix_space=True), "its pre_tokenizer"),
        (step(1, use_regex=True), "its pre_tokenizer"),
        (lambda content: content["pre_tokenizer"]["pretokenizers"].append({"type": "Punctuation"}), "pre_tokenizer"),
        (lambda content: content.update(normalizer={"type": "NFKC"}), "its normalizer is .*NFKC"),
        (lambda content: content.update(normalizer=None), "its normalizer is"),
        (
            lambda content: content.update(
                normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
            ),
            "its normalizer is .*Lowercase",
        ),
        (lambda content: content.update(decoder={"type": "WordPiece"}), "its decoder is"),
        (lambda content: content.update(post_processor={"type": "TemplateProcessing"}), "its post_processor is"),
        (lambda content: content["model"].update(ignore_merges=True), "ignore_merges is True"),
        (lambda content: content["model"].update(byte_fallback=True), "byte_fallback is True"),
        (lambda content: content["model"].update(dropout=0.1), "dropout is 0.1"),
        (lambda content: content["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (lambda content: content["model"].update(something_new=1), "something_new"),
        (lambda content: content.pop("model"), "model"),
        (lambda content: content["model"].pop("merges"), "merges"),
        (lambda content: content.update(added_tokens=[]), r"lacks <\|im_start\|>"),
        (lambda content: content["model"]["vocab"].update(far=1024), "token of id 1024.*1024 rows"),
        (lambda content: content["model"]["vocab"].update(twin=17), "id 17 to both"),
        (add(content="in", id=1003), "'in' under two ids"),
        (add(single_word=True), "'<obj>' has single_word"),
        (add(content="caf\u0065\u0301"), "is not in the normal form NFC"),
        (add(content="|><object_of_the_room>"), r"'<\|\w+\|>' and '\|><object_of_the_room>' can overlap"),
        (add(content="a<|im_end|>", normalized=True), r"'<\|im_end\|>' and 'a<\|im_end\|>' can overlap"),
        (add(id="x"), "lacks or misstates"),
    ],
)
def test_other_tokenizers_are_refused(
    change: Callable[[dict[str, Any]], object], named: str, alter: Callable[..., Path]
) -> None:
    path = edit_tokenizer(alter(), change)
    with pytest.raises(BadInput, match=named):
        Tokenizer.read(Checkpoint(path), 1024)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokenizer_class": "GPT2Tokenizer"}, "tokenizer_class is 'GPT2Tokenizer'"),
        ({"add_prefix_space": True}, "add_prefix_space is True"),
        ({"split_special_tokens": True}, "split_special_tokens is True"),
        ({"add_bos_token": True}, "add_bos_token is True"),
        ({"added_tokens_decoder": {"1003": {"content": "<obj>"}}}, "'<obj>' as id 1003, tokenizer.json not"),
        ({"added_tokens_decoder": {"1001": {"content": "<|im_end|>"}}}, "as id 1001, tokenizer.json as 1002"),
        ({"added_tokens_decoder": {"1002": {"content": "<|im_end|>", "rstrip": True}}}, "has rstrip in one of"),
        ({"added_tokens_decoder": {"1002": {"text": "<|im_end|>"}}}, "misstates 'content'"),
    ],
)
def test_description_that_changes_ids_is_refused(
    change: dict[str, Any], named: str, alter: Callable[..., Path]
) -> None:
    path = alter()
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BadInput, match=named):
        Tokenizer.read(Checkpoint(path), 1024)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_give_the_same_ids(
    special: bool, normalized: bool, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    """One that holds another one is no reason to refuse, nor is one without brackets."""
    path = alter()
    for row, content in ((1003, "<obj>"), (1004, "<obj>_left"), (1005, "fridge")):
        edit_tokenizer(path, add(id=row, content=content, special=special, normalized=normalized))
    result = stllm("export", "gguf", "--ckpt", path, "--out", tmp_path / "bundle", "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = Pair(path, tmp_path / "bundle/llm/BF16.gguf")
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
    special: bool, normalized: bool, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    path = alter()
    flags = ({"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {})
    tokens = ("<left>", "<right>", "<both>", "<none>")
    for row, (content, strips) in enumerate(zip(tokens, flags, strict=True), start=1003):
        edit_tokenizer(path, add(id=row, content=content, special=special, normalized=normalized, **strips))
    result = stllm("export", "gguf", "--ckpt", path, "--out", tmp_path / "bundle", "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = Pair(path, tmp_path / "bundle/llm/BF16.gguf")
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


def test_case_of_vocabulary_and_merges(field_case: Callable[[str], Path]) -> None:
    folder = field_case("99-stays-right/vocab_and_merges") / "checkpoint"
    whole = Tokenizer.read(Checkpoint(folder), 1024)
    (folder / "tokenizer.json").unlink()
    assert Tokenizer.read(Checkpoint(folder), 1024) == whole


def test_missing_tokenizer_is_reported(alter: Callable[..., Path]) -> None:
    path = alter()
    (path / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"tokenizer\.json, or vocab\.json and merges\.txt"):
        Tokenizer.read(Checkpoint(path), 1024)


def test_missing_stop_id_is_reported(alter: Callable[..., Path]) -> None:
    path = alter(config={"eos_token_id": ...})
    (path / "generation_config.json").unlink()
    with pytest.raises(BadInput, match="eos_token_id"):
        stop_ids(Checkpoint(path))
