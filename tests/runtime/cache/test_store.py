"""Features in memory and in a folder: bounded, shared, damaged, full."""

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.cache import store as module
from stllm_edge.runtime.cache.keys import digest
from stllm_edge.runtime.cache.packing import pack
from stllm_edge.runtime.cache.store import Folder, Store

KILOBYTE = np.zeros(250, np.float32)
KEYS = [digest(number) for number in range(8)]
ENTRY = len(pack(KILOBYTE))


def files(folder: Path) -> set[str]:
    return {file.stem for file in folder.rglob("*.features")}


def test_the_least_recently_used_goes_first_from_memory() -> None:
    store = Store(3000)
    for key in KEYS[:3]:
        store.put(key, KILOBYTE.copy())
    store.get(KEYS[0])
    store.put(KEYS[3], KILOBYTE.copy())
    assert [key in store for key in KEYS[:4]] == [True, False, True, True]
    store.put(KEYS[4], np.zeros(4000, np.uint8))
    assert KEYS[4] not in store
    store.clear()
    assert store.get(KEYS[0]) is None


def test_the_least_recently_used_goes_first_from_the_folder(folder) -> None:
    store = Store(0, Folder(folder, 3 * ENTRY))
    for number, key in enumerate(KEYS[:3]):
        store.put(key, KILOBYTE.copy())
        os.utime(next(folder.rglob(f"{key}*")), (number, number))
    assert store.get(KEYS[0]) is not None
    store.put(KEYS[3], KILOBYTE.copy())
    assert files(folder) == {KEYS[0], KEYS[2], KEYS[3]}
    Folder(folder, ENTRY)
    assert len(files(folder)) == 1


def test_what_is_larger_than_the_folder_may_be_is_not_written(folder) -> None:
    Store(0, Folder(folder, 100)).put(KEYS[0], KILOBYTE.copy())
    assert not files(folder)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-7], lambda data: b"", lambda data: data[:90] + b"xx" + data[92:]]
)
def test_what_is_damaged_is_unknown_and_said_once(folder, damage, caplog) -> None:
    store = Store(0, Folder(folder, 10**6))
    for key in KEYS[:2]:
        store.put(key, KILOBYTE.copy())
        file = next(folder.rglob(f"{key}*"))
        file.write_bytes(damage(file.read_bytes()))
    assert [store.get(key) for key in KEYS[:2]] == [None, None]
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "is damaged" in said.getMessage()
    store.put(KEYS[0], KILOBYTE.copy())
    assert np.array_equal(store.get(KEYS[0]), KILOBYTE)


def test_a_full_disk_is_said_once_and_gone_without(folder, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(0, Folder(folder, 10**6))
    store.put(KEYS[0], KILOBYTE.copy())

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for key in KEYS[1:4]:
        store.put(key, KILOBYTE.copy())
    (said,) = caplog.records
    assert said.getMessage().endswith("the disk is full; goes on, and keeps nothing new there")
    assert store.get(KEYS[0]) is not None
    assert store.get(KEYS[1]) is None
    assert files(folder) == {KEYS[0]}
    assert not list(folder.rglob("*.part"))


def test_parts_that_a_killed_process_left_go(folder) -> None:
    Folder(folder, 10**6)
    (folder / "ab").mkdir()
    old, new = folder / "ab" / ".old.part", folder / "ab" / ".new.part"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * module.ABANDONED,) * 2)
    Folder(folder, 10**6)
    assert [file.exists() for file in (old, new)] == [False, True]


def test_folders_that_are_not_a_cache_are_refused(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(BadInput, match=r"--cache .*file: cannot be used as a folder"):
        Folder(file, 1)
    with pytest.raises(BadInput, match="holds other files; name a new folder"):
        Folder(tmp_path, 1)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / module.MARK).write_text("0\n")
    with pytest.raises(BadInput, match="was written by another version; delete it or name another folder"):
        Folder(tmp_path / "old", 1)


WRITES = """
import sys
import numpy as np
from pathlib import Path
from stllm_edge.runtime.cache.keys import digest
from stllm_edge.runtime.cache.store import Folder, Store
store = Store(0, Folder(Path(sys.argv[1]), 20_000))
for round in range(15):
    for number in range(30):
        found = store.get(digest(number))
        assert found is None or (found == number).all()
        store.put(digest(number), np.full(200, number, np.float32))
"""


def test_two_processes_share_a_folder(folder) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITES, folder], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 2
    Folder(folder, 20_000)
    assert 0 < sum(file.stat().st_size for file in folder.rglob("*.features")) <= 20_000
    assert not list(folder.rglob("*.part"))
