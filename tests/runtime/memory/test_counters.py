"""Memory counters against what this process does, and limits in an imitated control group."""

import os
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime.memory import counters
from stllm_edge.runtime.memory.counters import Usage, available, highest_peak, own_usage, reset_peak

GB = 10**9


def test_counters_are_plausible() -> None:
    usage = own_usage()
    assert 2**23 < usage.anonymous + usage.mapped < 2**40
    assert usage.mapped > 2**20
    assert usage.peak >= 0.9 * (usage.anonymous + usage.mapped)


def test_written_memory_counts_as_anonymous_and_stays_in_the_peak(fresh_pages: Any) -> None:
    before = own_usage()
    pages = fresh_pages(2**26)
    during = own_usage()
    assert during.anonymous - before.anonymous > 0.9 * len(pages)
    pages.close()
    assert own_usage().peak >= during.anonymous


def test_a_reset_peak_forgets_what_was_freed(fresh_pages: Any) -> None:
    fresh_pages(2**27).close()
    before = own_usage().peak
    assert reset_peak() >= before
    assert own_usage().peak < before


def test_the_highest_peak_outlives_resets(fresh_pages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_highest", 0)
    fresh_pages(2**27).close()
    before = own_usage().peak
    reset_peak()
    reset_peak()
    assert highest_peak() >= before > own_usage().peak


def test_a_process_that_is_gone_has_no_counters() -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    assert counters.counters(child) == {}


def test_without_proc_there_are_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "PROC", tmp_path)
    assert own_usage() == Usage(0, 0, 0)
    assert available() is None


def test_available_memory_is_positive_and_below_the_machine_s() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    room = available()
    assert room is not None
    assert 0 < room <= total


def write_group(folder: Path, limit: str, used: int, cache: int = 0, shared: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\nfile {cache}\nkernel 5\nshmem {shared}\n")


@pytest.fixture
def in_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the control groups; this process is in `outer/inner`."""
    read = Path.read_text

    def imitate(self: Path, *arguments: str) -> str:
        imitated = {"/proc/self/cgroup": "0::/outer/inner\n", "/proc/meminfo": "MemAvailable: 50000000 kB\n"}
        return imitated.get(str(self)) or read(self, *arguments)

    monkeypatch.setattr(Path, "read_text", imitate)
    monkeypatch.setattr(counters, "CGROUPS", tmp_path)
    return tmp_path


def test_a_group_bounds_what_is_available(in_group: Path) -> None:
    write_group(in_group / "outer/inner", str(8 * GB), 5 * GB)
    assert available() == 3 * GB


def test_page_cache_of_a_group_counts_as_room(in_group: Path) -> None:
    write_group(in_group / "outer/inner", str(8 * GB), 5 * GB, cache=4 * GB)
    assert available() == 7 * GB


def test_shared_memory_of_a_group_is_no_room(in_group: Path) -> None:
    write_group(in_group / "outer/inner", str(8 * GB), 5 * GB, cache=4 * GB, shared=GB)
    assert available() == 6 * GB


def test_a_group_above_bounds_too(in_group: Path) -> None:
    write_group(in_group / "outer/inner", "max", 5 * GB)
    write_group(in_group / "outer", str(7 * GB), 5 * GB)
    assert available() == 2 * GB


def test_without_limits_what_is_free_counts(in_group: Path) -> None:
    write_group(in_group / "outer/inner", "max", 5 * GB)
    assert available() == 50_000_000 * 1024


def test_groups_of_the_first_version_bound_too(in_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self: "5:cpu,memory:/job\n3:freezer:/\n" if self.name == "cgroup" else read(self),
    )
    group = in_group / "memory/job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(str(6 * GB))
    (group / "memory.usage_in_bytes").write_text(str(2 * GB))
    (group / "memory.stat").write_text(f"cache 0\nshmem 0\ntotal_cache {2 * GB}\ntotal_shmem {GB}\n")
    assert available() == 5 * GB
