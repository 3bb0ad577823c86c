"""What lies in place of a file is told by what its bytes show."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.files import read_json
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.runtime.errors import BadInput

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 10534616\n"
IN_PLACE = {
    "Git LFS pointer": POINTER,
    "web page": b"\n<!DOCTYPE html>\n<html><head><title>404</title>",
    "text that begins with": b"Access to model x is restricted. Please log in.",
    "text that begins with '{": b'{"error": "Repository not found"}',
    "truncated or damaged": b"",
}


@pytest.mark.parametrize("words", IN_PLACE)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_what_lies_in_place_of_weights_is_told(name: str, words: str, folder: Path) -> None:
    (folder / name).write_bytes(IN_PLACE[words])
    with pytest.raises(BadInput, match=f"{name}: .*{words}"):
        Checkpoint(folder)


@pytest.mark.parametrize("words", ["Git LFS pointer", "web page", "not JSON"])
def test_what_lies_in_place_of_json_is_told(words: str, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(IN_PLACE.get(words, b"{"))
    with pytest.raises(BadInput, match=words):
        read_json(file)


@pytest.mark.parametrize(("case", "words"), [("lfs", "Git LFS pointer"), ("zero3", "ZeRO-3 .*zero_to_fp32.py")])
def test_case_of_weights_that_are_none(case: str, words: str, field_case: Callable[[str], Path]) -> None:
    folder = field_case(f"26-checkpoint-messages/{case}")
    with pytest.raises(BadInput, match=words):
        take_inventory(Checkpoint(folder / "checkpoint"))
