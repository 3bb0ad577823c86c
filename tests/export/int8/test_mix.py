"""Products that stay float32 so that the whole keeps its gate."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.comparison import relative
from stllm_edge.export.int8 import gates
from stllm_edge.export.int8.mix import MARGIN, Mix
from stllm_edge.export.int8.recipe import Calibrating, Recipe
from stllm_edge.export.int8.runs import SetRun
from stllm_edge.export.model.parts import load_part
from stllm_edge.export.onnx.graphs import GRAPHS, transpose_linears
from stllm_edge.runtime.bundle.manifest import Defaults
from torch import nn


@pytest.fixture(scope="module")
def inputs(tiny_checkpoint: Path, calibration: Path) -> SetRun:
    checkpoint = Checkpoint(tiny_checkpoint)
    return SetRun.open(calibration, checkpoint, take_inventory(checkpoint).geometry, Defaults())


@pytest.fixture(scope="module")
def parts(tiny_checkpoint: Path, inputs: SetRun) -> dict[str, tuple[nn.Module, Recipe]]:
    checkpoint = Checkpoint(tiny_checkpoint)
    found = {}
    for name in ("vision", "points", "aligner"):
        module = GRAPHS[name](load_part(checkpoint, take_inventory(checkpoint), name))
        transpose_linears(module)
        inputs.safe_weights(name, module)
        found[name] = module, Recipe.of(name, module, inputs.observed[name], Calibrating())
    return found


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def limit(rel_rms: float) -> None:
        monkeypatch.setattr(gates, "limits", lambda: {"int8": {"cosine": 0.9, "rel_rms": rel_rms / MARGIN, "norm": 1}})

    return limit


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", ["vision", "aligner"])
def test_the_fewest_products_stay_that_keep_the_whole_within_its_gate(
    name: str,
    static: bool,
    inputs: SetRun,
    parts: dict[str, tuple[nn.Module, Recipe]],
    limited: Callable[[float], None],
) -> None:
    module, recipe = parts[name]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    pair = inputs._inputs(name, 0, inputs._outputs), inputs._outputs[name][0]

    def error(taken: Recipe) -> float:
        return relative(Mix(module, taken, static=static).compute(pair[0]).numpy(), pair[1].numpy())

    whole = error(recipe)
    limited(whole * 1.01)
    assert Mix(module, recipe, static=static).within_gate([pair]) is recipe
    limited(whole * 0.85)
    found = Mix(module, recipe, static=static).within_gate([pair])
    assert 0 < error(found) <= whole * 0.85
    kept = [choice for choice in found.choices if choice.stays(static) and "alone by" in choice.why(static)]
    assert 0 < len(kept) < len(recipe.choices) - 2
    # CPUs take more in INT8 than TensorRT, never less
    assert [one.form for one in found.choices] == [one.form for one in recipe.choices] or not static
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_what_was_lowered_before_is_not_mended_after(
    inputs: SetRun, parts: dict[str, tuple[nn.Module, Recipe]], limited: Callable[[float], None]
) -> None:
    module, recipe = parts["aligner"]
    pair = inputs._inputs("aligner", 0, inputs._outputs), inputs._outputs["aligner"][0] * 1.1
    limited(0.05)
    assert Mix(module, recipe, static=False).within_gate([pair]) is recipe


def test_an_aligner_reads_what_was_lowered(inputs: SetRun, parts: dict[str, tuple[nn.Module, Recipe]]) -> None:
    for name, (module, recipe) in parts.items():
        assert inputs.mixed(name, module, recipe) == recipe
    for lowered in inputs._lowered:
        assert list(lowered) == ["vision", "points"]
        assert 0 < relative(lowered["vision"][0].numpy(), inputs._outputs["vision"][0].numpy()) < 0.05
