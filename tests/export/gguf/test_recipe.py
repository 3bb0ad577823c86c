"""Recipes as users write them: types, other types by pattern, files, names."""

import json
from pathlib import Path

import pytest
from stllm_edge.export.gguf.recipe import Recipe, parse_overrides, parse_size, read_recipe, recipes_of
from stllm_edge.export.wanted import Wanted
from stllm_edge.runtime.errors import BadInput

NAMES = ["token_embd.weight", "output.weight", *(f"blk.{n}.{k}.weight" for n in (0, 1) for k in ("attn_v", "ffn_up"))]


def test_first_pattern_that_matches_counts() -> None:
    recipe = Recipe("x", "Q4_K_M", parse_overrides(["blk.0.attn=Q8_0", "attn_v=q6_k", "^output=F16"]))
    expected = {"blk.0.attn_v.weight": "Q8_0", "blk.1.attn_v.weight": "Q6_K", "output.weight": "F16"}
    assert recipe.overrides(NAMES) == expected


def test_usual_type_is_made_where_nothing_is_said() -> None:
    assert recipes_of(Wanted()) == [Recipe("Q4_K_M", "Q4_K_M")]
    assert recipes_of(Wanted(("Q8_0", "F16", "Q8_0"), matrix=Path("m"))) == [
        Recipe("Q8_0", "Q8_0", matrix=Path("m")),
        Recipe("F16", "F16"),
    ]
    assert recipes_of(Wanted(size="5.0 GiB")) == [Recipe("5.0GiB", "Q4_K_M", size=5 * 2**30)]


def test_recipe_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"type": "Q3_K_M", "tensors": {"ffn_down": "Q5_K"}, "imatrix": "m.gguf"}))
    expected = Recipe("mine", "Q3_K_M", (("ffn_down", "Q5_K"),), tmp_path / "m.gguf")
    assert read_recipe(file) == expected
    (found,) = recipes_of(Wanted(files=(file,), tensors=("attn_v=Q8_0",), name="other"))
    assert (found.name, found.tensors) == ("other", (("attn_v", "Q8_0"), ("ffn_down", "Q5_K")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON file"),
        ("[]", "expected an object with type"),
        ('{"name": "x"}', "expected an object with type"),
        ('{"type": "Q4_K_M", "tensor": {}}', "tensor is {}; known are"),
        ('{"type": 4}', "type is 4; expected str"),
        ('{"type": "Q4_K_M", "tensors": {"a": "Q9"}}', "type Q9 is unknown"),
        ('{"type": "Q9"}', "--quant Q9: unknown"),
    ],
)
def test_recipe_file_that_is_something_else_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=said):
        read_recipe(file)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(tensors=("attn",)), "expected PATTERN=TYPE"),
        (Wanted(tensors=("(=Q8_0",)), "no regular expression"),
        (Wanted(tensors=("attn=Q9",)), "type Q9 is unknown; known are F32"),
        (Wanted(("F16",), tensors=("attn=Q8_0",)), "is not quantised"),
        (Wanted(("F16",), matrix=Path("m")), "is for quantised types"),
        (Wanted(("Q8_0", "Q4_0"), name="x"), "names one language model, 2"),
        (Wanted(name="../x"), "expected letters"),
        (Wanted(files=(Path("none.json"),)), "cannot be read"),
    ],
)
def test_options_that_cannot_be_are_refused(wanted: Wanted, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        recipes_of(wanted)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (["nope=Q8_0"], "matches no matrix; there are token_embd, output, attn_v"),
        (["embd=Q4_K"], "--tensor embd=Q4_K: matches token_embd.weight, whose rows stllm-run reads"),
    ],
)
def test_patterns_that_do_not_fit_the_model_are_refused(tensors: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Recipe("x", "Q4_K_M", parse_overrides(tensors)).overrides(NAMES)


def test_sizes_are_read() -> None:
    assert parse_size("5.0GiB") == 5 * 2**30
    assert parse_size("800 MB") == 8 * 10**8
    for text in ("", "5 apples", "0GB", "-1GB"):
        with pytest.raises(BadInput, match="--target-size"):
            parse_size(text)
