"""Rows of `results.jsonl`: flat JSON objects, one a line, of the kinds that `results.schema.json` describes.

They load as they are: `pandas.read_json(path, lines=True)`, or `json_each` in SQLite.
"""

import json
import logging
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ..rea.journal import whole_lines

__all__ = ["RESULTS", "SCHEMA", "Row", "check_row", "read_rows", "schema"]

LOG = logging.getLogger(__name__)
SCHEMA = "stllm-edge.latency/1"
# in the folder of a run
RESULTS = "results.jsonl"
Row = dict[str, Any]
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a row, as it is shipped."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "results.schema.json").read_text(encoding="utf-8"))
    return found


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; what a crash left of a last line is left out, with a warning.

    Raises:
        BadInput: the file cannot be read, is of another schema, or holds a row that its schema refuses.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); expected results.jsonl of a run") from None
    whole = whole_lines(data)
    if len(whole) < len(data):
        LOG.warning("%s: its last line is incomplete and does not count", path)
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(check_row(json.loads(line, parse_constant=refuse)))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: line {number}: {error}; expected rows of stllm-bench latency") from None
    if not rows:
        raise BadInput(f"{path}: holds no row; expected results.jsonl of stllm-bench latency")
    return rows


def check_row(row: Any) -> Row:
    """The row itself; raises ValueError that says what its schema refuses."""
    if not isinstance(row, dict) or "schema" not in row:
        raise ValueError("is no row of a benchmark of latency")
    if row["schema"] != SCHEMA:
        raise ValueError(f"has schema {row['schema']!r}, this program reads {SCHEMA}")
    kinds = schema()["$defs"]
    kind = kinds.get(row.get("kind")) if isinstance(row.get("kind"), str) else None
    if kind is None:
        raise ValueError(f"is of kind {row.get('kind')!r}, known are {', '.join(kinds)}")
    if missing := [name for name in kind["required"] if name not in row]:
        raise ValueError(f"lacks {missing[0]!r}")
    for name, value in row.items():
        if not allows(described(kind, name), value):
            raise ValueError(f"states {name!r} as {value!r}")
    return row


def described(kind: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the schema says of a column; of one that it does not know, that nothing is allowed."""
    if name in kind["properties"]:
        found: Mapping[str, Any] = kind["properties"][name]
        return found
    patterns = kind.get("patternProperties", {})
    return next((said for pattern, said in patterns.items() if re.search(pattern, name)), {"enum": []})


def allows(said: Mapping[str, Any], value: Any) -> bool:
    """Whether a column may have a value: the schema's types, `const` and `enum`, all that it uses."""
    if "const" in said:
        return bool(value == said["const"])
    if "enum" in said and value not in said["enum"]:
        return False
    types = said.get("type", ())
    # to Python, true is a number
    return any(
        isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in ([types] if isinstance(types, str) else types)
    )


def refuse(constant: str) -> None:
    """NaN and infinity are no JSON."""
    raise ValueError(f"holds {constant}")
