"""What a quantised language model is to be: a type, other types for some tensors, an importance matrix, a size."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ..wanted import USUAL, Wanted
from .types import EMBEDDING, EMBEDDING_TYPES, KNOWN, PLAIN, TENSOR_TYPES

__all__ = ["Recipe", "parse_overrides", "parse_size", "read_recipe", "recipes_of"]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
NAME = re.compile(r"[A-Za-z0-9][\w.+=-]{0,60}")


@dataclass(frozen=True)
class Recipe:
    """One language model of a bundle.

    Attributes:
        name: under which the bundle holds it, of letters, digits and `_.+=-`.
        type: of the file, one of `KNOWN`.
        tensors: regular expressions and the GGML types of the tensors whose names they match somewhere; the first that
            matches counts.
        matrix: file of an importance matrix.
        size: bytes that the file is to have; types are yet to be chosen then, and `type` is none that counts.
    """

    name: str
    type: str
    tensors: tuple[tuple[str, str], ...] = ()
    matrix: Path | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.type not in KNOWN:
            raise BadInput(f"--quant {self.type}: unknown; known are {', '.join(KNOWN)}")
        if not NAME.fullmatch(self.name):
            raise BadInput(f"--name {self.name}: expected letters, digits and _.+=- alone, at most 61")
        if self.type in PLAIN and (self.tensors or self.matrix):
            raise BadInput(f"--quant {self.type}: is not quantised; --tensor and --imatrix are for types that are")

    def overrides(self, names: Iterable[str]) -> dict[str, str]:
        """Types by name of the tensors that have another one.

        Args:
            names: of the model's matrices.

        Raises:
            BadInput: a pattern matches none of them, or gives the embedding matrix a type whose rows cannot be read.
        """
        found: dict[str, str] = {}
        names = list(names)
        for pattern, kind in self.tensors:
            matched = [name for name in names if re.search(pattern, name)]
            if not matched:
                classes = dict.fromkeys(re.sub(r"blk\.\d+\.|\.weight$", "", name) for name in names)
                raise BadInput(f"--tensor {pattern}={kind}: matches no matrix; there are {', '.join(classes)}")
            found |= {name: kind for name in matched if name not in found}
        if (kind := found.get(EMBEDDING, "F32")) not in EMBEDDING_TYPES:
            pattern = next(pattern for pattern, _ in self.tensors if re.search(pattern, EMBEDDING))
            raise BadInput(
                f"--tensor {pattern}={kind}: matches {EMBEDDING}, whose rows stllm-run reads; for it, known are "
                f"{', '.join(EMBEDDING_TYPES)}"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"type": self.type, "overrides": dict(self.tensors)}


def parse_overrides(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """PATTERN=TYPE texts as pairs; raises BadInput for an unknown type or what is no regular expression."""
    pairs = []
    for text in texts:
        pattern, equals, kind = text.rpartition("=")
        if not equals or not pattern:
            raise BadInput(f"--tensor {text}: expected PATTERN=TYPE, as output=Q8_0")
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(f"--tensor {text}: {pattern!r} is no regular expression ({error})") from None
        if kind.upper() not in TENSOR_TYPES:
            raise BadInput(f"--tensor {text}: type {kind} is unknown; known are {', '.join(TENSOR_TYPES)}")
        pairs.append((pattern, kind.upper()))
    return tuple(pairs)


def parse_size(text: str) -> int:
    """Bytes of a text such as 5.0GiB or 800MB; raises BadInput for anything else."""
    form = SIZE.fullmatch(text.strip())
    if not form or form[2].upper() not in UNITS or not float(form[1]):
        raise BadInput(f"--target-size {text}: expected a size such as 5.0GiB, 4800MB or 900MiB")
    return int(float(form[1]) * UNITS[form[2].upper()])


def read_recipe(path: Path) -> Recipe:
    """A recipe file: JSON with `type`, and `name`, `tensors` (types by pattern), `imatrix` (a path beside it).

    Raises:
        BadInput: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"--recipe {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--recipe {path}: is no JSON file ({error})") from None
    kinds = {"type": str, "name": str, "imatrix": str, "tensors": dict}
    if not isinstance(content, dict) or "type" not in content:
        raise BadInput(f"--recipe {path}: expected an object with type, and name, tensors, imatrix if wanted")
    for key, value in content.items():
        if not isinstance(value, kinds.get(key, ())):
            known = f"expected {kinds[key].__name__}" if key in kinds else f"known are {', '.join(kinds)}"
            raise BadInput(f"--recipe {path}: {key} is {json.dumps(value)[:40]}; {known}")
    tensors = parse_overrides([f"{pattern}={kind}" for pattern, kind in content.get("tensors", {}).items()])
    matrix = path.parent / content["imatrix"] if "imatrix" in content else None
    return Recipe(content.get("name", path.stem), content["type"], tensors, matrix)


def recipes_of(wanted: Wanted) -> list[Recipe]:
    """Recipes as a user's options state them, each once.

    Raises:
        BadInput: an option is not what it has to be, or two recipes have one name.
    """
    overrides, matrix, name = parse_overrides(wanted.tensors), wanted.matrix, wanted.name
    sizes = [] if wanted.size is None else [parse_size(wanted.size)]
    quants = wanted.quants or (() if wanted.files or sizes else (USUAL,))
    if quants and matrix and not sizes and not set(quants) - set(PLAIN):
        raise BadInput(f"--imatrix {matrix}: is for quantised types; {', '.join(quants)} takes none")
    found = [Recipe(quant, quant, overrides, None if quant in PLAIN else matrix) for quant in dict.fromkeys(quants)]
    for file in wanted.files:
        read = read_recipe(file)
        found.append(Recipe(read.name, read.type, (*overrides, *read.tensors), read.matrix or matrix))
    found += [Recipe("".join((wanted.size or "").split()), USUAL, overrides, matrix, size) for size in sizes]
    if name is not None:
        if len(found) != 1:
            raise BadInput(f"--name {name}: names one language model, {len(found)} are asked for")
        found = [replace(found[0], name=name)]
    if twice := next((recipe.name for place, recipe in enumerate(found) if recipe.name in names(found[:place])), None):
        raise BadInput(f"--recipe: two language models have the name {twice}; give one another name")
    return found


def names(recipes: Iterable[Recipe]) -> set[str]:
    return {recipe.name for recipe in recipes}
