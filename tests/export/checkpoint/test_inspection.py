"""`stllm-export inspect`: what a checkpoint holds, as text and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def report(stllm: Any, tiny_checkpoint: Path) -> dict[str, Any]:
    result = stllm("export", "inspect", "--ckpt", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_counts_every_tensor_once(report: dict[str, Any], tiny_tensors: dict[str, torch.Tensor]) -> None:
    parts = report["parts"].values()
    assert sum(part["tensors"] for part in parts) == len(tiny_tensors)
    assert sum(part["parameters"] for part in parts) == sum(tensor.numel() for tensor in tiny_tensors.values())
    assert sum(part["bytes"] for part in parts) == sum(tensor.nbytes for tensor in tiny_tensors.values())


def test_json_tells_types_and_problems(report: dict[str, Any]) -> None:
    assert list(report["parts"]) == ["vision", "points", "aligner", "llm", "unused"]
    assert list(report["parts"]["points"]["types"]) == ["float32"]
    assert list(report["parts"]["llm"]["types"]) == ["bfloat16"]
    assert report["missing"] == report["unknown"] == report["misfits"] == []
    assert "qformer.embeddings.position_embeddings.weight" in report["unused"]
    assert report["geometry"]["llm"]["width"] == 256


def test_text_has_a_line_for_each_part(stllm: Any, tiny_checkpoint: Path, report: dict[str, Any]) -> None:
    result = stllm("export", "inspect", "--ckpt", tiny_checkpoint)
    assert result.exit_code == 0
    for part, row in report["parts"].items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"{part} "))
        assert f"{row['parameters']:,}" in line
    for problem in ("missing", "unknown", "misfits"):
        assert f"{problem}: none" in result.stdout


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_incomplete_checkpoint_is_described_with_exit_status_1(
    options: list[str], stllm: Any, alter: Callable[..., Path]
) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]
        tensors["detector.weight"] = torch.zeros(3)
        tensors["model.image_newline"] = torch.zeros(5)

    result = stllm("export", "inspect", "--ckpt", alter(damage), *options)
    assert result.exit_code == 1
    for expected in ("model.norm.weight", "detector.weight", "model.image_newline is [5], expected [256]"):
        assert expected in result.stdout
    if options:
        found = json.loads(result.stdout)
        assert (found["missing"], found["unknown"]) == (["model.norm.weight"], ["detector.weight"])


def test_other_point_encoder_is_counted(stllm: Any, tiny_checkpoint: Path, tiny_tensors: Any, tmp_path: Path) -> None:
    prefix = "pcd_encoder.net3d."
    state = {
        f"module.{name.removeprefix(prefix)}": tensor.double()
        for name, tensor in tiny_tensors.items()
        if name.startswith(prefix)
    }
    torch.save({"state_dict": state}, tmp_path / "openseg.pth.tar")
    result = stllm(
        "export", "inspect", "--ckpt", tiny_checkpoint, "--point-encoder", tmp_path / "openseg.pth.tar", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["parts"]["points"]["types"]) == ["float64"]
    assert str(tmp_path / "openseg.pth.tar") in found["files"]


def test_inspecting_writes_nothing(stllm: Any, alter: Callable[..., Path]) -> None:
    path = alter()
    before = sorted(path.rglob("*"))
    assert stllm("export", "inspect", "--ckpt", path).exit_code == 0
    assert sorted(path.rglob("*")) == before
