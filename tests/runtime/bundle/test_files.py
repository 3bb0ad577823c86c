"""Files are whole or absent."""

from pathlib import Path

import pytest
from stllm_edge.runtime.bundle.files import atomic_path


def test_an_atomic_file_appears_whole(tmp_path) -> None:
    target = tmp_path / "new" / "file"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def fail_to_write(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_an_atomic_file_is_kept_on_errors(tmp_path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail_to_write(target)
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
