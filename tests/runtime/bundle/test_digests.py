"""Digests are those of the content; a file that looks unchanged is not read again."""

import json
from pathlib import Path

import pytest
from stllm_edge.runtime.bundle import digests
from stllm_edge.runtime.bundle.digests import DigestMemory, file_digest, joint_digest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digest_is_sha_256(tmp_path, cache) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(file) == file_digest(file) == file_digest(file, fresh=True) == expected


def test_an_unchanged_file_is_remembered_and_fresh_reads_it_again(tmp_path, cache) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    true = file_digest(file)
    memory = cache / "digests.json"
    memory.write_text(memory.read_text().replace(true, "f" * 64))
    assert file_digest(file) == "f" * 64
    assert file_digest(file, fresh=True) == true
    assert file_digest(file) == true


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null"])
def test_a_damaged_memory_is_forgotten(tmp_path, cache, text: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    true = file_digest(file)
    (cache / "digests.json").write_text(text)
    assert file_digest(file) == true


def test_without_a_cache_folder_files_are_still_hashed(tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    monkeypatch.setenv("STLLM_CACHE", str(file / "cannot be a folder"))
    assert file_digest(file).startswith("ba7816bf")


def test_digests_of_several_files_are_kept_at_once(tmp_path, cache) -> None:
    files = [tmp_path / name for name in "abc"]
    with DigestMemory() as memory:
        for file in files:
            file.write_text(file.name)
            memory.digest(file)
            assert not cache.exists()
    written = (cache / "digests.json").stat()
    with DigestMemory() as memory:
        for file in files:
            memory.digest(file)
    assert (cache / "digests.json").stat() == written, "nothing was new"


def hash_and_stop(file: Path) -> None:
    with DigestMemory() as memory:
        memory.digest(file)
        raise KeyboardInterrupt


def test_what_was_hashed_before_an_interrupt_is_kept(tmp_path, cache) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with pytest.raises(KeyboardInterrupt):
        hash_and_stop(file)
    assert "ba7816bf" in (cache / "digests.json").read_text()


def test_what_another_process_adds_meanwhile_is_kept(tmp_path, cache) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"abc")
    theirs.write_bytes(b"")
    with DigestMemory() as memory:
        memory.digest(ours)
        file_digest(theirs)
    assert len(json.loads((cache / "digests.json").read_text())) == 2


def test_the_oldest_digests_are_forgotten(tmp_path, cache, monkeypatch) -> None:
    monkeypatch.setattr(digests, "LARGEST_MEMORY", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
        file_digest(tmp_path / name)
    kept = list(json.loads((cache / "digests.json").read_text()).values())
    assert kept == [digests.sha256(tmp_path / name) for name in "bc"]


def test_joint_digest_depends_on_names_and_digests_not_on_order() -> None:
    one = joint_digest({"a": "1", "b": "2"})
    assert one == joint_digest({"b": "2", "a": "1"})
    assert len({one, joint_digest({"a": "2", "b": "1"}), joint_digest({"a": "1"}), joint_digest({})}) == 4
