"""The checkpoint's tokenizer as GGUF wants it: tokens, types, merges, special ids, chat template."""

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import BadInput
from .checkpoint import Checkpoint
from .weights import read_json

__all__ = ["Tokenizer", "reference_ids", "stop_ids"]

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE_TOKENS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer.

    Attributes:
        tokens: one a row of the embedding matrix; rows without a token are named `[PAD<row>]`.
        types: GGUF token types.
        merges: pairs in the order of their rank.
        special: ids by role: eos, bos, padding.
        chat_template: Jinja text, if the checkpoint has one.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    chat_template: str | None

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
        for token, (row, special) in added.items():
            place(checkpoint, tokens, types, row, token, CONTROL if special else USER_DEFINED)
        if absent := [token for token in TEMPLATE_TOKENS if token not in added]:
            raise BadInput(
                f"{checkpoint.path}: the tokenizer lacks {', '.join(absent)}, which the prompt template needs"
            )

        config_file = checkpoint.find("tokenizer_config.json")
        config = read_json(config_file) if config_file else {}
        ids = {token: row for row, token in enumerate(tokens)}
        roles = {"eos": stop_ids(checkpoint)[0]}
        for role, key in (("bos", "bos_token"), ("padding", "pad_token")):
            text = token_text(config.get(key))
            if text is not None and text in ids:
                roles[role] = ids[text]
        return cls(tokens, types, merges, roles, config.get("chat_template"))


def read_bpe(checkpoint: Checkpoint) -> tuple[dict[str, int], list[str], dict[str, tuple[int, bool]]]:
    """Vocabulary, merges, and added tokens with id and whether they are special."""
    if file := checkpoint.find("tokenizer.json"):
        content = read_json(file)
        try:
            model = content["model"]
            if model["type"] != "BPE" or QWEN2_SPLIT not in regexes(content["pre_tokenizer"]):
                raise BadInput(f"{file}: not a Qwen2 tokenizer (byte-level BPE with Qwen2's split expression)")
            merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
            added = {entry["content"]: (int(entry["id"]), bool(entry["special"])) for entry in content["added_tokens"]}
            return dict(model["vocab"]), merges, added
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: lacks or misstates {error}") from None
    vocabulary, merges_file = checkpoint.find("vocab.json"), checkpoint.find("merges.txt")
    if vocabulary is None or merges_file is None:
        raise BadInput(f"{checkpoint.path}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    lines = merges_file.read_text(encoding="utf-8").splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    return read_json(vocabulary), merges, read_added(checkpoint)


def read_added(checkpoint: Checkpoint) -> dict[str, tuple[int, bool]]:
    """Added tokens of `tokenizer_config.json` and `added_tokens.json`; those without a flag count as special."""
    added: dict[str, tuple[int, bool]] = {}
    if file := checkpoint.find("added_tokens.json"):
        added |= {token: (int(row), True) for token, row in read_json(file).items()}
    if file := checkpoint.find("tokenizer_config.json"):
        for row, entry in read_json(file).get("added_tokens_decoder", {}).items():
            added[entry["content"]] = (int(row), bool(entry.get("special", True)))
    return added


def place(checkpoint: Checkpoint, tokens: list[str], types: list[int], row: int, token: str, kind: int) -> None:
    if not 0 <= row < len(tokens):
        raise BadInput(
            f"{checkpoint.path}: the tokenizer has a token of id {row}, the embedding matrix {len(tokens)} rows"
        )
    tokens[row], types[row] = token, kind


def regexes(node: Any) -> list[str]:
    """All regular expressions of a pre-tokeniser description."""
    if isinstance(node, dict):
        own = [node["Regex"]] if isinstance(node.get("Regex"), str) else []
        return own + [found for value in node.values() for found in regexes(value)]
    return [found for value in node for found in regexes(value)] if isinstance(node, list) else []


def token_text(entry: Any) -> str | None:
    """The text of a token that a configuration gives as a string or as an object."""
    return entry.get("content") if isinstance(entry, dict) else entry


def stop_ids(checkpoint: Checkpoint) -> list[int]:
    """Ids that end an answer, from `generation_config.json` or `config.json`."""
    file = checkpoint.find("generation_config.json")
    for config in (read_json(file) if file else {}, checkpoint.config):
        ids = config.get("eos_token_id")
        ids = [ids] if isinstance(ids, int) else ids
        if isinstance(ids, list) and ids and all(isinstance(token, int) for token in ids):
            return ids
    raise BadInput(f"{checkpoint.path}: neither generation_config.json nor config.json has an eos_token_id")


def reference_ids(checkpoint: Checkpoint, text: str) -> list[int] | None:
    """Ids by the tokenizer's own implementation; None where the checkpoint has no `tokenizer.json`."""
    from tokenizers import Tokenizer as Reference

    file = checkpoint.find("tokenizer.json")
    return None if file is None else list(Reference.from_file(str(file)).encode(text, add_special_tokens=False).ids)
