"""The gate at the end: the language model's next token, kept in the manifest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.calib import end as module
from stllm_edge.calib.end import End
from stllm_edge.runtime.bundle.manifest import Bundle


@pytest.fixture
def bundle(int8_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))


def test_the_end_is_judged_and_kept(
    bundle: Path, calibration: Path, stllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--bundle", bundle, "--precision", "int8", "--calibration", calibration, "--quant", "F32"]
    result = stllm("calib", "gate", *options, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["samples"], found["questions"], found["passed"]) == (1, 0, True)
    assert 0 <= found["divergence"] < 0.05
    assert Bundle(bundle).manifest["calibration"]["int8"]["end"] == found
    assert Bundle(bundle).unverified == []
    monkeypatch.setattr(module, "gate", lambda name: {"divergence": -1.0, "agreement": 1.0})
    refused = stllm("calib", "gate", *options)
    assert refused.exit_code == 1
    assert refused.stdout.startswith("✗ int8  KL")
    assert Bundle(bundle).unverified == ["int8"]


def test_answers_count_where_there_are_any() -> None:
    assert End("int8", 4, 0.01, 100, 0.99).passed
    assert not End("int8", 4, 0.01, 100, 0.97).passed
    assert not End("int8", 4, 0.06).passed
    assert "97.00% of 100 answers identical" in str(End("int8", 4, 0.01, 100, 0.97))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp32"], "takes fp32, another precision and a language model"),
        (["--precision", "int8", "--rea", "val.json"], "--root is missing"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    options: list[str], words: str, bundle: Path, calibration: Path, stllm: Any
) -> None:
    result = stllm("calib", "gate", "--bundle", bundle, "--calibration", calibration, *options)
    assert result.exit_code == 2
    assert words in result.output
