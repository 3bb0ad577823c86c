"""JSON values become what they have to be, or one line says which does not."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from stllm_edge.runtime.bundle.values import typed


@dataclass(frozen=True)
class Leaf:
    """All scalars."""

    text: str
    count: int
    size: float = 1.0
    flag: bool = False
    note: str | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("an unlucky number")


@dataclass(frozen=True)
class Tree:
    """All containers."""

    leaves: dict[str, Leaf]
    rows: tuple[tuple[int, ...], ...] = ()
    anything: Any = None


LEAF = {"text": "a", "count": 1}


def test_values_of_the_right_types_are_taken() -> None:
    tree = {"leaves": {"a": {**LEAF, "size": 2, "flag": True, "note": "b"}}, "rows": [[1], []], "anything": [None]}
    assert typed(Tree, tree, "tree") == Tree({"a": Leaf("a", 1, 2, True, "b")}, ((1,), ()), [None])
    assert typed(Leaf, {**LEAF, "note": None}, "leaf") == Leaf("a", 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text", None, "'tree.leaves.a.text' (null, expected text)"),
        ("text", 5, "'tree.leaves.a.text' (5, expected text)"),
        ("count", True, "'tree.leaves.a.count' (true, expected a whole number)"),
        ("count", 1.0, "'tree.leaves.a.count' (1.0, expected a whole number)"),
        ("count", 10**30, f"'tree.leaves.a.count' ({10**30}, expected a whole number)"),
        ("size", float("nan"), "'tree.leaves.a.size' (NaN, expected a number)"),
        ("size", -float("inf"), "'tree.leaves.a.size' (-Infinity, expected a number)"),
        ("size", False, "'tree.leaves.a.size' (false, expected a number)"),
        ("flag", 1, "'tree.leaves.a.flag' (1, expected true or false)"),
        ("note", [], "'tree.leaves.a.note' (a list, expected text)"),
        ("text", {"a\nb": 1}, "'tree.leaves.a.text' (an object, expected text)"),
        ("count", "x\n" * 99, '("' + "x\\n" * 13),
        ("count", 13, "'tree.leaves.a' (an unlucky number)"),
    ],
)
def test_the_first_wrong_one_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match="lacks or misstates") as caught:
        typed(Tree, {"leaves": {"a": {**LEAF, key: value}}}, "tree")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ([], "tree"),
        ({}, "tree.leaves"),
        ({"leaves": [LEAF]}, "tree.leaves"),
        ({"leaves": {"a": {"text": ""}}}, "tree.leaves.a.count"),
        ({"leaves": {}, "rows": {}}, "tree.rows"),
        ({"leaves": {}, "rows": [[1], [2, None]]}, "tree.rows[1][1]"),
    ],
)
def test_containers_are_looked_into(tree: object, name: str) -> None:
    with pytest.raises(ValueError, match=f"^lacks or misstates '{re.escape(name)}'"):
        typed(Tree, tree, "tree")


def test_unknown_keys_are_ignored_or_of_a_newer_version() -> None:
    tree = {"leaves": {"a": {**LEAF, "colour": "red"}}}
    assert typed(Tree, tree, "tree").leaves["a"] == Leaf("a", 1)
    with pytest.raises(ValueError, match=r"^holds 'tree\.leaves\.a\.colour', as a newer version of this program"):
        typed(Tree, tree, "tree", closed=True)
