"""Files are whole or absent."""

from pathlib import Path

import pytest
from stllm_edge.runtime.bundle.digests import file_digest
from stllm_edge.runtime.bundle.files import atomic_path, cache_folder


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


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No home in the environment, and a user without an entry."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "STLLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_user_without_a_home_has_no_cache(nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="home directory"):
        cache_folder()
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file").startswith("ba7816bf")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/stllm-edge")
