"""A bundle of one small file, and how it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.runtime.bundle.writer import BundleWriter

DESCRIPTION: dict[str, Any] = {
    "source": {"checkpoint": "ckpt", "sha256": "00"},
    "geometry": TINY.to_json(),
    "defaults": {"voxel_size": 0.05, "frames": 8, "time_instruction": False},
    "stop_ids": [1002, 1000],
}
EMBEDDING = {"offset": 0, "type": "F32", "rows": 1024, "columns": 256}


@pytest.fixture(name="description")
def description_fixture() -> dict[str, Any]:
    """What the parts of the bundle share."""
    return DESCRIPTION


@pytest.fixture(name="add_llm")
def add_llm_function() -> Callable[..., None]:
    """Adds a file as a language model: `add_llm(writer, quant, content)`."""
    return add_llm


def add_llm(writer: BundleWriter, quant: str, content: bytes = b"weights") -> None:
    writer.describe(DESCRIPTION)
    writer.require_absent("llm", quant)
    file = writer.staging / "llm" / f"{quant}.gguf"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    writer.add("llm", quant, {"file": f"llm/{quant}.gguf", "embedding": EMBEDDING}, [f"llm/{quant}.gguf"])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A bundle of one file."""
    with BundleWriter.open(tmp_path / "written") as writer:
        add_llm(writer, "F32")
    return tmp_path / "written"
