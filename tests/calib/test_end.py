"""The gate at the end: the language model's next token, kept in the manifest."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from stllm_edge.calib import end as module
from stllm_edge.calib.end import End
from stllm_edge.export.int8.convert import int8_weights
from stllm_edge.runtime.bundle.digests import sha256
from stllm_edge.runtime.bundle.manifest import MANIFEST, Bundle


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


def test_an_error_in_a_graph_is_caught_at_the_end(
    bundle: Path, calibration: Path, stllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers of the tower in another order: still finite, still of their norm.

    A tiny random language model hardly heeds what it sees, so that the limit is taken between the two.
    """
    options = ["--bundle", bundle, "--precision", "int8", "--calibration", calibration, "--quant", "F32"]
    clean = json.loads(stllm("calib", "gate", *options, "--json").stdout)["divergence"]
    manifest = json.loads((bundle / MANIFEST).read_text())
    entry = manifest["encoders"]["int8"]["vision"]["cpu"]
    name, graph = entry["weights"], ir.load(bundle / entry["file"]).graph
    values = np.fromfile(bundle / name, np.int8)
    for weight in int8_weights(graph):
        held: Any = graph.initializers[f"{weight}.int8"].const_value
        place = slice(held.offset, held.offset + held.length)
        values[place] = np.roll(values[place], 64)
    (bundle / name).unlink()
    values.tofile(bundle / name)
    manifest["files"][name]["sha256"] = sha256(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(module, "gate", lambda name: {"divergence": 5 * clean, "agreement": 1.0})
    refused = stllm("calib", "gate", *options)
    assert refused.exit_code == 1, refused.output
    assert refused.stdout.startswith("✗ int8  KL")
    assert Bundle(bundle).unverified == ["int8"]


@pytest.mark.parametrize(
    ("missing", "mend"),
    [("onnxruntime", "pip install 'stllm-edge[cpu]'"), ("llama_cpp", "pip install llama-cpp-python")],
)
def test_a_missing_library_is_named_with_what_brings_it(
    missing: str, mend: str, bundle: Path, calibration: Path, stllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = stllm("calib", "gate", "--bundle", bundle, "--precision", "int8", "--calibration", calibration)
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if "is not installed" in line]
    assert mend in line


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
