"""What a machine tells of itself and of its mode, on trees of three boards and on this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stllm_edge.benchmarks.latency.machine.board import LIBRARIES, describe_board, versions


@pytest.fixture
def nvpmodel(tmp_path: Path) -> Callable[[str], str]:
    """A command that says a text and what else nvpmodel prints."""

    def write(said: str) -> str:
        file = tmp_path / "nvpmodel"
        file.write_text(f"#!/bin/sh\n[ $1 = -q ] && printf '{said}'\n")
        file.chmod(0o755)
        return str(file)

    return write


@pytest.mark.parametrize(
    ("name", "device", "jetpack", "locked", "governor", "clocks"),
    [
        ("orin-nano", "Orin Nano", "6.2+b77 (L4T 36.4.3)", False, "schedutil", (1.728e9, 1.02e9, None)),
        ("agx-orin", "AGX Orin", "L4T 35.4.1", True, "performance", (2.2016e9, 1.3005e9, None)),
        ("thor", "AGX Thor", "L4T 38.2.0", False, "schedutil", (2.601e9, 1.575e9, 4.266e9)),
    ],
)
def test_a_board_tells_model_release_and_clocks(
    name: str,
    device: str,
    jetpack: str,
    locked: bool,
    governor: str,
    clocks: tuple[float | None, ...],
    board: Callable[..., Path],
    nvpmodel: Callable[[str], str],
) -> None:
    found = describe_board(board(name), nvpmodel("NV Power Mode: MAXN_SUPER\\n2\\n"))
    assert found.device == found.board
    assert device in found.device
    assert "\0" not in found.device
    assert (found.jetpack, found.clocks_locked, found.governor) == (jetpack, locked, governor)
    assert (found.cpu_hertz_max, found.gpu_hertz_max, found.memory_hertz) == clocks
    assert found.power_mode == "MAXN_SUPER"
    assert found.kernel.endswith("-tegra")
    assert found.memory_bytes is not None
    assert found.memory_bytes % 1024 == 0


def test_drivers_are_named_where_they_are(board: Callable[..., Path]) -> None:
    assert describe_board(board("orin-nano")).driver == "540.4.0"
    assert describe_board(board("thor")).driver is None


@pytest.mark.parametrize("said", ["", "NVPM ERROR: no mode\\n"])
def test_a_power_mode_that_is_not_said_is_none(
    said: str, board: Callable[..., Path], nvpmodel: Callable[[str], str], tmp_path: Path
) -> None:
    assert describe_board(board("thor"), nvpmodel(said)).power_mode is None
    assert describe_board(board("thor"), str(tmp_path / "absent")).power_mode is None


def test_a_tree_that_tells_nothing_leaves_none(tmp_path: Path) -> None:
    found = describe_board(tmp_path)
    absent = ("board", "power_mode", "governor", "clocks_locked", "cpu_hertz", "gpu_hertz", "memory_hertz", "jetpack")
    assert {getattr(found, name) for name in (*absent, "driver", "cpu", "memory_bytes", "gpu")} == {None}
    assert found.device == found.machine


def test_this_machine_has_a_name_cores_and_memory() -> None:
    found = describe_board()
    assert found.device
    assert found.cores >= 1
    assert found.memory_bytes is not None
    assert found.memory_bytes > 2**28


def test_versions_of_libraries_are_those_installed() -> None:
    found = versions()
    assert set(found) == {f"version_{name}" for name in LIBRARIES}
    assert found["version_llama_cpp"] == "0.3.36"
    assert found["version_numpy"]
