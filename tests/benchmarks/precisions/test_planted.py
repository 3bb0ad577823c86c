"""Outlier channels and values beyond FP16: refused as they come, and passed as the export lowers them."""

from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.precisions.planted import judged, plant
from stllm_edge.runtime.bundle.manifest import Defaults


@pytest.mark.parametrize("kind", ["outliers", "overflow"])
def test_what_the_export_does_is_what_passes(
    kind: str, tiny_checkpoint: Path, world: list[object], stllm: Any, tmp_path: Path
) -> None:
    plant(kind, tiny_checkpoint, tmp_path / "planted")
    options = ["--ckpt", tmp_path / "planted", *world, "--out", tmp_path / "set", "--samples", 4, "--frames", 1]
    assert stllm("calib", "collect", *options).exit_code == 0
    found = list(judged(kind, tmp_path / "planted", tmp_path / "set", Defaults()))
    assert [judgement.passed for words, _, judgement in found if words == "ours"] == [True, True]
    refused = [judgement for words, _, judgement in found if words == "plain"]
    assert [judgement.passed for judgement in refused] == [False, False]
    if kind == "overflow":
        assert all(judgement.overflows for judgement in refused)
