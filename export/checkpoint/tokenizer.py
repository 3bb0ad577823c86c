"""The checkpoint's tokenizer as GGUF wants it: tokens, types, merges, special ids, chat template."""

import json
import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from .checkpoint import Checkpoint
from .configuration import TOKENIZER_CONFIG_KEYS, TOKENIZER_MODEL_KEYS
from .files import read_json

__all__ = ["Tokenizer", "reference_ids", "stop_ids"]

LOG = logging.getLogger(__name__)
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# the steps before the merges, without what only moves offsets
QWEN2_STEPS = [
    {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
]
QWEN2_PARTS: dict[str, tuple[Any, ...]] = {
    "model": ("BPE",),
    "pre_tokenizer": (QWEN2_STEPS,),
    # stllm-run normalises questions so
    "normalizer": (["NFC"],),
    "decoder": (["ByteLevel"],),
    "post_processor": (["ByteLevel"], []),
}
TURN_END = "<|im_end|>"
TEMPLATE_TOKENS = ("<|im_start|>", TURN_END)
# GGUF has no word for a token that takes the spaces beside it; stllm-run cuts a text at added tokens itself
STRIPS = ("lstrip", "rstrip")
FLAGS = (*STRIPS, "single_word")


@dataclass(frozen=True)
class Added:
    """A token that is found before the text is split.

    Attributes:
        row: its id.
        special: whether it is left out of answers.
        normalized: whether it is found after those that are not.
        flags: those of `FLAGS` that are set.
    """

    row: int
    special: bool
    normalized: bool
    flags: tuple[str, ...]

    @classmethod
    def read(cls, row: Any, entry: Mapping[str, Any]) -> "Added":
        special = bool(entry.get("special", True))
        flags = tuple(flag for flag in FLAGS if entry.get(flag))
        return cls(int(row), special, bool(entry.get("normalized", not special)), flags)

    def words(self) -> list[str]:
        """What of it differs from a plain token, as GGUF metadata has it."""
        return [*self.flags, *["special"] * self.special, *["normalized"] * self.normalized]


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer.

    Attributes:
        tokens: one a row of the embedding matrix; rows without a token are named `[PAD<row>]`.
        types: GGUF token types.
        merges: pairs in the order of their rank.
        special: ids by role: eos, bos, padding.
        chat_template: Jinja text, if the checkpoint has one.
        added: how a text is cut at the added tokens, as `runtime.llm.vocabulary` reads it.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    chat_template: str | None
    added: str

    @classmethod
    def read(cls, checkpoint: Checkpoint, rows: int) -> "Tokenizer":
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises:
            BadInput: files are missing, or this is not a Qwen2 tokenizer that fits the embedding matrix.
        """
        vocabulary, merges, added = read_bpe(checkpoint)
        tokens = [f"[PAD{row}]" for row in range(rows)]
        types = [UNUSED] * rows
        for token, row in vocabulary.items():
            place(checkpoint, tokens, types, row, token, NORMAL)
        for token, entry in added.items():
            place(checkpoint, tokens, types, entry.row, token, CONTROL if entry.special else USER_DEFINED)
        config_file = checkpoint.find("tokenizer_config.json")
        config = read_json(config_file) if config_file else {}
        ids = {token: row for row, token in enumerate(tokens)}
        roles = {"eos": stated_stop_ids(checkpoint)[0]}
        for role, key in (("bos", "bos_token"), ("padding", "pad_token")):
            text = token_text(config.get(key))
            if text is not None and text in ids:
                roles[role] = ids[text]
        stated = sorted((entry.row, entry.words()) for entry in added.values())
        return cls(tokens, types, merges, roles, config.get("chat_template"), json.dumps(dict(stated)))


def read_bpe(checkpoint: Checkpoint) -> tuple[dict[str, int], list[str], dict[str, Added]]:
    """Vocabulary, merges and added tokens; raises BadInput unless libllama gives the same ids with them."""
    parts = read_whole(file) if (file := checkpoint.find("tokenizer.json")) else read_parts(checkpoint)
    vocabulary, _, added = parts
    if absent := [token for token in TEMPLATE_TOKENS if token not in added]:
        raise BadInput(f"{checkpoint.path}: the tokenizer lacks {', '.join(absent)}, which the prompt template needs")
    if config := checkpoint.find("tokenizer_config.json"):
        content = read_json(config)
        TOKENIZER_CONFIG_KEYS.check(
            str(config), {key: content[key] for key in TOKENIZER_CONFIG_KEYS.held & content.keys()}
        )
    for token, entry in (added | (stated := read_added(checkpoint))).items():
        if token not in added or (token in stated and stated[token].row != added[token].row):
            raise BadInput(
                f"{checkpoint.path}: tokenizer_config.json has {token!r} as id {entry.row}, tokenizer.json "
                f"{'as ' + str(added[token].row) if token in added else 'not'}; save the tokenizer again"
            )
        if "single_word" in (flags := entry.flags + added[token].flags):
            raise BadInput(
                f"{checkpoint.path}: the tokenizer's added token {token!r} has single_word, which stllm-run does not "
                "do, so ids would differ; save the tokenizer with the token without it"
            )
        if entry.flags != added[token].flags:
            raise BadInput(
                f"{checkpoint.path}: the tokenizer's added token {token!r} has {', '.join(dict.fromkeys(flags))} in "
                "one of tokenizer_config.json and tokenizer.json only; save the tokenizer again"
            )
    require_apart(checkpoint.path, added)
    if other := [token for token, entry in added.items() if vocabulary.get(token, entry.row) != entry.row]:
        raise BadInput(f"{checkpoint.path}: the tokenizer has {other[0]!r} under two ids; save the tokenizer again")
    return parts


def read_whole(file: Path) -> tuple[dict[str, int], list[str], dict[str, Added]]:
    """From `tokenizer.json`, all of whose steps have to be Qwen2's."""
    content = read_json(file)
    try:
        model = content["model"]
        steps = [strip_offsets(step) for step in flatten(content["pre_tokenizer"], "pretokenizers")]
        found = {
            "model": model["type"],
            "pre_tokenizer": steps,
            "normalizer": [step["type"] for step in flatten(content.get("normalizer"), "normalizers")],
            "decoder": [step["type"] for step in flatten(content.get("decoder"), "decoders")],
            "post_processor": [step["type"] for step in flatten(content.get("post_processor"), "processors")],
        }
        for part, usual in QWEN2_PARTS.items():
            if found[part] not in usual:
                raise BadInput(f"{file}: not a Qwen2 tokenizer: its {part} is {found[part]}, expected {usual[0]}")
        TOKENIZER_MODEL_KEYS.check(f"{file}: model", model)
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        added = {entry["content"]: Added.read(entry["id"], entry) for entry in content["added_tokens"]}
        return dict(model["vocab"]), merges, added
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{file}: lacks or misstates {error}") from None


def read_parts(checkpoint: Checkpoint) -> tuple[dict[str, int], list[str], dict[str, Added]]:
    """From `vocab.json`, `merges.txt`, and what `added_tokens.json` and `tokenizer_config.json` add."""
    vocabulary, merges_file = checkpoint.find("vocab.json"), checkpoint.find("merges.txt")
    if vocabulary is None or merges_file is None:
        raise BadInput(f"{checkpoint.path}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    lines = merges_file.read_text(encoding="utf-8").splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    file = checkpoint.find("added_tokens.json")
    # those without a description count as special
    added = {token: Added.read(row, {}) for token, row in read_json(file).items()} if file else {}
    return read_json(vocabulary), merges, added | read_added(checkpoint)


def read_added(checkpoint: Checkpoint) -> dict[str, Added]:
    """Added tokens that `tokenizer_config.json` describes."""
    file = checkpoint.find("tokenizer_config.json")
    described = read_json(file).get("added_tokens_decoder") or {} if file else {}
    try:
        return {entry["content"]: Added.read(row, entry) for row, entry in described.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{file}: added_tokens_decoder lacks or misstates {error}") from None


def flatten(node: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a description, those in sequences one by one; `key` names a sequence's list."""
    if node is None:
        return []
    return [step for child in node[key] for step in flatten(child, key)] if node["type"] == "Sequence" else [node]


def strip_offsets(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def require_apart(path: Path, added: Mapping[str, Added]) -> None:
    """Raise BadInput where two added tokens can overlap in a text, of which libllama may take the other one."""
    begins = {token[:length]: token for token in sorted(added, key=len) for length in range(1, len(token))}
    strips = [token for token, entry in added.items() if entry.flags]
    for token, entry in added.items():
        if strips and token != token.strip():
            raise BadInput(
                f"{path}: the tokenizer's added token {token!r} begins or ends with a space, which {strips[0]!r} "
                "would take; leave one of them out"
            )
        if token != unicodedata.normalize("NFC", token):
            raise BadInput(f"{path}: the tokenizer's added token {token!r} is not in the normal form NFC; leave it out")
        # the tokenizer takes the one that begins first, libllama the longer one
        ends = (token[start:] for start in range(1, len(token)))
        overlapping = next((begins[end] for end in ends if end in begins and len(begins[end]) >= len(token)), token)
        within = (other for other in added if token in other and added[other].normalized and not entry.normalized)
        other = overlapping if overlapping != token else next(within, token)
        if other != token:
            raise BadInput(
                f"{path}: the tokenizer's added tokens {token!r} and {other!r} can overlap in a text, where libllama "
                "may find the other one; leave one of them out"
            )


def place(checkpoint: Checkpoint, tokens: list[str], types: list[int], row: int, token: str, kind: int) -> None:
    if not 0 <= row < len(tokens):
        raise BadInput(
            f"{checkpoint.path}: the tokenizer has a token of id {row}, the embedding matrix {len(tokens)} rows"
        )
    if types[row] != UNUSED and tokens[row] != token:
        raise BadInput(f"{checkpoint.path}: the tokenizer gives id {row} to both {tokens[row]!r} and {token!r}")
    tokens[row], types[row] = token, kind


def token_text(entry: Any) -> str | None:
    """The text of a token that a configuration gives as a string or as an object."""
    return entry.get("content") if isinstance(entry, dict) else entry


def stop_ids(checkpoint: Checkpoint) -> list[int]:
    """Ids that end an answer: those that the checkpoint states, and always the one that ends a turn of the template.

    Raises:
        BadInput: none is stated, or one is no row of the embedding matrix.
    """
    stated = stated_stop_ids(checkpoint)
    turn_end = read_bpe(checkpoint)[2][TURN_END].row
    if turn_end in stated:
        return stated
    LOG.warning(
        "%s: eos_token_id %s lacks %s (%d), with which ST-LLM's answers end; it is added",
        *(checkpoint.path, stated, TURN_END, turn_end),
    )
    return [*stated, turn_end]


def stated_stop_ids(checkpoint: Checkpoint) -> list[int]:
    """The `eos_token_id` of `generation_config.json`, or of `config.json` where the former has none."""
    file = checkpoint.find("generation_config.json")
    rows = checkpoint.shape("model.embed_tokens.weight")[0]
    for name, config in (
        ("generation_config.json", read_json(file) if file else {}),
        ("config.json", checkpoint.config),
    ):
        ids = config.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if wrong := [token for token in ids if type(token) is not int or not 0 <= token < rows]:
            raise BadInput(
                f"{checkpoint.path}: {name}: eos_token_id has {wrong[0]!r}, expected ids of tokens, 0..{rows - 1}"
            )
        if ids:
            return list(dict.fromkeys(ids))
    raise BadInput(f"{checkpoint.path}: neither generation_config.json nor config.json has an eos_token_id")


def reference_ids(checkpoint: Checkpoint, text: str, special: bool = True) -> list[int] | None:
    """Ids by the tokenizer's own implementation; None where the checkpoint has no `tokenizer.json`.

    The spelling of a special token is that token, unless `special` is false.
    """
    from tokenizers import Tokenizer as Reference

    file = checkpoint.find("tokenizer.json")
    if file is None:
        return None
    reference = Reference.from_file(str(file))
    reference.encode_special_tokens = not special
    return list(reference.encode(text, add_special_tokens=False).ids)
