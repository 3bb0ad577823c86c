"""A file gives what it has, however much it is asked for."""

import tracemalloc
from pathlib import Path

from stllm_edge.runtime.inputs.decoding.bounded import BoundedFile


def test_reads_of_any_length(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    with BoundedFile(tmp_path / "a") as file:
        assert [file.read(3), file.read(), file.read(5)] == [b"012", b"3456789", b""]
        file.seek(20)
        assert file.read(1) == b""
        file.seek(0)
        tracemalloc.start()
        assert file.read(1 << 32) == b"0123456789"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20
