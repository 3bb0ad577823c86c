"""How tokens are chosen: the numbers of libllama's samplers, and grammars in its notation (GBNF).

No arrays and no libraries: every --help passes by here.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput, require_at_least
from ..libraries import load_library

__all__ = ["Sampling", "choices_grammar", "schema_grammar"]

# libllama's own number for a seed that is drawn
MOST_SEED = 2**32 - 2
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# what llama-cpp-python's converter reads, and what changes nothing; it passes over the others without a word
READ = {
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions", "enum", "format", "items",
    "maxItems", "maxLength", "minItems", "minLength", "oneOf", "pattern", "prefixItems", "properties", "required",
    "type",
}  # fmt: skip
NOTES = {"$comment", "$id", "$schema", "default", "description", "examples", "title"}
# of schemas by name rather than schemas
BY_NAME = {"properties", "$defs", "definitions"}
VALUES = {"const", "enum", "required", "default", "examples"}


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults take the best token each time.

    Attributes:
        temperature: 0 for the best token, else logits are divided by it before the draw.
        top_k: draw among so many of the best tokens; 0 for all.
        top_p: draw among the fewest best tokens that have this probability together; 1 for all.
        min_p: leave out tokens with less than this share of the best one's probability; 0 for none.
        repetition_penalty: logits of the last 64 tokens of the answer are divided by it, or multiplied where they are
            negative; 1 for none.
        seed: of the draws.
        stop: texts that end an answer; they are not part of it.
        choices: the only answers that are possible, if any.
        json_schema: JSON text of a schema that the answer keeps to, if any.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: str | None = None

    def check(self) -> None:
        """Raise BadInput for a value that is out of range, or for two grammars."""
        require_at_least({"--seed": (self.seed, 0), "--top-k": (self.top_k, 0)})
        if self.seed > MOST_SEED:
            raise BadInput(f"--seed {self.seed}: expected at most {MOST_SEED}")
        if not 0 <= self.temperature < float("inf"):
            raise BadInput(f"--temperature {self.temperature}: expected a number that is at least 0")
        for option, share in (("--top-p", self.top_p), ("--min-p", self.min_p)):
            if not 0 <= share <= 1:
                raise BadInput(f"{option} {share}: expected a number from 0 to 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise BadInput(f"--repetition-penalty {self.repetition_penalty}: expected a number above 0; 1 for none")
        if any(not text for text in self.stop):
            raise BadInput("--stop: an empty text would end every answer at once")
        if self.choices and self.json_schema is not None:
            raise BadInput("--choices and --json-schema are both given; give one")
        # what cannot be a grammar is said before anything is computed
        _ = self.grammar

    @property
    def grammar(self) -> str | None:
        """What the answer keeps to, in llama.cpp's notation; None where it is free."""
        if self.choices:
            return choices_grammar(self.choices)
        return None if self.json_schema is None else schema_grammar(self.json_schema)


def choices_grammar(choices: Sequence[str]) -> str:
    """A grammar of these answers alone; raises BadInput where one is empty."""
    if any(not choice or "\0" in choice for choice in choices):
        raise BadInput("--choices: one of them is empty or holds a zero byte; give texts, as left,right")
    return f"root ::= {' | '.join(map(literal, choices))}"


def literal(text: str) -> str:
    """A text as GBNF writes it."""
    return '"' + "".join(ESCAPES.get(character, character) for character in text) + '"'


def schema_grammar(text: str) -> str:
    """A grammar of the JSON texts that a schema allows.

    Raises:
        BadInput: it is no JSON, or uses what cannot be turned into a grammar.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--json-schema: is no JSON ({error})") from None
    if not isinstance(schema, dict) or not schema:
        raise BadInput("--json-schema: expected an object with at least a type, as JSON Schema has them")
    if unread := sorted({key for key, _ in pairs(schema)} - READ - NOTES):
        raise BadInput(f"--json-schema: {', '.join(unread)} cannot be held to by a grammar; leave it out")
    if any(value == [] for key, value in pairs(schema) if key in ("enum", "anyOf", "oneOf")):
        raise BadInput("--json-schema: an empty enum, anyOf or oneOf allows nothing; name what is allowed")
    convert = load_library("llama_cpp.llama_grammar", "pip install llama-cpp-python").json_schema_to_gbnf
    try:
        return str(convert(text))
    except Exception as error:  # the converter asserts, and raises whatever it meets
        reason = str(error) or type(error).__name__
        raise BadInput(f"--json-schema: cannot be turned into a grammar ({reason[:120]})") from None


def pairs(schema: Any) -> Iterator[tuple[str, Any]]:
    """Keywords of a schema and of those inside it, with their values."""
    if isinstance(schema, list):
        for part in schema:
            yield from pairs(part)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            yield key, value
            if key in BY_NAME and isinstance(value, dict):
                yield from (pair for part in value.values() for pair in pairs(part))
            elif key not in VALUES:
                yield from pairs(value)
