"""Results are printed as they come; what failed is named on stderr, with exit status 1."""

from collections.abc import Iterator

import pytest
from stllm_edge.export.reporting import print_rows
from stllm_edge.export.verify import Row


def row(part: str, passed: bool | None) -> Row:
    return Row(part, "prefill", passed, "reported")


def test_rows_are_printed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[Row]:
        for part in ("F32", "Q8_0"):
            yield row(part, True)
            assert f"✓ {part}" in capsys.readouterr().out

    print_rows(rows())
    print_rows([row("Q4_K_M", None)])


def test_what_failed_is_named_with_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        print_rows([row("F32", False), row("Q4_K_M", None), row("Q8_0", True), row("F16", False)])
    printed = capsys.readouterr()
    assert left.value.code == 1
    assert len(printed.out.splitlines()) == 4
    assert printed.err == "failed: F32 prefill, F16 prefill\n"
