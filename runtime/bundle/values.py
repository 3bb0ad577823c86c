"""Values of a JSON file as the types that they have to be, or a line on the first that is something else."""

import json
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["typed"]

# no count, size or frequency of a model is larger, and up to here integers and floats are one to all readers of JSON
LARGEST = 2**53
SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}
LONGEST = 40


def typed(kind: Any, value: Any, name: str, *, closed: bool = False) -> Any:
    """A value as a type.

    Args:
        kind: str, bool, int, float, Any, a dataclass, or a tuple, list, dict or None beside such.
        value: from a JSON file.
        name: path of the value, for messages.
        closed: whether a key that a dataclass does not have is an error; otherwise it is ignored.

    Raises:
        ValueError: the value, or one inside, is of another type or missing; the message is the predicate of a sentence.
    """
    kinds = get_args(kind)
    if kind is Any or (value is None and type(None) in kinds):
        return value
    if type(None) in kinds:
        return typed(kinds[0], value, name, closed=closed)
    if is_dataclass(kind):
        return typed_fields(kind, value, name, closed)
    container = get_origin(kind)
    if container is dict:
        require(isinstance(value, dict), name, value, "an object")
        return {key: typed(kinds[1], entry, f"{name}.{key}", closed=closed) for key, entry in value.items()}
    if container in (list, tuple):
        require(isinstance(value, list), name, value, "a list")
        return container(typed(kinds[0], entry, f"{name}[{i}]", closed=closed) for i, entry in enumerate(value))
    types, noun = SCALARS[kind]
    require(type(value) in types, name, value, noun)
    # written so that NaN fails too
    require(isinstance(value, str) or abs(value) <= LARGEST, name, value, noun)
    return value


def typed_fields(kind: Any, value: Any, name: str, closed: bool) -> Any:
    """An object as a dataclass; fields that have a default may be missing."""
    require(isinstance(value, dict), name, value, "an object")
    known = {field.name: field for field in fields(kind)}
    if closed and (unknown := [key for key in value if key not in known]):
        raise ValueError(f"holds '{name}.{unknown[0]}', as a newer version of this program writes it")
    for key, field in known.items():
        if key not in value and field.default is field.default_factory is MISSING:
            raise ValueError(f"lacks or misstates '{name}.{key}'")
    hints = type_hints(kind)
    given = {key: typed(hints[key], value[key], f"{name}.{key}", closed=closed) for key in known if key in value}
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"lacks or misstates '{name}' ({error})") from None


@cache
def type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def require(sound: bool, name: str, value: Any, noun: str) -> None:
    """Raise ValueError, which says what was found, unless a value is sound."""
    if sound:
        return
    if isinstance(value, dict | list):
        found = "an object" if isinstance(value, dict) else "a list"
    else:
        found = json.dumps(value if not isinstance(value, str) else value[:LONGEST])[: LONGEST + 2]
    raise ValueError(f"lacks or misstates '{name}' ({found}, expected {noun})")
