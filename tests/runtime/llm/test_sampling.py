"""Texts and schemas as llama.cpp's grammars."""

import pytest
from stllm_edge.runtime.llm.sampling import choices_grammar, schema_grammar


@pytest.mark.parametrize(
    ("choices", "grammar"),
    [
        (("left", "right"), 'root ::= "left" | "right"'),
        (('say "no"\\',), 'root ::= "say \\"no\\"\\\\"'),
        (("a\nb",), 'root ::= "a\\nb"'),
    ],
)
def test_choices_are_written_out(choices: tuple[str, ...], grammar: str) -> None:
    assert choices_grammar(choices) == grammar


def test_a_schema_has_a_root() -> None:
    assert "root ::= " in schema_grammar('{"type": "boolean", "title": "Whether it is open"}')
