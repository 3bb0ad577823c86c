"""Bundles that are measured, and whether they were held against the model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.subject import Subject, require_verified
from stllm_edge.runtime.errors import BadBundle
from stllm_edge.runtime.options import Options

OPTIONS = Options(precision="fp32", quant="Q8_0", threads=1)


@pytest.fixture
def recorded(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Subject]:
    """The tiny bundle with a record of parity: files and rows as `stllm-export verify` writes them, then changed."""

    def build(change: Callable[[dict[str, Any]], object] = lambda parity: None) -> Subject:
        bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
        manifest = json.loads((bundle / "manifest.json").read_text())
        graphs = [name for name in manifest["files"] if name.startswith("onnx/") and "fp16" not in name]
        passed = [{"stage": stage, "passed": True} for stage in ("vision", "points", "aligner")]
        manifest["parity"] = {
            "fp32": {"files": graphs, "rows": passed},
            "Q8_0": {
                "files": ["llm/Q8_0.gguf"],
                "rows": [{"stage": "graph", "passed": True}, {"stage": "loss"} | {"passed": None}],
            },
        }
        change(manifest["parity"])
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        return Subject.of(bundle, OPTIONS)

    return build


def test_a_bundle_that_agreed_with_the_model_is_verified(recorded: Callable[..., Subject]) -> None:
    subject = recorded()
    assert (subject.parity, subject.verified) == ("passed", True)
    require_verified(subject, allowed=False)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "an encoder differs": (lambda parity: parity["fp32"]["rows"][1].update(passed=False), "failed", "differs from the"),
    "the language model differs": (lambda parity: parity["Q8_0"]["rows"][0].update(passed=False), "failed", "differs"),
    "an encoder was left out": (
        lambda parity: parity["fp32"]["rows"].pop(),
        "absent",
        "was not compared with the model",
    ),
    "no language model": (lambda parity: parity.pop("Q8_0"), "absent", "was not compared"),
    "another precision": (lambda parity: parity.update(fp16=parity.pop("fp32")), "absent", "was not compared"),
    "other files": (lambda parity: parity["fp32"].update(files=["onnx/vision.onnx"]), "absent", "was not compared"),
    "no limit was held": (lambda parity: parity["Q8_0"]["rows"][0].update(passed=None), "absent", "was not compared"),
    "an old record without rows": (lambda parity: parity["Q8_0"].pop("rows"), "absent", "was not compared"),
}


@pytest.mark.parametrize(("change", "parity", "reason"), CHANGES.values(), ids=CHANGES)
def test_any_other_is_refused_unless_it_is_allowed(
    change: Callable[[dict[str, Any]], object], parity: str, reason: str, recorded: Callable[..., Subject]
) -> None:
    subject = recorded(change)
    assert (subject.parity, subject.verified) == (parity, False)
    with pytest.raises(BadBundle, match=f"fp32 and Q8_0 {reason}.*stllm-export verify.*--allow-unverified"):
        require_verified(subject, allowed=False)
    require_verified(subject, allowed=True)


def test_columns_say_what_was_decided(recorded: Callable[..., Subject]) -> None:
    subject = recorded()
    told = subject.columns()
    assert (told["precision"], told["quant"], told["kv"], told["threads"]) == ("fp32", "Q8_0", "f16", 1)
    assert told["bundle_digest"].startswith(subject.label)
    assert "CPU" in told["provider"]
    assert {file.suffix for file in subject.files} == {".onnx", ".data", ".gguf"}
    assert all(file.is_file() for file in subject.files)
