"""Grammars that an answer keeps to, in llama.cpp's notation (GBNF)."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import BadInput
from .libllama import libllama

__all__ = ["choices_grammar", "schema_grammar"]

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
    libllama()
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(text))
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
