"""Names and shapes from the beginning of a checkpoint's files."""

import shutil
from pathlib import Path

import pytest
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.headers import Headers
from stllm_edge.runtime.errors import BadInput


def test_headers_are_the_checkpoints(tiny_checkpoint: Path) -> None:
    headers, checkpoint = Headers(tiny_checkpoint), Checkpoint(tiny_checkpoint)
    assert headers.names() == checkpoint.names()
    assert all(headers.shape(name) == checkpoint.shape(name) for name in headers.names())
    assert headers.geometry() == TINY
    assert "model.norm.weight" in headers
    assert "other" not in headers


def test_a_stored_output_matrix_is_no_embedding_matrix(tiny_checkpoint: Path) -> None:
    headers = Headers(tiny_checkpoint)
    headers.config["tie_word_embeddings"] = True
    assert not headers.geometry().llm.tied


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", "{}", r"a LoRA adapter, whose base has the sizes; export it"),
        ("config.json", None, r"config\.json is missing"),
        ("model.safetensors", "short", r"model\.safetensors"),
    ],
)
def test_what_is_not_a_checkpoint_is_one_line(
    tiny_checkpoint: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(content)
    with pytest.raises(BadInput, match=message) as caught:
        Headers(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not a directory; expected the folder that the trainer saved"):
        Headers(tmp_path / "none")


def test_a_tensor_that_is_missing_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(BadInput, match=r"tensor other is missing"):
        Headers(tiny_checkpoint).shape("other")
