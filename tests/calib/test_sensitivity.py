"""Blocks in INT8 one at a time, and the mix that keeps a budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.calib.sensitivity import Effect, Sensitivity
from stllm_edge.runtime.console import Progress


@pytest.fixture(scope="module")
def measured(tiny_checkpoint: Path, calibration: Path) -> Sensitivity:
    return Sensitivity(tiny_checkpoint, calibration, None, None, 1, Progress(quiet=True))


@pytest.fixture(scope="module")
def ranked(measured: Sensitivity) -> list[Effect]:
    return measured.effects()


def test_blocks_are_ranked_and_leave_the_encoders_as_they_were(measured: Sensitivity, ranked: list[Effect]) -> None:
    costs = [effect.prefix + effect.video for effect in ranked]
    assert costs == sorted(costs, reverse=True)
    assert {effect.block for effect in ranked} >= {"vision.layers.0", "vision.project_in", "aligner.last"}
    assert not [effect for effect in ranked if "project_out" in effect.block or "rays" in effect.block]
    assert all(0 < effect.prefix < 0.1 for effect in ranked)
    # measured again after all others: nothing of theirs was left behind
    first = ranked[0]
    assert measured.together(first.block, [tuple(first.block.split(".", 1))]).prefix == first.prefix


def test_a_budget_keeps_the_costliest_blocks(measured: Sensitivity, ranked: list[Effect]) -> None:
    everything = measured.together("all", [tuple(effect.block.split(".", 1)) for effect in ranked])
    budget = max(everything.prefix, everything.video) * 0.6
    kept, mix = measured.within(budget, ranked)
    assert 0 < len(kept) < len(ranked)
    assert kept == [f"{effect.block}.*" for effect in ranked[: len(kept)]]
    assert max(mix.prefix, mix.video) <= budget
    assert measured.within(1.0, ranked)[0] == []


def test_a_language_model_says_what_a_block_does_to_its_choice(
    tiny_checkpoint: Path, calibration: Path, tiny_bundle: Path
) -> None:
    asked = Sensitivity(tiny_checkpoint, calibration, tiny_bundle, "F32", 1, Progress(quiet=True))
    effect = asked.together("aligner", [("aligner", "last")])
    assert 0 < effect.divergence < 1
    assert "KL" in str(effect)


def test_the_command_prints_a_table_a_plot_and_options(
    tiny_checkpoint: Path, calibration: Path, stllm: Any, tmp_path: Path
) -> None:
    options = ["--ckpt", tiny_checkpoint, "--calibration", calibration, "--plot", tmp_path / "s.svg", "--budget", 1]
    result = stllm("calib", "sensitivity", *options, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["keep_float"] == []
    assert found["blocks"][0]["divergence"] is None
    assert (tmp_path / "s.svg").read_text().count("<rect") > 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", 0], "--budget 0.0: expected a positive number"),
        (["--samples", 9], "holds out 1"),
        (["--bundle", "nowhere"], "no manifest.json"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[object], words: str, tiny_checkpoint: Path, calibration: Path, stllm: Any
) -> None:
    result = stllm("calib", "sensitivity", "--ckpt", tiny_checkpoint, "--calibration", calibration, *options)
    assert result.exit_code == 2
    assert words in result.output
