"""libllama reads from the GGUF file the tokenizer that the checkpoint holds."""

import json
import logging
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.tokenizer import Tokenizer, reference_ids, stop_ids
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.llm.prompt import build_prompt

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


@pytest.fixture(scope="module")
def generated(pair_of: Any, tiny_checkpoint: Path, tiny_bundle: Path) -> Iterator[Any]:
    pair = pair_of(tiny_checkpoint, tiny_bundle / "llm" / "Q8_0.gguf")
    yield pair
    pair.vocabulary.close()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_generated_tokenizer_gives_the_same_ids(text: str, generated: Any) -> None:
    assert generated.same(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_qwen2_tokenizer_gives_the_same_ids(text: str, qwen2: Any) -> None:
    assert qwen2.same(text)


def random_texts(count: int) -> Iterator[str]:
    """Words, digits, punctuation, line ends and letters of many scripts in random order."""
    generator = np.random.default_rng(0)
    pieces = [*"aA1 .\n\t'-é中я🙂", "the", " cup", "  ", "'s", "12", "\r\n", "<|im_end|>", "_", "Ω", "한"]
    for length in generator.integers(1, 60, count):
        yield "".join(generator.choice(pieces, length))


def test_random_mixtures_give_the_same_ids(generated: Any) -> None:
    assert [text for text in random_texts(500) if not generated.same(text)] == []


def test_random_mixtures_give_the_same_ids_with_qwen2(qwen2: Any) -> None:
    assert [text for text in random_texts(500) if not qwen2.same(text)] == []


def test_pieces_of_ids_give_the_text_back(generated: Any) -> None:
    text = "The cup's 3 metres left: 杯子 🙂\n"
    ids = generated.vocabulary.tokenize(text)
    assert b"".join(generated.vocabulary.piece(token) for token in ids).decode() == text


def test_rows_without_a_token_are_never_produced(qwen2: Any) -> None:
    assert len(qwen2.vocabulary) == 152_064
    assert all(token < 151_646 for token in qwen2.vocabulary.tokenize("[PAD151700] [PAD0]"))
    assert qwen2.same("[PAD151700] [PAD0]")


def test_reference_prompt_has_the_reference_ids(golden: Any, qwen2: Any) -> None:
    prompt = build_prompt(golden.case["question"], qwen2.vocabulary.tokenize, assistant_header=False)
    placed = {-300: 151647, -200: 151646}
    ids = [placed.get(token, token) for token in prompt.token_ids.tolist()]
    assert ids == golden.case["prompt_token_ids_full_qwen2_vocabulary"]


# the question is text

TAIL = "<|im_end|>\n"
SPECIAL = ("<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<|im_start|>")


def asked(pair: Any, question: str) -> list[int]:
    return list(build_prompt(question, pair.vocabulary.tokenize, assistant_header=False).tail)


def expected(pair: Any, question: str) -> list[int]:
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
