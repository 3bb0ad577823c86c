"""The page cache before a cold start: what was done is said, and so is what stayed."""

import mmap
from pathlib import Path

import pytest
from stllm_edge.benchmarks.latency.machine.cache import drop_cache, resident_share


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file of some megabytes that has just been written, and an empty one."""
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.write_bytes(bytes(2**22 + 5))
    empty.touch()
    return [full, empty]


def test_files_are_forgotten_without_rights(files: list[Path], tmp_path: Path) -> None:
    assert resident_share(files) == 1.0
    said = drop_cache(files, tmp_path / "absent/drop_caches")
    assert said == "the bundle's files dropped, 0% of the bundle still in memory"
    assert resident_share(files) == 0.0


def test_everything_is_forgotten_where_that_is_allowed(files: list[Path], tmp_path: Path) -> None:
    switch = tmp_path / "drop_caches"
    assert drop_cache(files, switch).startswith("all dropped, ")
    assert switch.read_text() == "3"


def test_what_another_mapping_holds_is_said_to_have_stayed(files: list[Path], tmp_path: Path) -> None:
    with files[0].open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[place] for place in range(0, len(mapped), mmap.PAGESIZE)) == 0
        said = drop_cache(files, tmp_path / "absent/drop_caches")
    assert said == "the bundle's files dropped, 100% of the bundle still in memory"
    assert files[0].read_bytes() == bytes(2**22 + 5)


def test_nothing_to_look_at_is_no_share(files: list[Path]) -> None:
    assert resident_share(files[1:]) is None
