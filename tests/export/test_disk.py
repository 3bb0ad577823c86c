"""The disk that an export needs is said beforehand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.disk import SLACK, require_disk
from stllm_edge.export.gguf.types import KNOWN
from stllm_edge.runtime.errors import DoesNotFit


@pytest.fixture
def needed(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Bytes below which an export is refused."""
    checkpoint = Checkpoint(tiny_checkpoint)
    inventory = take_inventory(checkpoint)

    def fits(free: int, precisions: list[str], quants: list[str]) -> bool:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        try:
            require_disk(tmp_path / "new/bundle", checkpoint, inventory, precisions, quants)
        except DoesNotFit:
            return False
        return True

    def search(precisions: list[str], quants: list[str]) -> int:
        low, high = 0, 2**40
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle, precisions, quants) else (middle + 1, high)
        return low

    return search


def test_need_covers_what_is_written(needed: Callable[..., int], tiny_bundle: Path) -> None:
    written = sum(file.stat().st_size for file in tiny_bundle.rglob("*") if file.is_file())
    need = needed(["fp32", "fp16"], ["F32", "Q8_0", "Q4_K_M"])
    assert written < need < 3 * written + SLACK


def test_need_grows_with_each_part_and_with_its_bits(needed: Callable[..., int]) -> None:
    assert SLACK < needed([], ["Q4_K_M"]) < needed([], ["Q8_0"]) < needed([], ["Q8_0", "Q4_K_M"])
    assert needed(["fp16"], []) < needed(["fp32"], []) < needed(["fp32", "fp16"], [])


def test_every_type_has_a_need(needed: Callable[..., int]) -> None:
    assert all(needed([], [quant]) > SLACK for quant in KNOWN)


def test_plain_file_that_others_are_made_from_is_counted_once(needed: Callable[..., int]) -> None:
    source = needed([], ["BF16"]) - SLACK
    assert needed([], ["Q8_0"]) + needed([], ["Q4_0"]) - needed([], ["Q8_0", "Q4_0"]) == source + SLACK
    assert needed([], ["BF16", "Q8_0"]) == needed([], ["Q8_0"])


@pytest.mark.parametrize("command", ["onnx", "gguf", "all"])
def test_export_onto_a_full_disk_is_refused_before_anything_is_written(
    command: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    result = stllm("export", command, "--ckpt", tiny_checkpoint, "--out", tmp_path / "bundle", "--quiet")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "GB of disk at its peak, 0.0 GB are free" in line
    assert "--out" in line
    assert list(tmp_path.iterdir()) == []


def test_need_is_told(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", tmp_path / "bundle", "--quant", "F32")
    assert result.exit_code == 0, result.output
    assert "GB of disk at its peak" in result.stderr
