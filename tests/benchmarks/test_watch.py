"""The most that a command and its children held at once."""

import json
import subprocess
import sys

import pytest
from stllm_edge.benchmarks.watch import watch

HOLDS = "import time; held = b'1' * 10**8; time.sleep(1)"
STARTS_ONE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}])"
STARTS_ONE_IN_A_THREAD = f"""
import threading
thread = threading.Thread(target=exec, args=({STARTS_ONE!r},))
thread.start()
thread.join()
"""


@pytest.mark.parametrize("program", [HOLDS, STARTS_ONE, STARTS_ONE_IN_A_THREAD], ids=["itself", "child", "thread"])
def test_memory_of_a_command_and_its_children_counts(program: str) -> None:
    figures, status = watch([sys.executable, "-c", program])
    assert status == 0
    assert 100 < figures["anonymous_mb"] < 160
    assert figures["total_mb"] >= figures["anonymous_mb"]
    assert figures["seconds"] >= 1


def test_the_status_is_the_command_s() -> None:
    assert watch([sys.executable, "-c", "raise SystemExit(3)"])[1] == 3


def test_figures_are_one_line() -> None:
    command = [sys.executable, "-m", "stllm_edge.benchmarks.watch", sys.executable, "-c", "print('out'); exit(4)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "out\n")
    assert set(json.loads(done.stderr)) == {"anonymous_mb", "mapped_mb", "total_mb", "seconds"}
