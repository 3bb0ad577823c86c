"""Memory of a command and its children by the kernel's counters."""

import json
import subprocess
import sys

from stllm_edge.benchmarks.watch import watch

HOLD = "import time; held = bytearray({megabytes} * 10**6); time.sleep(0.3)"


def test_what_a_command_and_its_child_hold_at_once_is_counted() -> None:
    child = [sys.executable, "-c", HOLD.format(megabytes=40)]
    parent = f"import subprocess; held = bytearray(60 * 10**6); subprocess.run({child!r}); raise SystemExit(3)"
    figures, status = watch([sys.executable, "-c", parent])
    assert status == 3
    assert 100 <= figures["anonymous_mb"] < 200
    assert figures["mapped_mb"] > 0
    assert figures["total_mb"] >= figures["anonymous_mb"]
    assert figures["seconds"] >= 0.3


def test_figures_are_one_line_and_the_status_is_the_command_s() -> None:
    command = [sys.executable, "-m", "stllm_edge.benchmarks.watch", sys.executable, "-c", "print('out'); exit(4)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "out\n")
    assert set(json.loads(done.stderr)) == {"anonymous_mb", "mapped_mb", "total_mb", "seconds"}
