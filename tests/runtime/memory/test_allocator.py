"""Blocks of a frame's size are cleared by the kernel once, not once a frame."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from stllm_edge.runtime.memory.allocator import keep_freed_blocks

if sys.argv[1] == "keep":
    keep_freed_blocks()

def frame():
    # what decoding holds at once: pixels, a copy, bytes of them, an array
    return [np.ones(1_000_000, np.uint8) for _ in range(4)]

frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc, and nothing is changed")
def test_what_a_frame_needed_is_there_for_the_next() -> None:
    assert faults("keep") < 500 < 5_000 < faults("leave")
